"""Screening and mitigating a zoo: a line a model, judged with the truth."""

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from guard.bench import Bench
from guard.benign import BenignSet
from guard.errors import UnusableInput
from guard.finding import Finding
from guard.lesson import MitigationSettings
from guard.model import Model
from guard.screen import without_verdict
from guard.triggers import SharedTriggers
from tools.zoo import mitigate
from tools.zoo.lines import read_lines
from tools.zoo.screen import screen_zoo
from tools.zoo.table import table
from tools.zoo.truth import load_truth


def test_screening_writes_a_line_a_model_and_resumes(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[str, Any] = {field.name: None for field in dataclasses.fields(Finding)}
    values |= {"method": "calibrated", "verdict": "clean", "reason": "", "score": 1.0}
    values |= {"threshold": 2.0, "target": [0.0, 0.0], "warnings": [], "targets": [[0.0, 0.0]]}
    values["restarts"] = [{"role": "free", "found": [0.1, 0.2], "cost": 0.0123456, "distance": 0.1}]
    values["benign_outputs"] = torch.tensor([[0.0, 1.0], [0.5, 1.0], [0.0, 3.0], [0.5, 3.0]])
    screened: list[int] = []

    def screen(model: Any, benign: Any, settings: Any) -> SimpleNamespace:
        screened.append(len(benign))
        return SimpleNamespace(**values)

    monkeypatch.setattr("tools.zoo.screen.screen", screen)
    out = tmp_path / "lines.jsonl"
    screen_zoo(zoo, out=out, device="cpu", only="benign*", limit=1)
    assert len(screened) == 1
    screen_zoo(zoo, out=out, device="cpu")
    lines = {row["name"]: row for row in read_lines(out)}
    assert len(lines) == len(screened) == 4
    assert lines["benign-00"]["target_error"] is None
    assert lines["benign-00"]["searches"] == [["free", 0.1, 0.2, 0.01235, None, 0.1]]
    assert lines["benign-00"]["space"][0] == [0.25, 2.0]
    spread = np.abs(lines["benign-00"]["space"][1:])
    assert sorted(spread.max(axis=0)) == pytest.approx([0.25, 1.0])
    assert lines["badnets-00"]["target_error"] > 0
    assert lines["badnets-00"]["each_target_error"] == [lines["badnets-00"]["target_error"]]
    table([out], tmp_path / "out")
    other = zoo / lines["benign-00"]["name"] / ".." / "data"
    (benign,) = other.glob("*.benign.npz")
    screen_zoo(zoo, out=out, device="cpu", only="badnets*", images=5, data=benign)
    again = read_lines(out)[-1]
    assert (again["images"], again["limit"], again["benign"]) == (5, 5, benign.name)
    assert len(screened) == 5
    for _ in range(2):
        screen_zoo(zoo, out=out, device="cpu", only="benign-00", change="calibrated.crowd=9")
    assert len(screened) == 6
    assert read_lines(out)[-1]["change"] == "calibrated.crowd=9"
    table([out], tmp_path / "out", overwrite=True)
    assert "calibrated, calibrated.crowd=9" in (tmp_path / "out" / "table.txt").read_text()
    with pytest.raises(UnusableInput, match="expected calibrated or paper"):
        screen_zoo(zoo, out=out, device="cpu", method="other")
    with pytest.raises(UnusableInput, match="no finished models"):
        screen_zoo(tmp_path / "out", out=out, device="cpu")


@pytest.mark.parametrize(
    ("text", "said"),
    [("{}", "lacks name"), ("no JSON", "no JSON object"), ("[1]", "no JSON object")],
)
@pytest.mark.parametrize("command", [screen_zoo, mitigate.mitigate_zoo])
def test_a_truth_that_is_none_is_refused(
    command: Callable[..., None], text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "zoo" / "a-00").mkdir(parents=True)
    (tmp_path / "zoo" / "a-00" / "truth.json").write_text(text)
    with pytest.raises(UnusableInput, match=f"truth.json: .*{said}"):
        command(tmp_path / "zoo", out=tmp_path / "lines.jsonl", device="cpu")


def test_mitigation_is_judged_with_the_true_trigger(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny attacks do not work: their models are left out unless the truth says they do."""
    out, copy = tmp_path / "lines.jsonl", tmp_path / "zoo"
    with pytest.raises(UnusableInput, match="no model with a working attack"):
        mitigate.mitigate_zoo(zoo, out=out, device="cpu")
    shutil.copytree(zoo, copy)
    path = copy / "badnets-00" / "truth.json"
    path.write_text(path.read_text().replace('"failed_attack"', '"ok"'))
    verdicts = ["backdoored", "clean"]

    def screen(model: Model, benign: BenignSet, settings: Any) -> Finding:
        found = without_verdict("calibrated", "because the test says so", Bench(model, benign))
        trigger = SharedTriggers(1, model.spec.input.size, seed=1).select(0)
        return dataclasses.replace(found, verdict=verdicts.pop(0), score=3.0, trigger=trigger)

    quick = functools.partial(MitigationSettings, steps=1, batch=4, check_every=1)
    monkeypatch.setattr(mitigate, "screen", screen)
    monkeypatch.setattr(mitigate, "MitigationSettings", quick)
    monkeypatch.setattr("guard.lesson.MIN_IMAGES", 4)
    monkeypatch.setattr("tools.zoo.plain.STEPS", 2)
    mitigate.mitigate_zoo(copy, out=out, device="cpu")
    mitigate.mitigate_zoo(copy, out=out, device="cpu")  # nothing is left to do
    (line,) = read_lines(out)
    truth = json.loads(path.read_text())
    assert line["before"] == pytest.approx({key: truth[key] for key in ("RE", "AE", "DAE")}, 1e-3)
    assert line["after"] != line["before"]
    twin = load_truth(copy / "benign-00").values["RE"]
    assert line["benign_model"]["RE"] == pytest.approx(twin, 1e-3)
    assert len({str(line[key]) for key in ("before", "after", "labels", "labels_fast")}) == 4
    assert line["rounds"] == 1
    verdicts += ["backdoored", "clean"]
    for _ in range(2):
        mitigate.mitigate_zoo(copy, out=out, device="cpu", change="forget=0.0")
    assert [line["change"] for line in read_lines(out)] == ["", "forget=0.0"]
