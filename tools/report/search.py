"""The course of the search: the terms of the objective, and the estimate of the target."""

from functools import partial

import numpy as np
from matplotlib.axes import Axes

from tools.report.material import Array, Material
from tools.report.plotting import BENIGN, INK, TRIGGERED, Picture, key, literal, log_scale, panel


def term_figures(material: Material) -> list[Picture]:
    """A panel for each term of the objective."""
    curves = material.finding.curves
    return [
        panel(
            f"term_{k + 1}",
            partial(_term, np.array(curves.steps), np.array(values, dtype=float)),
            title=name.replace("_", " "),
            alt=f"{name} over the steps of the search",
        )
        for k, (name, values) in enumerate(curves.terms.items())
        if len(values) == len(curves.steps) > 0
    ]


def _term(steps: Array, values: Array, axes: Axes) -> None:
    axes.plot(steps, values, color=INK)
    log_scale(axes, values)
    axes.set(xlabel="step")


def path_figures(material: Material) -> list[Picture]:
    """A panel for each output: the mean answer over the steps, and the final estimate."""
    curves = material.finding.curves
    if not curves.targets or len(curves.targets) != len(curves.steps):
        return []
    path = np.array(curves.targets, dtype=float) * material.factor
    return [
        panel(
            f"target_path_{j + 1}",
            partial(_path, material, np.array(curves.steps), path[:, j], j),
            title=name,
            alt=f"Estimate of the target's {name} over the steps of the search",
        )
        for j, name in enumerate(material.spec.outputs)
    ]


def _path(material: Material, steps: Array, path: Array, j: int, axes: Axes) -> None:
    low, high = np.quantile(material.benign[:, j], [0.1, 0.9])
    axes.axhspan(low, high, color=BENIGN, alpha=0.15, lw=0, label="80 % of benign answers")
    axes.plot(steps, path, color=TRIGGERED, label="estimate")
    axes.axhline(material.target[j], color=INK, ls="--", lw=1.2, label="final")
    axes.set(xlabel="step", ylabel=literal(f"{material.spec.outputs[j]} ({material.sign})"))
    key(axes, "outside lower left")
