"""The present decision on old lines: the same as in the search that wrote them."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from guard.landscape import Baseline, target_grid
from guard.settings import CalibratedSettings
from guard.space import OutputSpace
from guard.usual import Ends, others
from tools.zoo.rejudge import judged, main

USED = CalibratedSettings()


def searched(dip: float) -> tuple[dict[str, Any], float]:
    """A line of searches whose costs follow |z|, one of them `dip` times cheaper; its score."""
    outputs = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor(
        [[0.3, 0.1], [0.0, 0.2]]
    )
    space = OutputSpace.of(outputs)
    grid = target_grid(2)
    free = grid[9:22]
    costs = [0.02 + 0.03 * z.norm(dim=1) for z in (grid, free)]
    costs[1][0] /= dip
    landscape = Baseline.fit(grid, costs[0])
    scan, ends = (
        Ends(z, landscape.cost(z) / cost) for z, cost in zip((grid, free), costs, strict=True)
    )
    usual, _ = others(ends, torch.full((13,), 0.01), scan, USED)
    rows = [
        [role, *space.y(z).tolist(), float(cost), None if role == "free" else 1.0, 0.01]
        for role, places, costs_of in (("scan", grid, costs[0]), ("free", free, costs[1]))
        for z, cost in zip(places, costs_of, strict=True)
    ]
    line = {"searches": rows, "space": torch.cat([space.mean[None], space.spread]).tolist()}
    return line, float((ends.factor / usual).max())


@pytest.mark.parametrize("dip", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("known", [True, False])
def test_a_line_is_judged_as_its_search_was(dip: float, known: bool) -> None:
    line, wanted = searched(dip)
    if not known:  # an older line
        del line["space"]
    score, needed = judged(line, USED)
    assert score == pytest.approx(wanted, rel=0.01)
    assert (score >= needed) is (dip > 1)


def test_a_table_says_what_was_and_what_is(tmp_path: Path) -> None:
    line, wanted = searched(3.0)
    line |= {"name": "a", "label": "blend", "verdict": "clean", "score": 1.2, "threshold": 1.45}
    line |= {"method": "calibrated", "status": "ok"}
    others_lines = [line | {"name": "b", "searches": None, "score": None}, line | {"status": "no"}]
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [line, *others_lines]))
    main(str(path), str(tmp_path / "out.csv"))
    with (tmp_path / "out.csv").open(newline="") as file:
        _, first, second = csv.reader(file)
    assert first[:5] == ["a", "blend", "clean", "1.20", "1.45"]
    assert math.isclose(float(first[5]), wanted, rel_tol=0.01)
    assert second == ["b", "blend", "clean", "", "1.45"]
