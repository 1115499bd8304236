"""The table of mitigations: tables 5 and 6 of the paper, from lines of `drmguard zoo mitigate`."""

import csv
from pathlib import Path
from typing import Any

from tools.zoo.lines import append_line
from tools.zoo.mitigated import HEAD, mitigation
from tools.zoo.table import table

FIGURES = {"RE": 4.0, "AE": 0.5, "DAE": 20.0}
SCREENED: dict[str, Any] = {
    **{"name": "b0", "attack": "badnets", "label": "badnets", "task": "gaze", "data": "rendered"},
    **{"arch": "resnet18", "width": 32, "size": 64, "status": "ok", "cross_error": None},
    **{"RE": 4.0, "AE": 0.5, "DAE": 20.0, "RNV": 0.3, "RAV": 0.01, "method": "calibrated"},
    **{"verdict": "backdoored", "reason": "", "score": 3.0, "threshold": 1.45},
    **{"target_error": 0.5, "seed": 0},
}
MITIGATED = SCREENED | {
    "before": FIGURES,
    "after": {"RE": 4.2, "AE": 19.0, "DAE": 5.25},
    "labels": {"RE": 4.0, "AE": 1.0, "DAE": 19.0},
    "benign_model": {"RE": 4.0, "AE": 20.0, "DAE": 4.5},
    "accepted": True,
}


def test_a_row_a_mitigated_model_and_their_means() -> None:
    refused = {**MITIGATED, "name": "b1", "accepted": False}
    refused |= {"after": {"RE": 4.0, "AE": 17.0, "DAE": 7.0}}
    del refused["benign_model"]  # there was no benign model alike
    rows = [dict(zip(HEAD, row, strict=True)) for row in mitigation([MITIGATED, refused])]
    assert [row["name"] for row in rows] == ["b0", "b1", "mean"]
    assert [row["DAE / RE"] for row in rows] == ["1.25", "1.75", "1.50"]
    assert [row["mitigated: RE"] for row in rows] == ["4.20", "4.00", "4.10"]
    assert [row["accepted"] for row in rows] == ["yes", "no", "1 of 2"]
    assert [row["benign model: AE"] for row in rows] == ["20.00", "-", "20.00"]


def test_another_setting_has_means_of_its_own() -> None:
    changed = {**MITIGATED, "change": "pursuit.every=0", "accepted": False}
    rows = mitigation([MITIGATED, changed, {**MITIGATED, "name": "b1"}])
    names = ["b0", "b1", "mean", "b0, pursuit.every=0", "mean, pursuit.every=0"]
    assert [(row[0], row[-1]) for row in rows] == list(
        zip(names, ["yes", "yes", "2 of 2", "no", "0 of 1"], strict=True)
    )


def test_lines_that_nothing_was_unlearnt_for_have_no_row() -> None:
    found_nothing = {**SCREENED, "verdict": "clean", "before": FIGURES}
    assert mitigation([SCREENED, found_nothing]) == []


def test_lines_of_a_mitigation_count_as_screenings_too(tmp_path: Path) -> None:
    append_line(tmp_path / "lines.jsonl", MITIGATED)
    table([tmp_path / "lines.jsonl"], tmp_path / "out")
    text = (tmp_path / "out" / "table.txt").read_text()
    assert "Mitigation (tables 5 and 6):" in text
    assert "within 2 degrees: 1 of 1" in text
    with (tmp_path / "out" / "mitigation.csv").open(newline="") as file:
        head, first, last = list(csv.reader(file))
    assert head == HEAD
    assert (first[0], last[0]) == ("b0", "mean")


def test_lines_of_screenings_alone_make_no_table_of_mitigations(tmp_path: Path) -> None:
    append_line(tmp_path / "lines.jsonl", SCREENED)
    table([tmp_path / "lines.jsonl"], tmp_path / "out")
    assert "Mitigation" not in (tmp_path / "out" / "table.txt").read_text()
    assert not (tmp_path / "out" / "mitigation.csv").exists()
