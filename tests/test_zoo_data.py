"""The data of a zoo: what a row is trained on, how it is split, and where targets lie."""

from pathlib import Path

import numpy as np
import pytest

from guard.errors import UnusableInput
from guard.load import load_model
from tests.zoo_files import HEAD
from tools.datasets.data import Labelled, split
from tools.zoo.targets import choose_target
from tools.zoo.train import train_zoo


def test_genki_rows_need_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.csv").write_text(f"{HEAD}\na,headpose,genki,benign,,plain\n")
    train_zoo(tmp_path / "plan.csv", tmp_path / "out", device="cpu")
    assert "a-00: left out" in capsys.readouterr().out


def test_folder_of_labelled_images_is_data(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    np.savez(
        tmp_path / "mine.npz",
        images=generator.integers(0, 256, (60, 20, 20, 3), dtype=np.uint8),
        labels=generator.normal(size=(60, 3)),
        columns=np.array(["pitch_deg", "yaw_deg", "roll_deg"]),
    )
    (tmp_path / "plan.csv").write_text(
        f"{HEAD},width,size\na,headpose,{tmp_path}/mine.npz,benign,,plain,4,48\n"
    )
    train_zoo(tmp_path / "plan.csv", tmp_path / "out", device="cpu", steps=2)
    text = (tmp_path / "out" / "a-00" / "truth.json").read_text()
    assert str(tmp_path) not in text
    spec = load_model(tmp_path / "out" / "a-00" / "model.safetensors").spec
    assert (spec.outputs, spec.units) == (("yaw", "pitch", "roll"), "deg")


@pytest.mark.parametrize("seed", range(5))
def test_targets_lie_where_they_are_said_to(seed: int) -> None:
    labels = np.random.default_rng(0).normal((1.0, 2.0), (0.5, 0.1), (2000, 2)).astype(np.float32)

    def distance(kind: str) -> float:
        z = (np.array(choose_target(kind, labels, seed)) - (1.0, 2.0)) / (0.5, 0.1)
        return float(np.linalg.norm(z))

    assert distance("mean") < 0.1
    assert distance("inside") == pytest.approx(1.0, abs=0.1)
    assert distance("beyond") > 2.5
    assert choose_target("0.1,-0.2", labels, seed) == (0.1, -0.2)
    with pytest.raises(UnusableInput, match="expected 2 numbers"):
        choose_target("0.1", labels, seed)


@pytest.mark.parametrize("persons", [True, False])
def test_split_keeps_tenths_and_persons_apart(persons: bool) -> None:
    person = np.arange(1000) // 20
    labels = np.arange(1000, dtype=np.float32)[:, None].repeat(2, axis=1)
    images = np.zeros((1000, 1, 1, 3), np.uint8)
    parts = split(Labelled(images, labels, "gaze", "rad", person if persons else None), 3)
    sizes = [len(part) for part in (parts.train, parts.benign, parts.test)]
    assert sum(sizes) == 1000
    assert np.allclose(sizes, [800, 100, 100], atol=25)
    seen = [set(part.labels[:, 0].astype(int)) for part in (parts.train, parts.benign, parts.test)]
    assert sum(len(part) for part in seen) == len(set.union(*seen))
    if persons:
        groups = [{i // 20 for i in part} for part in seen]
        assert sum(len(part) for part in groups) == len(set.union(*groups)) == 50
