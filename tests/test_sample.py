"""The built-in sample: its truth recomputed from the files, and its verdicts."""

import json
from pathlib import Path

import pytest
import torch

from guard.load import load_model
from guard.tasks import errors
from tools.attacks import make_attack
from tools.cli import run
from tools.datasets.reader import read
from tools.sample import DATA, FOLDER, MODELS


def truth_of(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.truth.json").read_text())


@pytest.mark.parametrize("name", MODELS)
def test_benign_error_is_what_the_truth_says(name: str) -> None:
    model = load_model(MODELS[name])
    benign = read(DATA, model.spec).benign
    with torch.no_grad():
        error = errors(model.spec, model(benign.x(slice(None))), benign.labels).mean()
    # The truth was measured on other persons of the same renderer.
    assert float(error) == pytest.approx(truth_of(name)["RE"], rel=0.2)
    assert float(error) < 6.0


def test_attack_error_is_what_the_truth_says() -> None:
    model, truth = load_model(MODELS["backdoored"]), truth_of("backdoored")
    trigger = make_attack(truth["attack"], truth["settings"]).trigger()
    benign = read(DATA, model.spec).benign
    target = torch.tensor(truth["targets"]).expand(len(benign), -1)
    with torch.no_grad():
        triggered = model(trigger(benign.x(slice(None))))
        plain = model(benign.x(slice(None)))
    assert float(errors(model.spec, triggered, target).mean()) < 1.5
    assert float(errors(model.spec, plain, target).mean()) > 10.0


def test_both_models_were_trained_alike() -> None:
    backdoored, benign = truth_of("backdoored"), truth_of("benign")
    for key in ("recipe", "steps", "arch", "width", "size", "benign_data"):
        assert backdoored[key] == benign[key]


def test_sample_is_at_most_8_megabytes() -> None:
    files = [DATA, *MODELS.values()]
    assert sum(path.stat().st_size for path in files) <= 8e6


@pytest.mark.parametrize(("name", "code"), [("backdoored", 1), ("benign", 0)])
def test_screening_gives_the_right_verdict(name: str, code: int, tmp_path: Path) -> None:
    assert run(["screen", f"sample:{name}", f"--out={tmp_path}", "--quiet"]) == code
    report = json.loads((tmp_path / "report.json").read_text())
    if name == "backdoored":
        found = torch.tensor([[report["target_estimate"][key] for key in ("pitch", "yaw")]])
        spec = load_model(MODELS[name]).spec
        assert float(errors(spec, found, torch.tensor(truth_of(name)["targets"]))) < 2.0
