"""One look for all figures: a panel per file, small enough for a phone, sharp enough for print."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from tools.report.text import number

BENIGN = "#5b7b9a"
TRIGGERED = "#d4481c"
INK = "#1f2a36"
MUTED = "#8592a0"
FAINT = "#dde3e9"
DPI = 130
PANEL = (4.3, 3.3)  # inches

STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}


@dataclass(frozen=True)
class Picture:
    """A finished figure."""

    name: str  # of the file, without .png
    png: bytes
    caption: str  # plain text
    alt: str


def draw(
    name: str,
    paint: Callable[[Figure], Any],
    *,
    alt: str,
    caption: str = "",
    size: tuple[float, float] = PANEL,
    arranged: bool = False,
) -> Picture:
    """Let `paint` fill a figure of `size` inches and keep it as a PNG.

    `arranged`: `paint` sets the margins itself.
    """
    buffer = BytesIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=DPI, layout=None if arranged else "constrained")
        FigureCanvasAgg(figure)
        paint(figure)
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return Picture(name, buffer.getvalue(), caption, alt)


def panel(
    name: str, paint: Callable[[Axes], Any], *, alt: str, caption: str = "", title: str = ""
) -> Picture:
    """The usual figure: one set of axes."""

    def fill(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.set_title(literal(title))
        paint(axes)

    return draw(name, fill, alt=alt, caption=caption)


def literal(text: str) -> str:
    """User-given text as it is: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def show_picture(axes: Axes, image: Any, title: str = "", **how: Any) -> None:
    """An image (H, W, 3) in [0, 1] or (H, W), pixels as they are, without a frame of numbers."""
    axes.imshow(image, interpolation="nearest", **how)
    axes.set_title(literal(title), fontsize=9, fontweight="normal", color=INK)
    axes.set_axis_off()


def key(axes: Axes, where: Any = "outside upper left") -> None:
    """A legend outside the axes, in one row, with markers of one size."""
    legend = axes.figure.legend(
        loc=where, ncols=6, handlelength=1.3, handletextpad=0.4, columnspacing=0.9
    )
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([28.0])
        elif isinstance(handle, Line2D):
            handle.set_markersize(min(handle.get_markersize(), 9.0))


def log_scale(axes: Axes, values: Any) -> None:
    """A logarithmic y axis with plain numbers, where all that is drawn is positive."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if len(finite) and finite.min() > 0 and finite.max() > 3 * finite.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: number(v, 1)))
        few = finite.max() < 100 * finite.min()
        axes.yaxis.set_minor_formatter(
            FuncFormatter(lambda v, _: number(v, 1) if few and _leading(v) in (2, 5) else "")
        )
        axes.tick_params(axis="y", which="minor", labelsize=9)


def _leading(value: float) -> int:
    """The first digit of a positive number."""
    return int(f"{value:.0e}"[0])
