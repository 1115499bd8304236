"""The report: complete, strict, self-contained, and honest about what is missing."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from guard.finding import Curves
from tests.report_files import OUTPUTS, N, evidence, removal
from tools.report import report_values, words, write_report
from tools.report.faces import amplification, head_axes
from tools.report.landscape import apart
from tools.report.material import gather_material
from tools.report.page import page
from tools.report.sections import draw_sections

CONTRACT = {
    *("schema_version", "verdict", "reason", "score", "threshold", "threshold_source"),
    *("perturbation", "output_variance_ratio", "rav", "rnv", "target_estimate", "benign_error"),
    *("restarts", "model", "data", "config", "environment", "timings", "warnings", "limits"),
}


@pytest.fixture(autouse=True)
def _coarse_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.report.plotting.DPI", 30)


CASES = [
    ("gaze", "backdoored", True, False),
    ("gaze", "clean", False, False),
    ("headpose", "backdoored", True, False),
    ("regression", "clean", True, False),
    ("gaze", "inconclusive", True, True),
]


@pytest.mark.parametrize(("task", "verdict", "split", "nan"), CASES)
def test_report_is_whole(task: str, verdict: str, split: bool, nan: bool, tmp_path: Path) -> None:
    write_report(evidence(task, verdict, split, nan), tmp_path)
    values = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert set(values) >= CONTRACT
    assert values["verdict"] == verdict
    assert list(values["target_estimate"]) == list(OUTPUTS[task])
    assert (values["score"] is None) == nan
    text = (tmp_path / "report.html").read_text()
    figures = list((tmp_path / "figures").iterdir())
    assert {path.suffix for path in figures} == {".png"}
    assert text.count("data:image/png;base64,") == len(figures)
    assert any(path.stem.startswith("angles") for path in figures) == split
    assert ("were not examined: " in text) != split
    assert words.TAGS[verdict] in text
    assert_lets_nothing_in_and_loads_nothing(text)
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("rows", [1, 3, 6])
def test_the_last_dense_layer_may_have_more_rows_than_there_are_outputs(
    rows: int, tmp_path: Path
) -> None:
    """A direction of three numbers that becomes two angles, say."""
    made = evidence()
    made.finding.benign_angles = 90 + 5 * torch.randn(N, rows)
    made.finding.triggered_angles = 80 + 0.5 * torch.randn(N, rows)
    write_report(made, tmp_path)
    assert "row 1 of the last dense layer" in (tmp_path / "report.html").read_text()


def test_report_of_a_search_that_left_nothing(tmp_path: Path) -> None:
    made = evidence("regression", "inconclusive", nan=True)
    made.finding.restarts, made.finding.curves = [], Curves()
    made.finding.examples = torch.tensor([], dtype=torch.long)
    made.benign_error = {"value": None, "unit": None, "ci95": None, "mean_answer": None}
    made.model_facts, made.data_facts = {}, {}
    write_report(made, tmp_path)
    assert "No verdict" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["landscape"]["points"] == []


def assert_lets_nothing_in_and_loads_nothing(text: str) -> None:
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.findall(r'(?:src|href)="(?!data:image/png)', text)
    assert not re.findall(r"https?://|@import|url\(", text)


def test_same_evidence_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        made = evidence("regression", split=False)
        made.ended = "2025-01-01T00:00:00+00:00"
        write_report(made, tmp_path / name)
    first, second = (sorted((tmp_path / n).rglob("*.*")) for n in ("one", "two"))
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_old_report_goes_before_half_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.json").write_text("{}")

    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("tools.report.page.page", full)
    with pytest.raises(OSError, match="disk full"):
        write_report(evidence("regression", split=False), tmp_path)
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize("accepted", [True, False])
def test_what_a_mitigation_is_accepted_by_stands_in_its_section(accepted: bool) -> None:
    made = evidence()
    made.mitigation = removal(accepted=accepted)
    sections = draw_sections(made, gather_material(made), report_values(made))
    text = next(one.text for one in sections if one.title == "Removing the backdoor")
    assert "rise by 7.0 % at most, and of the error that a recovered trigger added leave 25" in text
    assert "or up to 50 %" in text


FILES: list[dict[str, Any]] = [
    {"file": "model.onnx", "sha256": "12" * 32, "verdict": "clean", "score": 1, "reason": "none"},
    {"file": "model.int8.onnx", "sha256": "ef" * 32, "verdict": "clean", "score": 1, "reason": ""},
]


@pytest.mark.parametrize(
    ("verdict", "passed", "said"),
    [
        ("clean", True, "To ship: model.onnx (SHA-256 121212121212…), model.int8.onnx (SHA-256 ef"),
        ("backdoored", True, "…). model.int8.onnx must not be shipped: screened again, it is back"),
        ("clean", False, "model.int8.onnx must not be shipped: it does not compute what was check"),
        ("inconclusive", False, "what was checked and screened again, it is inconclusive."),
    ],
)
def test_the_head_names_the_files_to_ship(verdict: str, passed: bool, said: str) -> None:
    made = evidence(verdict="clean")
    made.shipped = [FILES[0], {**FILES[1], "verdict": verdict}]
    made.parity = [{"file": row["file"], "passed": passed or row is FILES[0]} for row in FILES]
    values = report_values(made)
    text = page(made, values, [])
    head, rest = text.split('<dl class="keys">')
    assert said in head
    assert all(row["sha256"] in rest for row in FILES)
    made.not_done = "the disk is full"
    assert "To ship" not in page(made, report_values(made), [])


def test_later_sections_only_where_present() -> None:
    made = evidence()
    assert "mitigation" not in report_values(made)
    made.mitigation = removal()
    made.parity = [{"file": "m.onnx", "precision": "fp16", "max_abs": 1e-4, "passed": True}]
    values = report_values(made)
    text = page(made, values, draw_sections(made, gather_material(made), values))
    assert "Removing the backdoor" in text
    assert "<td>m.onnx</td>" in text
    assert values["parity"] == made.parity


@pytest.mark.parametrize(("looks", "drawn"), [(0, False), (1, False), (2, True), (5, True)])
def test_the_course_of_a_mitigation_is_drawn_where_it_was_looked_at(
    looks: int, drawn: bool, tmp_path: Path
) -> None:
    made = evidence()
    curve = [{"step": 300 * k, "benign": 3.5, "triggered": 20.0 - k} for k in range(looks)]
    if looks:
        curve[-1]["benign"] = math.nan  # a fine-tuning that diverged
    made.mitigation = {
        "accepted": False, "benign_error_before": 3.5, "curve": curve,
        "settings": {"rise": 1.05, "harm": 0.3, "spoilt": 0.6},
    }  # fmt: skip
    names = {path.name for path in write_report(made, tmp_path)}
    assert ("removal.png" in names) == drawn


def test_forced_measures_the_distance_to_the_target() -> None:
    forced = report_values(evidence("headpose"))["forced"]
    assert forced["share"] > 0.9
    assert forced["median_triggered"] < 1.0 < 5.0 < forced["median_benign"]


@pytest.mark.parametrize(("strength", "factor"), [(0.004, 100), (0.04, 10), (0.9, 1), (0.0, 100)])
def test_amplification_stays_visible(strength: float, factor: int) -> None:
    change = np.zeros((2, 64, 64, 3))
    change[:, :3, :3] = strength  # a small patch counts as much as a change everywhere
    assert amplification(change) == factor


def test_landscape_distance_and_labels() -> None:
    points = report_values(evidence("regression"))["landscape"]
    mean, sd = points["benign_mean"][0], points["benign_sd"][0]
    first = points["points"][0]
    assert first["distance_sd"] == pytest.approx(abs(first["place"][0] - mean) / sd)
    assert apart(np.array([[0, 0], [0.01, 0], [1, 0], [1, 0.02]])) == [0, 2]


def test_head_axes_stay_a_frame_and_roll_is_clockwise() -> None:
    ahead, right, down = head_axes(0.3, -0.2, 0.1)
    frame = np.stack([right, down, -ahead])
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(frame) == pytest.approx(1.0)
    assert head_axes(0.0, 0.0, 0.2)[1][1] > 0  # y is down


def test_import_is_light() -> None:
    heavy = (
        "import sys, tools.report; print([m for m in ('torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
