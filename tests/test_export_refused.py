"""Export: opsets and models that are refused, each in one line."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from export.precision import calibration_part, export_files
from export.write import OPSETS
from guard.errors import UnusableInput
from guard.model import Model
from tests.conftest import benign_of, spec_of
from tests.export_files import model


class FixedBatch(nn.Module):
    """Reshapes to the batch that it was written with, as much research code does."""

    def __init__(self, batch: int, layer: nn.Module) -> None:
        super().__init__()
        self.batch, self.layer = batch, layer

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.layer(x.reshape(self.batch, -1))
        return answer[:, :2]


class Branching(nn.Module):
    """Looks at the values of the image to decide what to compute: no graph holds that."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 16 * 16, 2)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.fc(x.flatten(1))
        return answer * 2 if float(x.mean()) > 0.5 else answer


@pytest.mark.parametrize("opset", [17, 27])
def test_other_opsets_are_refused_with_the_range(tmp_path: Path, opset: int) -> None:
    with pytest.raises(UnusableInput, match=f"--opset={opset}.*{OPSETS[0]} to {OPSETS[-1]}"):
        export_files(model(), tmp_path / "m.onnx", opset=opset)
    assert list(tmp_path.iterdir()) == []


def fails(*words: Any, **more: Any) -> None:
    raise RuntimeError("no\nway")


@pytest.mark.parametrize(
    ("step", "precision", "words"),
    [
        ("export.precision.convert_float_to_float16", "fp16", "converted to fp16"),
        ("export.precision.quantize_static", "int8", "quantised to int8"),
        ("onnx.checker.check_model", "fp32", "m.onnx can't be written"),
    ],
)
def test_what_a_converter_can_not_do_is_one_line(
    step: str, precision: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = calibration_part(benign_of(model(), 4))
    monkeypatch.setattr(step, fails)
    with pytest.raises(UnusableInput, match=words) as caught:
        export_files(model(), tmp_path / "m.onnx", [precision], calibration=part)
    assert "(no)" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (FixedBatch(2, nn.Tanh()), "fixes its batch"),  # written without a word
        (FixedBatch(4, nn.Linear(768, 2)), "any batch"),
        (Branching(), "every image"),
    ],
    ids=["batch of the example", "another batch", "branching"],
)
def test_models_that_no_graph_can_hold_are_refused_in_one_line(
    tmp_path: Path,
    made: nn.Module,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # The search for the split runs batches of four, which these modules may not take.
    monkeypatch.setattr("guard.model.find_split", lambda *_: None)
    with pytest.raises(UnusableInput, match=words) as caught:
        export_files(Model(made, spec_of()), tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")  # the exporter would tell a hundred lines
