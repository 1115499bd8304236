"""Pictures of drivers: without the trigger, with it, the difference, and the answers drawn on."""

from functools import partial

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke

from guard.tasks import gaze_vector
from tools.report.material import Array, Material
from tools.report.plotting import BENIGN, TRIGGERED, Picture, draw, show_picture
from tools.report.text import answer

FACTORS = (1, 2, 5, 10, 20, 50, 100)
VISIBLE = 0.5 / 255  # half a step of an 8-bit picture
ORIGIN = (0.5, 0.42)  # of width and height: between the eyes of a usual face crop
REACH = 0.85  # length of a unit vector that lies in the image plane, in widths
OUTLINE = [Stroke(linewidth=4.4, foreground="white"), Normal()]


def example_figures(material: Material) -> list[Picture]:
    """One picture a driver: benign, triggered, difference, one above the other."""
    factor = amplification(material.after - material.before)
    return [
        draw(
            f"example_{k + 1}",
            partial(_example, material, k, factor),
            size=(2.1, 6.95),
            arranged=True,
            alt=f"{name}: without the trigger, with it, and the difference",
            caption=_answers(material, k),
        )
        for k, name in enumerate(material.names)
    ]


def amplification(change: Array) -> int:
    """The largest factor that keeps nearly all of what one could see inside the range."""
    seen = np.abs(change)[np.abs(change) > VISIBLE]
    strength = float(np.quantile(seen, 0.995)) if seen.size else 0.0
    fitting = [factor for factor in FACTORS if factor * strength <= 0.5]
    return fitting[-1] if fitting else 1


def amplified(change: Array, factor: int) -> Array:
    """A change as a picture: grey where nothing changes."""
    picture: Array = np.clip(0.5 + factor * change, 0.0, 1.0)
    return picture


def _example(material: Material, k: int, factor: int, figure: Figure) -> None:
    row = material.shown[k]
    top, middle, bottom = figure.subplots(3, 1)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.0, top=0.965, hspace=0.13)
    show_picture(top, material.before[k], "as recorded")
    draw_answer(top, material, material.benign[row], BENIGN)
    show_picture(middle, np.clip(material.after[k], 0, 1), "with the trigger")
    draw_answer(middle, material, material.triggered[row], TRIGGERED)
    change = material.after[k] - material.before[k]
    show_picture(bottom, amplified(change, factor), times("difference", factor))


def times(what: str, factor: int) -> str:
    """The title of an amplified picture."""
    return what if factor == 1 else f"{what} \u00d7 {factor}"


def _answers(material: Material, k: int) -> str:
    row, spec = material.shown[k], material.spec
    first = answer(spec, material.finding.benign_outputs[row].tolist())
    second = answer(spec, material.finding.triggered_outputs[row].tolist())
    return f"{material.names[k]}: {first} \u2192 {second}"


def draw_answer(axes: Axes, material: Material, values: Array, colour: str) -> None:
    """The model's answer (d,) in degrees on a face: a gaze arrow or the axes of the head."""
    if not np.isfinite(values).all():
        return
    named = dict(zip(material.spec.outputs, np.deg2rad(values).tolist(), strict=True))
    if material.spec.task == "gaze":
        _arrow(axes, forward(named["pitch"], named["yaw"]), colour, 2.2)
    elif material.spec.task == "headpose":
        ahead, right, down = head_axes(named["yaw"], named["pitch"], named["roll"])
        _line(axes, 0.45 * right, "#ffffff")
        _line(axes, 0.45 * down, "#ffd166")
        _arrow(axes, ahead, colour, 2.2)


def forward(pitch: float, yaw: float) -> Array:
    """The direction (3,) of a gaze or a head; angles in radians, x right, y down, z away."""
    vector: Array = gaze_vector(torch.tensor([[pitch, yaw]], dtype=torch.float64))[0].numpy()
    return vector


def head_axes(yaw: float, pitch: float, roll: float) -> tuple[Array, Array, Array]:
    """Unit vectors ahead, to the image's right and down of a head; angles in radians.

    Positive roll turns clockwise in the image.
    """
    ahead = forward(pitch, yaw)
    level = np.array([np.cos(yaw), 0.0, -np.sin(yaw)])
    below = np.cross(level, ahead)
    right = np.cos(roll) * level + np.sin(roll) * below
    down = np.cos(roll) * below - np.sin(roll) * level
    return ahead, right, down


def tip(axes: Axes, vectors: Array) -> Array:
    """Where unit vectors (N, 3) end in pixels (N, 2), seen along the camera's axis."""
    width, height = _extent(axes)
    start = np.array([ORIGIN[0] * width, ORIGIN[1] * height]) - 0.5
    end: Array = start + REACH * width * np.atleast_2d(vectors)[:, :2]
    return end


def _extent(axes: Axes) -> tuple[float, float]:
    height, width = axes.images[0].get_array().shape[:2]  # type: ignore[union-attr]
    return width, height


def _arrow(axes: Axes, vector: Array, colour: str, width: float) -> None:
    start, end = tip(axes, np.zeros(3))[0], tip(axes, vector)[0]
    style = {"arrowstyle": "-|>", "color": colour, "lw": width, "shrinkA": 0, "shrinkB": 0}
    style["path_effects"] = OUTLINE
    arrow = axes.annotate("", xy=end, xytext=start, arrowprops=style, annotation_clip=False)
    arrow.set_in_layout(False)
    axes.plot(*start, "o", color=colour, ms=4, mec="white", mew=1)


def _line(axes: Axes, vector: Array, colour: str) -> None:
    (x0, y0), (x1, y1) = tip(axes, np.zeros(3))[0], tip(axes, vector)[0]
    axes.plot([x0, x1], [y0, y1], color=colour, lw=1.8, scalex=False, scaley=False)
