"""What the present decision says of the searches in old lines; no model is searched again.

    python -m tools.zoo.rejudge LINES,LINES --out=FILE.csv

Only of the searches that went on, and of one seed: what a probe, a patch drawn for each image, a
dip of the scan or a second seed said is in the lines, and stays.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guard.files import whole_file
from guard.landscape import Baseline, target_grid
from guard.settings import CalibratedSettings
from guard.usual import Ends, others
from guard.verdict import Result, winner
from tools.zoo.lines import read_lines

HEAD = ["name", "label", "verdict", "score", "counts", "score of the searches", "counts now"]


def rejudge(lines: Sequence[Path], out: Path) -> list[list[str]]:
    """Write a table of what the lines said and what their searches come to now; gives its rows."""
    rows = []
    for line in (line for path in lines for line in read_lines(path)):
        if line.get("method") != "calibrated" or line["status"] != "ok" or line.get("change"):
            continue
        now = judged(line, CalibratedSettings()) if line.get("searches") else None
        figures = [line["score"], line["threshold"], *(now or ())]
        cells = ["" if value is None else f"{value:.2f}" for value in figures]
        rows.append([line["name"], line["label"], line["verdict"], *cells])
    with whole_file(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEAD, *rows])
    return rows


def judged(line: dict[str, Any], settings: CalibratedSettings) -> tuple[float, float]:
    """The score of the best search that went on, and from which one it counts."""
    scan, free = (_figures(line, role) for role in ("scan", "free"))
    mean, whiten = _whitening(line, scan[:, :-3])
    landscape = Baseline.fit((scan[:, :-3] - mean) @ whiten, scan[:, -3])
    began, ended = (_ends(rows, mean, whiten, landscape) for rows in (scan, free))
    distance = free[:, -1]
    usual, needed = others(ended, distance, began, settings)
    result = Result([], ended.z, free[:, -3], distance, ended.factor / usual, needed)
    best = winner(result, settings)
    return float(result.score[best]), float(needed[best])


def _figures(line: dict[str, Any], role: str) -> Tensor:
    """Place, cost, baseline and distance, a row a search; what was no number is NaN."""
    rows = [row[1:] for row in line["searches"] if row[0] == role]
    return torch.tensor([[float("nan") if v is None else v for v in row] for row in rows])


def _ends(rows: Tensor, mean: Tensor, whiten: Tensor, landscape: Baseline) -> Ends:
    z = (rows[:, :-3] - mean) @ whiten
    return Ends(z, landscape.cost(z) / rows[:, -3])


def _whitening(line: dict[str, Any], places: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and whitening matrix of the benign outputs.

    Older lines do not hold them: read from where the grid's searches ended, within half a spread
    of their targets.
    """
    if "space" in line:
        mean, *spread = torch.tensor(line["space"])
        return mean, torch.linalg.inv(torch.stack(spread))
    grid = target_grid(places.shape[1])
    columns = torch.cat([grid, torch.ones(len(grid), 1)], dim=1)
    *spread, mean = torch.linalg.lstsq(columns, places[: len(grid)]).solution
    return mean, torch.linalg.inv(torch.stack(spread))


def main(lines: str, out: str) -> None:
    """`lines` are files, with commas between them; `out` is a CSV table."""
    names = lines if isinstance(lines, (tuple, list)) else lines.split(",")
    for row in rejudge([Path(name) for name in names], Path(out)):
        sys.stdout.write("  ".join(row) + "\n")


if __name__ == "__main__":
    import fire

    fire.Fire(main)
