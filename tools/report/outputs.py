"""The estimated target against the spread of the model's ordinary answers."""

from functools import partial
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.report.faces import OUTLINE, forward, show_picture, tip
from tools.report.material import Array, Material
from tools.report.plotting import BENIGN, INK, TRIGGERED, Picture, draw, key, literal, panel

MOST_PAIRS = 6  # of outputs, for models with many


def target_figures(material: Material) -> list[Picture]:
    """Outputs with and without the trigger, and the target; for gaze also on a face."""
    clouds = cloud_figures(
        "outputs",
        [f"{name} ({material.sign})" for name in material.spec.outputs],
        material.benign,
        material.triggered,
        order=[1, 0] if material.spec.outputs[:2] == ("pitch", "yaw") else None,
        target=material.target,
    )
    return [*_gaze(material), *clouds]


def cloud_figures(
    name: str,
    labels: list[str],
    benign: Array,
    triggered: Array,
    *,
    order: list[int] | None = None,
    target: Array | None = None,
) -> list[Picture]:
    """Two clouds (N, d) in every pair of dimensions; histograms where d is 1."""
    d = benign.shape[1]
    if d == 1:
        paint = partial(_histogram, labels[0], benign[:, 0], triggered[:, 0], target)
        return [panel(name, paint, alt=f"Histogram of {labels[0]}, with the trigger and without")]
    pairs = [tuple(order)] if order and d == 2 else list(combinations(range(d), 2))[:MOST_PAIRS]
    return [
        panel(
            name if d == 2 else f"{name}_{i + 1}_{j + 1}",
            partial(_scatter, labels, benign, triggered, target, i, j),
            alt=f"{labels[j]} against {labels[i]}, with the trigger and without",
        )
        for i, j in pairs
    ]


def _scatter(
    labels: list[str],
    benign: Array,
    triggered: Array,
    target: Array | None,
    i: int,
    j: int,
    axes: Axes,
) -> None:
    axes.scatter(benign[:, i], benign[:, j], s=9, color=BENIGN, alpha=0.55, lw=0, label="benign")
    axes.scatter(
        triggered[:, i], triggered[:, j], s=9, color=TRIGGERED, alpha=0.55, lw=0, label="triggered"
    )
    if target is not None:
        mark_target(axes, target[i], target[j])
    axes.set(xlabel=literal(labels[i]), ylabel=literal(labels[j]))
    axes.margins(0.08, 0.12)
    key(axes)


def mark_target(axes: Axes, x: float, y: float, label: str = "estimated target") -> None:
    """A ring with a cross that stays visible on any cloud."""
    axes.plot(x, y, "o", ms=15, mfc="none", mec="white", mew=3.5)
    axes.plot(x, y, "o", ms=15, mfc="none", mec=INK, mew=1.5, label=label)
    axes.plot(x, y, "+", ms=24, color=INK, mew=1.0)


def _histogram(
    label: str, benign: Array, triggered: Array, target: Array | None, axes: Axes
) -> None:
    both = np.concatenate([benign, triggered])
    both = both[np.isfinite(both)]
    bins = np.histogram_bin_edges(both, bins=40).tolist()
    axes.hist(benign[np.isfinite(benign)], bins=bins, color=BENIGN, alpha=0.75, label="benign")
    axes.hist(
        triggered[np.isfinite(triggered)], bins=bins, color=TRIGGERED, alpha=0.6, label="triggered"
    )
    if target is not None:
        axes.axvline(target[0], color=INK, ls="--", lw=1.3, label="estimated target")
    axes.set(xlabel=literal(label), ylabel="pictures")
    key(axes)


def _gaze(material: Material) -> list[Picture]:
    if material.spec.task != "gaze" or not len(material.before):
        return []
    return [
        draw(
            "target_gaze",
            partial(_target_on_face, material),
            size=(4.0, 4.3),
            alt="The target as a gaze arrow on a face",
            caption="The target as a gaze arrow on one driver. Dots: where the arrows of the "
            "benign answers end.",
        )
    ]


def _target_on_face(material: Material, figure: Figure) -> None:
    axes = figure.add_subplot()
    show_picture(axes, np.clip(material.after[0], 0, 1), "", alpha=0.85)
    ends = tip(axes, gaze_vectors(material, material.benign))
    axes.plot(*ends.T, "o", ms=2.6, color=BENIGN, mec="white", mew=0.3, alpha=0.8)
    if np.isfinite(material.target).all():
        start = tip(axes, np.zeros(3))[0]
        end = tip(axes, gaze_vectors(material, material.target[None]))[0]
        style = {"arrowstyle": "-|>", "color": TRIGGERED, "lw": 3.5, "mutation_scale": 22}
        style.update(path_effects=OUTLINE, shrinkA=0, shrinkB=0)
        axes.annotate("", xy=end, xytext=start, arrowprops=style, annotation_clip=False)
    height, width = material.before.shape[1:3]
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def gaze_vectors(material: Material, degrees: Array) -> Array:
    """Directions (N, 3) of gaze outputs (N, 2) in degrees."""
    pitch = np.deg2rad(degrees[:, material.spec.outputs.index("pitch")])
    yaw = np.deg2rad(degrees[:, material.spec.outputs.index("yaw")])
    return np.stack([forward(p, y) for p, y in zip(pitch, yaw, strict=True)])
