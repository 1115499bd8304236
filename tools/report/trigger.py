"""The recovered trigger itself, apart from any driver."""

import numpy as np
from matplotlib.figure import Figure

from tools.report.faces import amplification, amplified, times
from tools.report.material import Array, Material
from tools.report.plotting import TRIGGERED, Picture, draw, show_picture

SQUARE = (2.6, 2.8)
STILL = 0.05  # pixels: a field that moves nothing one could see


def trigger_figures(material: Material) -> list[Picture]:
    """On grey, mean signed change, magnitude and, where the trigger has one, displacement."""
    figures = [_on_grey(material), _signed(material), _magnitude(material)]
    if material.flow is None or np.abs(material.flow).max() < STILL:
        return figures
    return [*figures, _displacement(material.flow, material)]


def _on_grey(material: Material) -> Picture:
    factor = amplification(material.grey - 0.5)
    shown = amplified(material.grey - 0.5, factor)
    return draw(
        "trigger_on_grey",
        lambda figure: show_picture(figure.add_subplot(), shown, times("change", factor)),
        size=SQUARE,
        alt="The trigger applied to an even grey picture",
        caption="Put on an even grey picture. A distortion leaves no trace here.",
    )


def _signed(material: Material) -> Picture:
    factor = amplification(material.signed)
    shown = amplified(material.signed, factor)
    return draw(
        "trigger_mean_change",
        lambda figure: show_picture(figure.add_subplot(), shown, times("mean change", factor)),
        size=SQUARE,
        alt="Mean change of colour by the trigger",
        caption="Mean change over the benign pictures; grey means none.",
    )


def _magnitude(material: Material) -> Picture:
    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        show_picture(axes, 100 * material.magnitude, "mean |change|", cmap="magma_r", vmin=0)
        bar = figure.colorbar(axes.images[0], ax=axes, orientation="horizontal", pad=0.03)
        bar.set_label("% of the full range")
        bar.outline.set_visible(False)

    return draw(
        "trigger_magnitude",
        paint,
        size=(2.6, 3.4),
        alt="Heat map of the size of the change",
        caption="Where the pictures change, and how much.",
    )


def _displacement(flow: Array, material: Material) -> Picture:
    dx, dy = flow
    step = max(1, dx.shape[0] // 16)
    rows = np.arange(step // 2, dx.shape[0], step)
    columns = np.arange(step // 2, dx.shape[1], step)
    grid = np.ix_(rows, columns)
    longest = float(np.hypot(dx, dy).max())

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        backdrop = material.before.mean(axis=3)[0] if len(material.before) else 0 * dx
        show_picture(axes, backdrop, "displacement", cmap="gray", vmin=0, vmax=1, alpha=0.35)
        axes.quiver(columns, rows, dx[grid], dy[grid], color=TRIGGERED, angles="xy", width=0.006)

    return draw(
        "trigger_displacement",
        paint,
        size=SQUARE,
        alt="Arrows of the displacement field",
        caption=f"Arrows point to where each pixel is taken from; not to scale, "
        f"the longest is {longest:.1f} px.",
    )
