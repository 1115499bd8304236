"""Export: what is in a file, what it takes, and what it computes."""

import copy
import json
import threading
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn
from torch.nn import functional

from export.metadata import KEY, model_metadata, read_metadata
from export.precision import calibration_part, export_files, image_digest, left_in_float
from export.write import frozen_copy, write_onnx
from guard.errors import UnusableInput
from guard.model import copied
from guard.spec import InputSpec
from tests.conftest import benign_of, model_of, spec_of
from tests.export_files import answers, model, run, small

PRECISIONS = ("fp32", "fp16", "int8")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model in all precisions; with "embedded " before the name, of uint8 pictures."""
    folder = tmp_path_factory.mktemp("exported")
    calibration = calibration_part(benign_of(model(), 40))
    found: dict[str, Path] = {}
    for embedded in (False, True):
        word = "embedded " if embedded else ""
        made = export_files(
            model(),
            folder / f"{word}model.onnx",
            PRECISIONS,
            calibration=calibration,
            embed_preprocessing=embedded,
            facts={"verdict": "clean", "score": 1.5},
        )
        found.update(zip((word + p for p in PRECISIONS), made, strict=True))
    return found


def tensor_types(values: Sequence[onnx.ValueInfoProto]) -> list[tuple[int, list[Any]]]:
    kinds = [value.type.tensor_type for value in values]
    return [(k.elem_type, [d.dim_param or d.dim_value for d in k.shape.dim]) for k in kinds]


@pytest.mark.parametrize("name", [*PRECISIONS, *(f"embedded {p}" for p in PRECISIONS)])
def test_names_types_and_a_symbolic_batch(files: dict[str, Path], name: str) -> None:
    graph = onnx.load(files[name]).graph
    assert [graph.input[0].name, graph.output[0].name] == ["input", "output"]
    taken = (TensorProto.FLOAT, ["batch", 3, 16, 16])
    if name.startswith("embedded"):
        taken = (TensorProto.UINT8, ["batch", 16, 16, 3])
    assert tensor_types(graph.input) == [taken]
    assert tensor_types(graph.output) == [(TensorProto.FLOAT, ["batch", 2])]


def test_a_file_is_one_file_and_whole(files: dict[str, Path]) -> None:
    folder = files["fp32"].parent
    assert sorted(folder.iterdir()) == sorted(files.values())
    for path in files.values():
        onnx.checker.check_model(path, full_check=True)
        proto = onnx.load(path, load_external_data=False)
        assert all(not t.external_data for t in proto.graph.initializer)


def test_all_operators_are_of_the_default_domain(files: dict[str, Path]) -> None:
    for path in files.values():
        proto = onnx.load(path)
        assert {node.domain for node in proto.graph.node} == {""}
        assert [entry.domain for entry in proto.opset_import] == [""]


def test_nothing_local_is_in_a_file(files: dict[str, Path]) -> None:
    places = [str(Path(__file__).parents[1]), str(Path.home()), str(files["fp32"].parent)]
    for path in files.values():
        content = path.read_bytes()
        for text in (*places, "stack_trace", "Traceback", "test_export", "pkg.torch", ".py:"):
            assert text.encode() not in content


def test_a_path_in_the_facts_is_an_error(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match="local path"):
        write_onnx(onnx.load(files["fp32"]), tmp_path / "m.onnx", {"note": f"from {tmp_path}"})
    assert list(tmp_path.iterdir()) == []


def test_an_operator_of_another_domain_is_an_error(files: dict[str, Path], tmp_path: Path) -> None:
    proto = onnx.load(files["fp32"])
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(UnusableInput, match=r"com\.microsoft"):
        write_onnx(proto, tmp_path / "m.onnx", {})


@pytest.mark.parametrize("name", [*PRECISIONS, "embedded fp32"])
def test_the_metadata_state_what_the_sidecar_states(files: dict[str, Path], name: str) -> None:
    proto = onnx.load(files[name])
    assert [entry.key for entry in proto.metadata_props] == [KEY]
    stated, sidecar = json.loads(proto.metadata_props[0].value), model().spec.to_json()
    assert {k: stated[k] for k in ("task", "outputs", "units")} == {
        k: sidecar[k] for k in ("task", "outputs", "units")
    }
    assert sidecar["input"].items() <= stated["input"].items()
    assert stated["input"]["embedded"] is name.startswith("embedded")
    assert stated["precision"] == name.rpartition(" ")[2]
    assert (stated["verdict"], stated["score"]) == ("clean", 1.5)
    assert "arch" not in stated


def test_a_tool_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert model_metadata(spec_of(), embedded=False, facts={})["tool_version"] == "not installed"


def test_a_score_that_is_no_number_is_null_in_the_metadata(
    files: dict[str, Path], tmp_path: Path
) -> None:
    write_onnx(onnx.load(files["fp32"]), tmp_path / "m.onnx", {"score": float("nan")})
    assert read_metadata(onnx.load(tmp_path / "m.onnx"))["score"] is None


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_file_computes_what_the_network_computes(files: dict[str, Path], batch: int) -> None:
    x = torch.rand(batch, 3, 16, 16)
    np.testing.assert_allclose(run(files["fp32"], x.numpy()), answers(model(), x), atol=1e-6)


SPECS = {
    "bgr": InputSpec((16, 24), color="bgr"),
    "range": InputSpec((16, 16), range=(-1.0, 1.0)),
    "mean and std": InputSpec((16, 16), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
    "all": InputSpec((24, 16), "bgr", (0.0, 255.0), (104.0, 117.0, 123.0), (1.0, 2.0, 3.0)),
}


@pytest.mark.parametrize("name", SPECS)
def test_embedded_preprocessing_takes_camera_pictures(tmp_path: Path, name: str) -> None:
    """Against the formula of the contract, written out anew."""
    spec, network = SPECS[name], small(2)
    export_files(model_of(network, input=spec), tmp_path / "m.onnx", embed_preprocessing=True)
    pictures = np.random.default_rng(0).integers(0, 256, (3, *spec.size, 3), dtype=np.uint8)
    x = pictures[..., ::-1] if spec.color == "bgr" else pictures
    low, high = spec.range
    x = (low + x / 255 * (high - low) - np.array(spec.mean)) / np.array(spec.std)
    expected = answers(network, torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).float())
    scale = np.abs(expected).max()
    np.testing.assert_allclose(run(tmp_path / "m.onnx", pictures), expected, atol=1e-5 * scale)


def test_a_model_in_training_is_exported_for_use_and_left_as_it_was(tmp_path: Path) -> None:
    opened = model_of(small(2))
    opened.network.train()
    before = copy.deepcopy(opened.state_dict())
    export_files(opened, tmp_path / "m.onnx")
    assert opened.network.training
    assert all(torch.equal(value, before[key]) for key, value in opened.state_dict().items())
    x = torch.rand(2, 3, 16, 16)
    np.testing.assert_allclose(run(tmp_path / "m.onnx", x.numpy()), answers(model(), x), atol=1e-6)


def test_a_model_that_was_just_screened_can_be_copied_for_the_exporter() -> None:
    """A pass with gradients leaves nothing behind that can't be copied."""
    opened = model_of(small(2))
    x = torch.rand(2, 3, 16, 16, requires_grad=True)
    opened.with_features(x)[0].sum().backward()
    assert torch.equal(frozen_copy(opened)(x), opened(x))


def test_a_model_that_holds_a_lock_can_be_copied_and_exported(tmp_path: Path) -> None:
    opened = model_of(small(2))
    opened.network.lock = threading.Lock()  # type: ignore[assignment]
    twin = copied(opened)
    assert twin.network.lock is opened.network.lock
    for own, other in zip(twin.parameters(), opened.parameters(), strict=True):
        assert own is not other
    assert export_files(opened, tmp_path / "m.onnx")[0].is_file()


def test_fp16_holds_half_floats(files: dict[str, Path]) -> None:
    weights = onnx.load(files["fp16"]).graph.initializer
    kinds = {weight.data_type for weight in weights if len(weight.dims) > 1}
    assert kinds == {TensorProto.FLOAT16}


@pytest.mark.parametrize("name", ["int8", "embedded int8"])
def test_int8_quantises_the_convolutions_a_channel_at_a_time(
    files: dict[str, Path], name: str
) -> None:
    graph = onnx.load(files[name]).graph
    made_by = {output: node for node in graph.node for output in node.output}
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2
    for node in convolutions:
        image, weight = (made_by[value] for value in node.input[:2])
        assert (image.op_type, weight.op_type) == ("DequantizeLinear",) * 2
        quantized, scale, _ = (tensors[value] for value in weight.input)
        assert (quantized.data_type, list(scale.dims)) == (TensorProto.INT8, [quantized.dims[0]])
        assert tensors[image.input[2]].data_type == TensorProto.UINT8
    (dense,) = [node for node in graph.node if node.op_type == "Gemm"]
    assert dense.input[1] in tensors  # the last layer stays in float


def test_int8_leaves_the_preprocessing_in_float(files: dict[str, Path]) -> None:
    left = left_in_float(onnx.load(files["embedded fp32"]).graph)
    nodes = onnx.load(files["embedded int8"]).graph.node
    kinds = [node.op_type for node in nodes if node.name in left]
    assert {"Cast", "Div", "Mul", "Add", "Gemm"} <= set(kinds)
    first = next(i for i, node in enumerate(nodes) if node.op_type == "QuantizeLinear")
    assert {"Cast", "Div", "Mul", "Add"} <= {node.op_type for node in nodes[:first]}


def test_an_int8_file_lists_the_images_that_calibrated_it(files: dict[str, Path]) -> None:
    part = calibration_part(benign_of(model(), 40))
    stated = read_metadata(onnx.load(files["int8"]))["calibrated_on"]
    assert stated == [image_digest(image) for image in part.images]
    assert len(set(stated)) == 20


def test_the_opset_is_the_one_that_was_asked_for(files: dict[str, Path], tmp_path: Path) -> None:
    assert all(onnx.load(path).opset_import[0].version == 18 for path in files.values())
    benign = calibration_part(benign_of(model(), 20))
    made = export_files(model(), tmp_path / "m.onnx", PRECISIONS, calibration=benign, opset=26)
    x = benign.images.float() / 255
    for path, atol in zip(made, (1e-6, 1e-3, 0.05), strict=True):
        assert [entry.version for entry in onnx.load(path).opset_import] == [26]
        np.testing.assert_allclose(run(path, x.numpy()), answers(model(), x), atol=atol)


class Pyramid(nn.Module):
    """Maps made larger again; a dense layer that is named as a file of Python ends."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.more = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.head = nn.ModuleDict({"py": nn.Linear(4, 2)})

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        x = x + functional.interpolate(self.more(x), scale_factor=2, mode="bilinear")
        answer: Tensor = self.head["py"](x.mean((2, 3)))
        return answer


def test_a_bilinear_resize_is_written_in_every_precision(tmp_path: Path) -> None:
    opened = model_of(Pyramid())
    part = calibration_part(benign_of(opened, 20))
    made = export_files(opened, tmp_path / "m.onnx", PRECISIONS, calibration=part)
    x = part.images.float() / 255
    for path, atol in zip(made, (1e-6, 1e-3, 0.05), strict=True):
        np.testing.assert_allclose(run(path, x.numpy()), answers(opened, x), atol=atol)
