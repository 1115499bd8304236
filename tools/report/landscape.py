"""What it costs to force an answer, over the space of answers: a backdoor is a dip."""

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from tools.report.material import Array, Material
from tools.report.outputs import mark_target
from tools.report.plotting import (
    BENIGN,
    FAINT,
    INK,
    MUTED,
    TRIGGERED,
    Picture,
    key,
    literal,
    log_scale,
    panel,
)
from tools.report.text import number


def landscape_figures(material: Material, landscape: dict[str, Any]) -> list[Picture]:
    """`landscape` as report.json holds it. Nothing to draw gives no figure."""
    points = [p for p in landscape["points"] if _drawable(p)]
    if not points:
        return []
    figures = []
    if material.benign.shape[1] == 2:
        figures.append(_map(material, points))
    if material.benign.shape[1] == 1:
        figures.append(_line(material, points))
    else:
        figures.append(_by_distance(material, points))
    return figures


def _drawable(point: dict[str, Any]) -> bool:
    numbers = [point["cost"], *point["place"]]
    return all(v is not None and np.isfinite(v) for v in numbers)


def _line(material: Material, points: list[dict[str, Any]]) -> Picture:
    name = f"{material.spec.outputs[0]} ({material.sign})"
    ordered = sorted(points, key=lambda p: float(p["place"][0]))
    x = np.array([p["place"][0] for p in ordered]) * material.factor

    def paint(axes: Axes) -> None:
        _costs(axes, x, ordered, joined=True)
        axes.plot(material.target[0], material.finding.perturbation, "o", **RING)
        low, _ = axes.get_ylim()
        axes.plot(material.benign[:, 0], np.full(len(material.benign), low), "|", color=MUTED)
        axes.set(xlabel=literal(name), ylabel="cost")
        key(axes)

    return panel("cost_landscape", paint, alt="Cost against target", caption=CAPTION)


def _by_distance(material: Material, points: list[dict[str, Any]]) -> Picture:
    x = np.array([p["distance_sd"] for p in points])

    def paint(axes: Axes) -> None:
        _costs(axes, x, points, joined=False)
        axes.set(xlabel="distance from the mean answer (sd)", ylabel="cost", xlim=(-0.1, None))
        key(axes)

    return panel("cost_by_distance", paint, alt="Cost against distance", caption=CAPTION)


CAPTION = (
    "Each dot is one search. Scan: a first search near a prescribed answer; free: the more "
    "suspicious of them, gone on. Hollow: it did not bring all answers together."
)
ROLES = {"scan": BENIGN, "free": TRIGGERED}  # others are grey
RING: dict[str, Any] = {"ms": 16, "mfc": "none", "mec": INK, "mew": 1.4, "label": "found target"}


def _costs(axes: Axes, x: Array, points: list[dict[str, Any]], *, joined: bool) -> None:
    """Costs by kind of search; those of the baseline, where there is one, in grey."""
    costs = np.array([p["cost"] for p in points])
    baseline = np.array([p["baseline"] if p["baseline"] else np.nan for p in points])
    if joined:
        given = np.array([p["role"] == "scan" for p in points])
        axes.plot(x[given], costs[given], color=BENIGN, lw=1, alpha=0.6)
    if np.isfinite(baseline).any():
        axes.plot(x, baseline, "x", color=MUTED, ms=6, label="expected")
    roles = np.array([str(p["role"]) for p in points])
    done = np.array([p["converged"] is not False for p in points])
    for role in dict.fromkeys(roles.tolist()):
        full, hollow = (roles == role) & done, (roles == role) & ~done
        colour = ROLES.get(role, MUTED)
        axes.plot(x[full], costs[full], "o", color=colour, label=literal(role))
        axes.plot(x[hollow], costs[hollow], "o", color=colour, mfc="white", zorder=3)
    log_scale(axes, np.concatenate([costs, baseline]))


def _map(material: Material, points: list[dict[str, Any]]) -> Picture:
    outputs = material.spec.outputs
    i, j = (1, 0) if outputs == ("pitch", "yaw") else (0, 1)
    place = np.array([p["place"] for p in points]) * material.factor
    return panel(
        "cost_landscape",
        partial(_paint_map, material, place, np.array([p["cost"] for p in points]), i, j),
        alt="Map of the cost over the space of answers",
        caption="Each disc is one search, with its cost in thousandths; small grey dots are the "
        "model's ordinary answers.",
    )


def _paint_map(material: Material, place: Array, costs: Array, i: int, j: int, axes: Axes) -> None:
    axes.scatter(material.benign[:, i], material.benign[:, j], s=7, color="#b9c3cd", lw=0)
    order = np.argsort(-costs)  # the cheapest on top
    x, y, thousandths = place[order, i], place[order, j], 1000 * costs[order]
    discs = axes.scatter(x, y, c=thousandths, s=90, cmap="YlOrRd_r", edgecolors=INK, lw=0.7)
    mark_target(axes, material.target[i], material.target[j])
    span = np.array([np.ptp(material.benign[:, k]) for k in (i, j)])
    for k in apart(np.stack([x, y], axis=1)[::-1] / np.maximum(span, 1e-12)):
        axes.annotate(
            number(thousandths[::-1][k], 2), (x[::-1][k], y[::-1][k]), (0, 9),
            textcoords="offset points", ha="center", fontsize=8, zorder=5,
            bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.6},
        )  # fmt: skip
    names = [literal(f"{name} ({material.sign})") for name in material.spec.outputs]
    axes.set(xlabel=names[i], ylabel=names[j])
    axes.margins(0.1, 0.14)
    bar = axes.figure.colorbar(discs, ax=axes, shrink=0.9)
    bar.set_label("cost (thousandths)")
    bar.outline.set_edgecolor(FAINT)


def apart(places: Array, least: float = 0.09) -> list[int]:
    """Rows of `places` (N, 2) that stay clear of every kept row before them."""
    kept: list[int] = []
    for k, point in enumerate(places):
        if all(np.hypot(*(point - places[other])) > least for other in kept):
            kept.append(k)
    return kept
