"""ONNX files as MODEL: of several writers, in several precisions."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.graph_check import precision
from export.graph_file import read_onnx
from export.onnx_in import load_onnx
from export.subject import rounds
from guard.load import model_facts
from tests.conftest import SIDE
from tests.onnx_files import (
    Viewed,
    X,
    agrees_with_its_source,
    answers,
    as_half,
    as_int8,
    branches,
    by_hand,
    by_new_exporter,
    by_old_exporter,
    by_onnxruntime,
    copied,
    initializer,
    node,
    refusal,
    small,
    write,
)


@pytest.fixture(scope="module")
def new() -> onnx.ModelProto:
    """The residual pair of tests.onnx_files as torch's new exporter writes it, which is slow."""
    return by_new_exporter(branches())


# --- writers -------------------------------------------------------------------------------------


def test_a_file_of_the_new_exporter_is_the_model(new: onnx.ModelProto, tmp_path: Path) -> None:
    model = load_onnx(write(copied(new), tmp_path))
    agrees_with_its_source(model, branches())
    assert (model.split.layer, model.split.features) == ("fc", 96)
    assert torch.equal(model.dense.weight, branches().fc.weight)


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("opset", [11, 13, 17, 20])
def test_a_file_of_the_old_exporter_is_the_model(opset: int, folded: bool, tmp_path: Path) -> None:
    """Unfolded, batch normalisation is in the file as such."""
    training = torch.onnx.TrainingMode.PRESERVE if not folded else torch.onnx.TrainingMode.EVAL
    proto = by_old_exporter(
        branches(), tmp_path / "a.onnx", opset, training=training, do_constant_folding=folded
    )
    assert folded != ("BatchNormalization" in {made.op_type for made in proto.graph.node})
    model = load_onnx(write(proto, tmp_path))
    agrees_with_its_source(model, branches())
    assert model.split.layer == "fc"


@pytest.mark.parametrize("opset", [11, 12, 13, 15, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26])
def test_a_file_by_hand_is_read_in_every_opset(opset: int, tmp_path: Path) -> None:
    """The dense layer comes as MatMul and Add."""
    proto = small(opset)
    model = load_onnx(write(proto, tmp_path))
    np.testing.assert_allclose(
        answers(model), by_onnxruntime(proto, X.numpy()), rtol=1e-4, atol=1e-5
    )
    assert (model.split.layer, model.split.features) == ("fc", 16)
    assert model.dense.bias is not None
    assert model_facts(model, tmp_path / "model.onnx")["format"] == "onnx"


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_a_fixed_batch_stands_for_any(batch: int | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Viewed().eval()
    model = load_onnx(write(by_old_exporter(network, tmp_path / "a.onnx", 13, batch), tmp_path))
    with torch.no_grad():
        np.testing.assert_allclose(answers(model), network(X).numpy(), rtol=1e-4, atol=1e-5)
    assert model.split.layer == "fc"


def test_a_graph_that_needs_its_fixed_batch_is_refused(tmp_path: Path) -> None:
    shape = np.array([2, 4, 16])  # two images become two parts of one another
    nodes = [
        node("Conv", "input w", "a", strides=[4, 4]),
        node("Transpose", "a", "b", perm=[1, 0, 2, 3]),
        node("Reshape", "b shape", "c"),
        node("ReduceMean", "c", "d", axes=[2], keepdims=0),
        node("Gemm", "d fc", "output"),
    ]
    weights = {
        "w": np.ones((4, 3, 1, 1), np.float32),
        "shape": shape,
        "fc": np.ones((4, 2), np.float32),
    }
    proto = by_hand(nodes, weights, opset=13, takes=(2, 3, SIDE, SIDE), gives=(2, 2))
    assert "model.onnx" in refusal(write(proto, tmp_path))


# --- precisions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False])
def test_half_floats_are_computed_in_float32(
    new: onnx.ModelProto, kept: bool, tmp_path: Path
) -> None:
    proto = as_half(new, keep_io_types=kept)
    model = load_onnx(write(proto, tmp_path))
    assert all(value.dtype == torch.float32 for value in model.network.state_dict().values())
    given = X.numpy() if kept else X.half().numpy()
    expected = by_onnxruntime(proto, given).astype(np.float32)
    np.testing.assert_allclose(answers(model), expected, rtol=2e-3, atol=2e-3)
    assert model.split.layer is not None


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("writer", ["new exporter", "by hand"])
def test_int8_rounds_as_onnxruntime_does(
    new: onnx.ModelProto, writer: str, per_channel: bool, tmp_path: Path
) -> None:
    source = new if writer == "new exporter" else small()
    proto = as_int8(source, tmp_path, per_channel=per_channel)
    assert {"QuantizeLinear", "DequantizeLinear"} <= {made.op_type for made in proto.graph.node}
    model = load_onnx(write(proto, tmp_path))
    expected = by_onnxruntime(proto, X.numpy())
    np.testing.assert_allclose(answers(model), expected, atol=0.02 * np.ptp(expected))
    assert model.split.layer is not None
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x)
    assert float(slope.abs().sum()) > 0


def test_the_precision_decides_the_tolerance(new: onnx.ModelProto, tmp_path: Path) -> None:
    for kind, proto in (
        ("float32", small()),
        ("float16", as_half(small())),
        ("float16", as_half(new, keep_io_types=False)),
        ("int8", as_int8(small(), tmp_path)),
    ):
        assert precision(read_onnx(write(proto, tmp_path))) == kind


def test_weights_alone_in_int8_do_not_round_the_picture(tmp_path: Path) -> None:
    """onnxruntime would fuse the dense layer's into a kernel that does, if it were not told."""
    proto = small()
    values = onnx.numpy_helper.to_array(initializer(proto, "fc.weight"))
    scale = np.float32(np.abs(values).max() / 127)
    for name, value in (("whole", (values / scale).round().astype(np.int8)), ("scale", scale)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    proto.graph.node[5].input[1] = "fc.rounded"
    proto.graph.node.insert(5, node("DequantizeLinear", "whole scale", "fc.rounded"))
    model = load_onnx(write(proto, tmp_path))
    assert precision(read_onnx(tmp_path / "model.onnx")) == "float32"
    torch.testing.assert_close(
        model.dense.weight.T, torch.tensor(values), atol=float(scale), rtol=0
    )


def test_a_node_that_nothing_needs_is_not_read(tmp_path: Path) -> None:
    proto = small()
    proto.graph.node.insert(3, node("Sinh", "c", "unused"))
    proto.graph.node.insert(4, node("Cast", "unused", "half", to=onnx.TensorProto.FLOAT16))
    model = load_onnx(write(proto, tmp_path))
    np.testing.assert_allclose(answers(model), by_onnxruntime(small(), X.numpy()), atol=1e-5)
    assert precision(read_onnx(tmp_path / "model.onnx")) == "float32"


def test_a_pair_that_rounds_nothing_of_weight_loosens_no_tolerance(tmp_path: Path) -> None:
    """Live, but times 0: neither the file nor the model that is read of it passes for int8."""
    proto = small()
    proto.graph.node[-1].output[0] = "y"
    for made in (
        node("QuantizeLinear", "y scale shift", "q"),
        node("DequantizeLinear", "q scale shift", "dq"),
        node("Mul", "dq none", "nil"),
        node("Sum", "y nil", "output"),
    ):
        proto.graph.node.append(made)
    values = {"scale": np.float32(1), "shift": np.uint8(0), "none": np.float32(0)}
    for name, value in values.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    model = load_onnx(write(proto, tmp_path))
    assert precision(read_onnx(tmp_path / "model.onnx")) == "float32"
    assert not rounds(model)


def test_a_quantised_model_rounds_before_and_after_its_export(tmp_path: Path) -> None:
    model = load_onnx(write(as_int8(small(), tmp_path), tmp_path))
    assert rounds(model)
    again = load_onnx(write(by_new_exporter(model.network), tmp_path, name="again"))
    assert rounds(again)


@pytest.mark.parametrize("batch", [-1, 0])
def test_a_batch_of_no_size_is_a_symbolic_one(batch: int, tmp_path: Path) -> None:
    proto = small()
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
        if batch:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    path = write(proto, tmp_path)
    assert answers(load_onnx(path)).shape == (5, 2)
    assert read_onnx(path).batch is None
