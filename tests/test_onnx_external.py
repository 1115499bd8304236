"""ONNX files with weights in other files: those beside it are read, all others refused."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.onnx_in import load_onnx
from guard.files import sha256
from tests.onnx_files import X, answers, by_onnxruntime, initializer, refusal, small, write
from tools import cli

BIAS = np.array([1, -2, 3, -4], np.float32)
OUTSIDE = ["../weights.bin", "ABSOLUTE", "link.bin", "folder", ".", "..", "", "none.bin"]
PLACES = [*OUTSIDE, "inner/../weights.bin", "sub/weights.bin", "*/_ORT_MEM_ADDR_/*", "x" * 300]


def elsewhere(tensor: TensorProto, **where: str) -> None:
    """Say that the values of a tensor lie in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in where.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One with the values in several places, of which only one is a plain file inside."""
    inner = tmp_path / "inner"
    (inner / "sub").mkdir(parents=True)
    (inner / "folder").mkdir()
    for place in (tmp_path, inner, inner / "sub"):
        (place / "weights.bin").write_bytes(b"16 bytes before.." + BIAS.tobytes())
    (inner / "link.bin").symlink_to(tmp_path / "weights.bin")
    return inner


def split(folder: Path, location: str, **where: str) -> Path:
    """A file whose bias of the convolution lies elsewhere."""
    proto = small()
    elsewhere(initializer(proto, "conv.bias"), location=location, **where)
    return write(proto, folder)


WHERE = {"offset": "17", "length": "16"}


def test_weights_beside_the_file_are_read(folder: Path) -> None:
    whole = small()
    initializer(whole, "conv.bias").CopyFrom(numpy_helper.from_array(BIAS, "conv.bias"))
    model = load_onnx(split(folder, "weights.bin", **WHERE))
    np.testing.assert_allclose(answers(model), by_onnxruntime(whole, X.numpy()), atol=1e-5)


@pytest.mark.parametrize("place", PLACES)
def test_weights_that_lie_elsewhere_are_refused(place: str, folder: Path) -> None:
    location = str(folder.parent / "weights.bin") if place == "ABSOLUTE" else place
    assert "no plain file beside it" in refusal(split(folder, location, **WHERE))


def test_weights_of_a_constant_node_are_refused_like_the_others(tmp_path: Path) -> None:
    proto = small()
    value = numpy_helper.from_array(BIAS, "value")
    elsewhere(value, location="../weights.bin")
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["unused"], value=value))
    assert "no plain file beside it" in refusal(write(proto, tmp_path))


@pytest.mark.parametrize(
    "where",
    [
        *({"offset": offset} for offset in ("18", "-1", "99")),
        *({"length": length} for length in ("-1", "many", "8", "15", "17")),
    ],
    ids=str,
)
def test_a_place_that_does_not_hold_the_values_is_one_line(
    where: dict[str, str], folder: Path
) -> None:
    assert "does not hold the values of conv.bias" in refusal(
        split(folder, "weights.bin", **(WHERE | where))
    )


def test_the_hash_of_a_model_covers_its_data(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, data = split(folder, "weights.bin", **WHERE), folder / "weights.bin"
    stated = []
    for _ in range(2):
        assert cli.run(["inspect", str(path)]) == 0
        stated.append(json.loads(capsys.readouterr().out))
        assert stated[-1]["files"] == {"model.onnx": sha256(path), "weights.bin": sha256(data)}
        data.write_bytes(b"other" + data.read_bytes()[5:])
    assert stated[0]["sha256"] != stated[1]["sha256"]
    assert sha256(path) not in {facts["sha256"] for facts in stated}


def test_a_file_as_torch_writes_it_is_held_against_its_model(tmp_path: Path) -> None:
    path = write(small(), tmp_path)
    proto = onnx.load(path)
    onnx.save_model(
        proto,
        tmp_path / "split.onnx",
        save_as_external_data=True,
        location="split.onnx.data",
        size_threshold=0,
    )
    assert os.path.getsize(tmp_path / "split.onnx.data") > 0
    np.testing.assert_array_equal(
        answers(load_onnx(tmp_path / "split.onnx")), answers(load_onnx(path))
    )
