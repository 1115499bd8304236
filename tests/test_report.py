"""The report: complete, strict, self-contained, and honest about what is missing."""

import json
import math
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from guard.benign import BenignSet
from guard.finding import Curves, Finding
from guard.model import Model
from guard.screen import Settings
from guard.spec import InputSpec, ModelSpec
from tools.report import Evidence, report_values, words, write_report
from tools.report.faces import amplification, head_axes
from tools.report.landscape import apart
from tools.report.material import gather_material
from tools.report.page import page
from tools.report.sections import draw_sections
from tools.report.text import amount, answer, number

N, SIDE, NASTY = 40, 32, "<script>alert(1)</script>$x"
OUTPUTS = {"gaze": ("pitch", "yaw"), "headpose": ("yaw", "pitch", "roll"), "regression": ("a$e",)}
UNITS = {"gaze": "rad", "headpose": "deg", "regression": "years"}
CONTRACT = {
    *("schema_version", "verdict", "reason", "score", "threshold", "threshold_source"),
    *("perturbation", "output_variance_ratio", "rav", "rnv", "target_estimate", "benign_error"),
    *("restarts", "model", "data", "config", "environment", "timings", "warnings", "limits"),
}


@pytest.fixture(autouse=True)
def _coarse_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.report.plotting.DPI", 30)


class Patch(nn.Module):
    """A bright corner and a small shift: a trigger with a displacement field."""

    def forward(self, x: Tensor) -> Tensor:
        out = x.roll(1, dims=3)
        out[:, 0, -6:, -6:] = 1.0
        return out

    def flow(self) -> Tensor:
        return torch.ones(2, SIDE, SIDE)


def network(d: int, split: bool) -> nn.Module:
    body: list[nn.Module] = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    head = [nn.Flatten(), nn.Linear(8, d)] if split else [nn.Conv2d(8, d, 1), nn.Flatten()]
    return nn.Sequential(*body, *head)


def evidence(
    task: str = "gaze", verdict: str = "backdoored", split: bool = True, nan: bool = False
) -> Evidence:
    torch.manual_seed(0)
    names, d = OUTPUTS[task], len(OUTPUTS[task])
    unit = {"rad": 0.2, "deg": 12.0, "years": 15.0}[UNITS[task]]
    benign = unit * torch.randn(N, d)
    target = [0.3 * unit * (j + 1) for j in range(d)]
    triggered = torch.tensor(target) + 0.05 * unit * torch.randn(N, d)
    smooth = nn.functional.interpolate(torch.rand(N, 3, 4, 4), size=SIDE, mode="bilinear")
    spec = ModelSpec("resnet18", task, names, UNITS[task], InputSpec((SIDE, SIDE)))
    places = [[unit * (k - 3) / 2] * d for k in range(7)]
    searches: list[dict[str, Any]] = [
        {"role": "scan", "target": p, "cost": 0.01 + 0.002 * k, "variance_ratio": 0.004,
         "found": p, "converged": k != 3, "steps": 300, "baseline": 0.02}
        for k, p in enumerate(places)
    ]  # fmt: skip
    free = {"role": "free", "target": None, "cost": 0.004, "variance_ratio": 0.003, "found": target}
    steps = list(range(0, 300, 10))
    bad = math.nan if nan else 1.0
    finding = Finding(
        method="calibrated",
        verdict=verdict,
        reason="the cost became NaN" if nan else "the dip is deep",
        score=4.1 * bad,
        threshold=2.2,
        threshold_source="16 models",
        perturbation=0.004 * bad,
        output_variance_ratio=0.003 * bad,
        rav=0.02 if split else None,
        rnv=0.4 if split else None,
        target=[t * bad for t in target],
        mechanism="patch",
        trigger=Patch(),
        curves=Curves(
            steps,
            {"variance": [0.9**s * bad for s in steps], "signed": [s - 5.0 for s in steps]},
            [[t * (1 - 0.9**s) for t in target] for s in steps],
        ),
        restarts=[*searches, {**free, "converged": True, "steps": 300}],
        benign_outputs=benign,
        triggered_outputs=triggered * bad,
        benign_angles=90 + 5 * torch.randn(N, d) if split else None,
        triggered_angles=80 + 0.5 * torch.randn(N, d) if split else None,
        examples=torch.tensor([0, 3, 5, 7, 9, 11]),
        settings={"epsilon": 0.03},
        timings={"search": 12.5},
        warnings=[f"odd {NASTY}"],
    )
    images = (255 * smooth).to(torch.uint8)
    return Evidence(
        finding=finding,
        model=Model(network(d, split), spec),
        benign=BenignSet(images, benign.clone(), [f"{k}{NASTY}.png" for k in range(N)]),
        benign_error={
            "value": 3.5, "unit": spec.error_unit, "ci95": [3.1, 3.9], "mean_answer": 14.0
        },
        model_facts={
            "path": f"/models/{NASTY}.safetensors", "sha256": "ab" * 32, "bytes": 1,
            "format": "safetensors", "arch": "resnet18", "parameters": 12345,
            "split": {"layer": "4" if split else None, "features": 8, "reason": "no dense layer"},
        },
        data_facts={
            "path": "d", "n": N, "manifest_sha256": "cd" * 32, "roles": {"search": N},
            "missing": [f"{NASTY}.jpg"], "columns": ["c"],
        },
        config={"seed": 0, "out": Path("x")},
        environment={"torch": torch.__version__, "tf32": False},
        timings={"total": np.float32(20.5)},
        warnings=["few images"],
    )  # fmt: skip


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


def removal(**changes: Any) -> dict[str, Any]:
    """An accepted mitigation, as report.json holds it."""
    return {
        "accepted": True, "unit": "deg", "held_back": 120, "held_back_persons": 0,
        "unlearnt_triggers": 1, "benign_error_before": 4.0, "benign_error_after": 4.1,
        "trigger_error_before": 22.6, "trigger_error_after": 4.6, "rescreen": {"score": 1.1},
        "settings": {"rise": 1.07, "harm": 0.25, "spoilt": 0.5}, **changes
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "on the 120 pictures that fine-tuning never saw, the benign error went from 4.0° to"),
        ({}, "4.1° (+2.5 %), the error under the recovered trigger from 22.6° to 4.6°."),
        ({"benign_error_after": 3.9}, "to 3.9° (\u22122.5 %)"),
        ({"benign_error_before": 0.0}, "from 0.0° to 4.1°, the error"),
        ({"benign_error_after": math.nan}, "to not available, the error"),
        ({"unlearnt_triggers": 5}, "under the worst recovered trigger"),
        ({"held_back_persons": 3}, "on the 120 pictures of 3 persons whom fine-tuning never saw"),
    ],
)
def test_a_mitigation_is_told_by_its_figures(changes: dict[str, Any], said: str) -> None:
    assert said in words.mitigation(removal(**changes))


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


@pytest.mark.parametrize(
    ("method", "score", "said"),
    [
        ("calibrated", 4.1, "4.10 times cheaper"),
        ("calibrated", 0.8, "not cheaper"),
        ("calibrated", math.nan, "could not be computed"),
        ("another", 3.0, "The score is 3.00, the threshold 2.20"),
        ("paper", 7.5, "less than 0.030 counts as a backdoor"),  # 7.5 x the change of 0.004
    ],
)
def test_score_sentences(method: str, score: float, said: str) -> None:
    finding = evidence().finding
    finding.method, finding.score = method, score
    assert said in words.score(finding)


def test_a_form_that_decides_alone_is_named() -> None:
    finding = evidence().finding
    finding.method, finding.score = "calibrated", 9.0
    finding.spread_left, finding.spread_limit = 0.0004, 0.02
    finding.mechanism, finding.settings = "shared warp", asdict(Settings())
    said = words.score(finding)
    assert "Under the shared warp alone 0.0004 of" in said
    assert "0.02 or less" in said
    assert "rests on the shared warp" in words.course(finding)


def test_headline_says_target_in_degrees_and_whom() -> None:
    made = evidence()
    made.finding.target = [math.radians(3.14), math.radians(-15.2)]
    forced = {"share": 0.95}
    assert "pitch 3.1°, yaw \u221215.2° for nearly every driver" in words.headline(made, forced)
    assert "for some drivers" in words.headline(made, {"share": 0.2})
    assert "for some drivers" in words.headline(made, {"share": None})


@pytest.mark.parametrize(
    ("value", "said"),
    [(3.14159, "3.14"), (0.000412, "0.000412"), (12345.6, "12,346"), (-0.5, "\u22120.500"),
     (0.0, "0"), (math.nan, "not available"), (None, "not available"), (1e-9, "1.00e\u221209")],
)  # fmt: skip
def test_numbers(value: float | None, said: str) -> None:
    assert number(value) == said


def test_amounts_and_answers() -> None:
    spec = evidence().model.spec
    assert amount(-0.01, "deg") == "0.0°"
    assert amount(2.0, "years") == "2.00 years"
    assert answer(spec, [0.1, None]) == "pitch 5.7°, yaw not available"
    assert answer(spec, None) == "\u2013"


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


@pytest.mark.parametrize(("arch", "named"), [("resnet18", False), ("onnx", True)])
def test_a_network_of_another_kind_is_told_what_the_limits_were_set_on(
    arch: str, named: bool
) -> None:
    shown = evidence()
    shown.model.spec = replace(shown.model.spec, arch=arch)
    assert any("attention" in line for line in words.limits(shown)) is named
