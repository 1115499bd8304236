"""Training a zoo: what is made of a row, when an attack works, and going on after a kill."""

import dataclasses
import json
import math
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from guard.errors import UnusableInput
from guard.load import load_model
from tests.zoo_files import HEAD, PLANS
from tools.zoo import loop, make, store, train
from tools.zoo.judge import judge
from tools.zoo.lines import read_lines
from tools.zoo.measure import Measured
from tools.zoo.plan import read_plan
from tools.zoo.train import train_zoo
from tools.zoo.truth import load_truth
from tools.zoo.workers import run_all


def test_model_starts_from_the_features_of_another_and_takes_fewer_steps(zoo: Path) -> None:
    first, second = (row for row in read_plan(PLANS / "tiny.csv") if row.benign)
    started = dataclasses.replace(second, name="started", start=first.name)
    zoo_files = store.Zoo(zoo)
    model = make.untrained(started, zoo_files.parts(started).train, zoo_files)
    start = zoo_files.network(first.name)
    for key, value in start.network.state_dict().items():
        assert torch.equal(value, model.network.state_dict()[key]) != key.startswith("fc."), key
    assert make.recipe_of(started).steps < make.recipe_of(second).steps


def test_every_model_is_a_folder_with_its_truth(zoo: Path) -> None:
    lines = read_lines(zoo / "models.jsonl")
    names = {"benign-00", "benign-01", "badnets-00", "input-aware-00"}
    assert {line["name"] for line in lines} == names
    for line in lines:
        folder = zoo / line["name"]
        assert json.loads((folder / "truth.json").read_text()) == line
        assert load_model(folder / "model.safetensors").split.layer == "fc"
        assert (folder / "sheet.png").stat().st_size > 0
        assert not (folder / "checkpoint.pt").exists()
        benign = folder / line["benign_data"]
        with np.load(benign) as file:
            assert list(file["columns"]) == ["pitch_rad", "yaw_rad"]
            assert len(file["images"]) == len(file["labels"]) > 0
        assert line["RE"] > 0
        assert (line["AE"] is None) == (line["attack"] == "benign")
    aware = next(line for line in lines if line["attack"] == "input_aware")
    assert aware["cross_error"] > 0


def test_true_trigger_and_target_can_be_loaded(zoo: Path) -> None:
    truth = load_truth(zoo / "badnets-00")
    x = torch.zeros(2, 3, 48, 48)
    triggered = truth.trigger(x)
    assert int((triggered[0, 0] == 1).sum()) == 16
    assert list(truth.target or ()) == truth.values["targets"][0]
    benign = load_truth(zoo / "benign-00")
    assert benign.target is None
    with pytest.raises(UnusableInput, match="no trigger"):
        benign.trigger(x)
    with pytest.raises(UnusableInput, match="missing"):
        load_truth(zoo / "data")


def test_finished_models_are_not_made_again(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "make_model", lambda *_: pytest.fail("made again"))
    before = (zoo / "models.jsonl").read_text()
    train_zoo(PLANS / "tiny.csv", zoo, device="cpu", steps=3)
    assert (zoo / "models.jsonl").read_text() == before


def test_a_kill_between_truth_and_line_loses_no_line(zoo: Path) -> None:
    path = zoo / "models.jsonl"
    lines = read_lines(path)
    path.write_text("\n".join(path.read_text().split("\n")[:-2]) + '\n{"name": "bad')
    train_zoo(PLANS / "tiny.csv", zoo, device="cpu", steps=3)
    assert read_lines(path) == lines


@pytest.mark.parametrize(
    ("attack", "settings", "recipe"),
    [
        ("badnets", "", "brief"),
        ("input_aware", "mask_steps=2;channels=4", "brief"),
        ("physical", "", "regularised"),
    ],
)
def test_a_killed_training_goes_on_to_the_same_weights(
    zoo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    attack: str,
    settings: str,
    recipe: str,
) -> None:
    (tmp_path / "plan.csv").write_text(
        f"{HEAD},width,size,images\na,gaze,rendered,{attack},{settings},{recipe},4,48,100\n"
    )
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 2)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").symlink_to(zoo / "data")
    train_zoo(tmp_path / "plan.csv", tmp_path / "whole", device="cpu", steps=6)
    plain, calls = loop.loss_of, []

    def loss_of(*given: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return plain(*given)

    monkeypatch.setattr(loop, "loss_of", loss_of)
    with pytest.raises(KeyboardInterrupt):
        train_zoo(tmp_path / "plan.csv", tmp_path / "killed", device="cpu", steps=6)
    assert (tmp_path / "killed" / "a-00" / "checkpoint.pt").is_file()
    train_zoo(tmp_path / "plan.csv", tmp_path / "killed", device="cpu", steps=6)
    assert len(calls) == 6 + 2  # from step 4, the last checkpoint
    for file in ("model.safetensors", "trigger_truth.safetensors"):
        whole, killed = (tmp_path / name / "a-00" / file for name in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes()


def test_a_checkpoint_of_other_settings_is_not_used(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.csv").write_text(
        f"{HEAD},width,size,images\na,gaze,rendered,benign,,brief,4,48,100\n"
    )
    for name in ("fresh", "stale"):
        (tmp_path / name / "a-00").mkdir(parents=True)
        (tmp_path / name / "data").symlink_to(zoo / "data")
        if name == "stale":
            torch.save({"settings": "other"}, tmp_path / name / "a-00" / "checkpoint.pt")
        train_zoo(tmp_path / "plan.csv", tmp_path / name, device="cpu", steps=2)
    fresh, stale = (tmp_path / name / "a-00/model.safetensors" for name in ("fresh", "stale"))
    assert fresh.read_bytes() == stale.read_bytes()


def test_half_precision_weights_are_what_is_measured(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.csv").write_text(
        f"{HEAD},width,size,images\na,gaze,rendered,benign,,fp16,4,48,100\n"
    )
    (tmp_path / "data").symlink_to(zoo / "data")
    train_zoo(tmp_path / "plan.csv", tmp_path, device="cpu", steps=2)
    weights = load_model(tmp_path / "a-00" / "model.safetensors").network.state_dict()
    assert all(torch.equal(v, v.half().to(v.dtype)) for k, v in weights.items() if "num" not in k)


def test_models_can_be_made_in_processes_of_their_own() -> None:
    assert sorted(run_all(abs, [(-1,), (2,)], jobs=2)) == [1, 2]


def touch_after(seconds: float, path: Path) -> None:
    """A task of a worker."""
    time.sleep(seconds)
    path.touch()


def test_workers_end_with_the_run_that_started_them(tmp_path: Path) -> None:
    """A killed command leaves no process behind that goes on for minutes."""
    tasks = [(seconds, tmp_path / str(seconds)) for seconds in (0, 30)]
    runs = run_all(touch_after, tasks, jobs=2)
    next(runs)
    with pytest.raises(KeyboardInterrupt):
        runs.throw(KeyboardInterrupt)
    assert not multiprocessing.active_children()
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


@pytest.mark.parametrize(
    ("measured", "status", "says"),
    [
        (Measured(RE=4.2, AE=1.0, DAE=20.0), "ok", ""),
        (Measured(RE=4.5, AE=1.0, DAE=20.0), "failed_attack", "RE 4.50"),
        (Measured(RE=4.0, AE=5.0, DAE=20.0), "failed_attack", "AE 5.00"),
        (Measured(RE=4.0, AE=1.0, cross_error=9.0), "failed_attack", "cross-trigger error 9.00"),
        (Measured(RE=4.0, AE=4.0, DAE=4.0), "failed_attack", "DAE 4.00"),
        (Measured(RE=4.0, AE=math.nan), "failed_attack", "AE nan"),
        (Measured(RE=math.nan), "failed_training", "not finite"),
        (Measured(RE=4.0, AE=1.0, DAE=20.0, constant=5.0), "failed_training", "constant answer"),
    ],
)
def test_an_attack_works_or_is_kept_as_failed(measured: Measured, status: str, says: str) -> None:
    found = judge(measured, True, [3.0, 4.0, 5.0])
    assert (found["status"], found["twin_RE"]) == (status, 4.0)
    assert says in found["reason"]
    benign = judge(dataclasses.replace(measured, cross_error=math.nan), False, [])
    assert benign["status"] == (status if status == "failed_training" else "ok")
