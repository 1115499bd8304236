"""The pictures of a table: ROC curves, and every model's score under every setting."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from guard.files import whole_file
from tools.report.plotting import BENIGN, INK, STYLE, TRIGGERED
from tools.zoo.figures import auc, counts, roc, suspicions

LEAST = 0.1  # score over threshold at the edge of the picture; less, or none, is drawn there
Lines = Sequence[dict[str, Any]]


def draw_roc(path: Path, groups: Mapping[str, Lines]) -> None:
    """A ROC curve for each setting's lines."""
    with rc_context(STYLE):
        lines_of_names = sum(in_lines(name).count("\n") + 1 for name in groups)
        figure = Figure(figsize=(5.5, 4.2 + 0.2 * lines_of_names), layout="constrained")
        axes = figure.subplots()
        for name, lines in groups.items():
            if points := roc(lines):
                label = in_lines(f"{name}, AUC {auc(lines):.3f}")
                axes.step(*zip(*points, strict=True), where="post", label=label)
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
        axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))  # names may be long
        _save(figure, path)


def draw_scores(path: Path, groups: Mapping[str, Lines]) -> None:
    """A row for each setting: its models' scores over their thresholds, and how many are right."""
    with rc_context(STYLE):
        names = [in_lines(name) for name in groups]
        tallest = max((name.count("\n") + 1 for name in names), default=1)
        height = 1.1 + (0.2 + 0.2 * tallest) * len(names)
        figure = Figure(figsize=(7.5, height), layout="constrained")
        axes = figure.subplots()
        for row, lines in enumerate(groups.values()):
            _draw_row(axes, row, lines)
        axes.axvline(1.0, color=INK, linewidth=1.0)
        axes.set(xscale="log", xlabel="score over its threshold: from 1 on it counts")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(max(len(groups), 1) - 0.5, -0.5)  # the first row on top
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.legend(*_first_of_each(axes), loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        _save(figure, path)


def _draw_row(axes: Axes, row: int, lines: Lines) -> None:
    bad, good = suspicions(lines)
    for values, color, label in ((good, BENIGN, "benign"), (bad, TRIGGERED, "backdoored")):
        shown = [max(value, LEAST) if math.isfinite(value) else LEAST for value in values]
        axes.scatter(shown, [row] * len(shown), s=22, color=color, alpha=0.7, label=label)
    found = counts(lines)
    said = f"{found.right} of {found.total} right"
    axes.text(1.02, row, said, transform=axes.get_yaxis_transform(), va="center")


def _first_of_each(axes: Axes) -> tuple[list[Any], list[str]]:
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    return list(handles.values()), list(handles)


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=150)


def in_lines(name: str) -> str:
    """A setting's name, with a change of several settings broken after each: room for the axes."""
    return name.replace(";", ";\n")
