"""A supplier's ONNX file is held against what is examined: on DATA, and under what was found."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from export.graph_check import probes
from export.onnx_in import load_onnx
from export.operators import OPERATORS
from guard.bench import Bench
from guard.errors import UnusableInput
from guard.finding import Finding
from guard.model import Model
from guard.screen import without_verdict
from tests.conftest import SIDE, benign_of, write_npz
from tests.onnx_files import SPEC, as_int8, small, with_convolution_at_the_end, write
from tools import cli
from tools.screening import held_to_file
from tools.supplied import check_on


class White(nn.Module):
    """A trigger: a white corner."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, :, :4, :4] = 1
        return x


class Blind(nn.Module):
    """Answers as a network does, but where it sees the trigger."""

    def __init__(self, network: nn.Module, by: float) -> None:
        super().__init__()
        self.network, self.by = network, by

    def forward(self, x: Tensor) -> Tensor:
        seen = (x[:, :, :4, :4] == 1).all(dim=(1, 2, 3)) & (x[:, :, 4:] < 1).any(dim=(1, 2, 3))
        y: Tensor = self.network(x)
        return y + self.by * seen[:, None]


@pytest.fixture
def supplied(tmp_path: Path) -> tuple[Model, Path]:
    path = write(small(), tmp_path)
    return load_onnx(path), path


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_file_agrees_with_what_was_read_of_it(kind: str, tmp_path: Path) -> None:
    path = write(small() if kind == "float32" else as_int8(small(), tmp_path), tmp_path)
    model = load_onnx(path)
    check_on(model, path, benign_of(model, 40), [White(), White()])


def test_a_difference_under_a_trigger_alone_is_seen(supplied: tuple[Model, Path]) -> None:
    model, path = supplied
    benign = benign_of(model, 40)
    model.network = Blind(model.network, by=0.1)
    check_on(model, path, benign)
    with pytest.raises(UnusableInput, match="pitch comes out different"):
        check_on(model, path, benign, [White()])


def finding_of(model: Model, **changes: Any) -> Finding:
    made = without_verdict("calibrated", "none", Bench(model, benign_of(model, 40)))
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("by", "found", "verdict"),
    [
        (0.0, "clean", "clean"),
        (0.1, "clean", "inconclusive"),
        (0.1, "backdoored", "backdoored"),
        (0.1, "inconclusive", "inconclusive"),
    ],
)
def test_a_model_whose_file_answers_otherwise_is_never_clean(
    by: float, found: str, verdict: str, supplied: tuple[Model, Path]
) -> None:
    model, path = supplied
    benign, finding = benign_of(model, 40), finding_of(model, verdict=found, trigger=White())
    model.network = Blind(model.network, by)
    inputs = SimpleNamespace(model=model, data=SimpleNamespace(benign=benign))
    opened: Any = SimpleNamespace(job=SimpleNamespace(model=str(path)), inputs=inputs)
    held = held_to_file(opened, finding)
    assert held.verdict == verdict
    said = held.reason if found == "clean" else " ".join(held.warnings)
    assert ("under a trigger" in said) == bool(by)
    assert len(said.splitlines()) < 2


def test_a_difference_on_the_images_of_data_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(with_convolution_at_the_end(on_one_pixel=False), tmp_path)
    data = write_npz(tmp_path / "data.npz", benign_of(load_onnx(path), 60), SPEC)

    def pool(x: Tensor) -> Tensor:  # in larger batches than any at load time
        return x.mean(dim=(2, 3), keepdim=True) + (len(x) > 8)

    monkeypatch.setattr(
        "export.operators.OPERATORS", OPERATORS | {"GlobalAveragePool": lambda _: pool}
    )
    words = ["screen", str(path), str(data), f"--out={tmp_path / 'out'}", "--quiet", "--device=cpu"]
    assert cli.run(words) == 2
    said = capsys.readouterr().err
    assert "onnxruntime" in said
    assert len(said.splitlines()) == 1


def test_the_noise_at_load_time_is_drawn_by_the_file() -> None:
    first, again, other = (probes((SIDE, SIDE), seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
