"""Export as int8: the images that calibrate it."""

from pathlib import Path

import onnx
import pytest
import torch

from export.precision import calibration_part, export_files
from guard.benign import BenignSet
from guard.errors import UnusableInput
from tests.conftest import Reader, benign_of, images_of, model_of
from tests.export_files import model


def test_a_network_of_one_layer_is_quantised_whole(tmp_path: Path) -> None:
    reader = model_of(Reader(2))
    (path,) = export_files(
        reader, tmp_path / "m.onnx", ["int8"], calibration=calibration_part(benign_of(reader, 20))
    )
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(path).graph.node}


def test_int8_needs_images(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match="calibrate"):
        export_files(model(), tmp_path / "m.onnx", ["int8"])


@pytest.mark.parametrize(("count", "taken"), [(2, 1), (3, 1), (40, 20), (700, 256)])
def test_half_of_the_images_at_most_calibrate(count: int, taken: int) -> None:
    numbered = BenignSet(torch.zeros(count, 3, 8, 8, dtype=torch.uint8), torch.zeros(count, 2))
    names = calibration_part(numbered, seed=1).names
    assert len(set(names)) == taken
    assert set(names) <= set(numbered.names)
    if taken > 1:
        assert names != calibration_part(numbered, seed=2).names


def test_one_image_can_not_calibrate_and_measure() -> None:
    with pytest.raises(UnusableInput, match="two"):
        calibration_part(BenignSet(images_of(1), torch.zeros(1, 2)))
