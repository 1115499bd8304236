"""ONNX files as MODEL: the dense layer, the names of the weights, and which can be tuned."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from export.onnx_in import load_onnx
from guard.model import Model
from tests.conftest import SIDE
from tests.onnx_files import (
    Viewed,
    X,
    answers,
    as_half,
    as_int8,
    by_hand,
    by_new_exporter,
    by_old_exporter,
    by_onnxruntime,
    initializer,
    node,
    refusal,
    small,
    with_convolution_at_the_end,
    write,
)


@pytest.mark.parametrize("on_one_pixel", [True, False])
def test_a_convolution_is_a_dense_layer_where_its_maps_have_one_pixel(
    on_one_pixel: bool, tmp_path: Path
) -> None:
    model = load_onnx(write(with_convolution_at_the_end(on_one_pixel), tmp_path))
    assert model.split.layer == ("head" if on_one_pixel else None)


def gemm(**attributes: Any) -> onnx.ModelProto:
    """A graph of one dense layer."""
    weight = np.random.default_rng(0).normal(size=(2, 3 * SIDE * SIDE)).astype(np.float32) / 9
    turned = attributes.get("transB", 0)
    nodes = [node("Flatten", "input", "a"), node("Gemm", "a w b", "output", **attributes)]
    bias = np.array([[1, 2]], np.float32)
    return by_hand(nodes, {"w": weight if turned else weight.T.copy(), "b": bias})


def test_a_bias_for_each_image_is_no_dense_layer(tmp_path: Path) -> None:
    proto = gemm()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    bias = initializer(proto, "b")
    bias.CopyFrom(numpy_helper.from_array(np.ones((4, 2), np.float32), "b"))
    assert "batch is fixed to 4" in refusal(write(proto, tmp_path))


@pytest.mark.parametrize(
    "attributes", [{}, {"transB": 1}, {"alpha": 0.5, "beta": 3.0}, {"transB": 1, "alpha": -2.0}]
)
def test_a_dense_layer_takes_in_what_gemm_scales(
    attributes: dict[str, Any], tmp_path: Path
) -> None:
    proto = gemm(**attributes)
    model = load_onnx(write(proto, tmp_path))
    assert model.split.layer == "w"
    np.testing.assert_allclose(
        answers(model), by_onnxruntime(proto, X.numpy()), rtol=1e-4, atol=1e-5
    )


def test_names_are_those_of_the_file_and_stay(tmp_path: Path) -> None:
    path = write(small(), tmp_path)
    first, second = load_onnx(path).network, load_onnx(path).network
    assert list(first.state_dict()) == list(second.state_dict())
    assert {name for name, _ in first.named_parameters()} == {
        *("conv_weight", "conv_bias", "bn_scale", "bn_bias", "fc.weight", "fc.bias")
    }
    assert {name for name, _ in first.named_buffers()} == {"bn_mean", "bn_var"}


def test_names_that_clash_are_told_apart(tmp_path: Path) -> None:
    """With each other, with those of the graph's values, and with those of torch."""
    draw = np.random.default_rng(0)
    nodes = [
        node("Conv", "input forward", "conv_a"),
        node("Conv", "conv_a conv.a", "b"),
        node("Conv", "b conv/a", "c"),
        node("GlobalAveragePool", "c", "d"),
        node("Flatten", "d", "e"),
        node("Gemm", "e .weight", "output"),
    ]
    names = {"forward": (3, 3, 1, 1), "conv.a": (3, 3, 1, 1), "conv/a": (3, 3, 1, 1)}
    weights = {name: draw.normal(size=shape) for name, shape in names.items()}
    weights[".weight"] = draw.normal(size=(3, 2))
    proto = by_hand(nodes, {k: v.astype(np.float32) for k, v in weights.items()})
    network = load_onnx(write(proto, tmp_path)).network
    assert {name for name, _ in network.named_parameters()} == {
        *("forward_2", "conv_a_2", "conv_a_3", "value.weight")
    }


def test_a_statistic_that_shares_its_tensor_with_a_weight_stays_fixed(tmp_path: Path) -> None:
    proto = small()
    batch_norm = next(made for made in proto.graph.node if made.op_type == "BatchNormalization")
    batch_norm.input[3] = "bn.bias"
    network = load_onnx(write(proto, tmp_path)).network
    assert torch.equal(network.get_parameter("bn_bias"), network.get_buffer("bn_bias_2"))


def test_a_weight_of_two_nodes_is_one_parameter(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "input w", "a", pads=[1, 1, 1, 1]),
        node("Conv", "a w", "b", strides=[4, 4]),
        node("Flatten", "b", "c"),
        node("Gemm", "c fc", "output"),
    ]
    draw = np.random.default_rng(0)
    weights = {"w": draw.normal(size=(3, 3, 3, 3)), "fc": draw.normal(size=(48, 2))}
    proto = by_hand(nodes, {k: v.astype(np.float32) for k, v in weights.items()})
    network = load_onnx(write(proto, tmp_path)).network
    assert {name for name, _ in network.named_parameters()} == {"w", "fc.weight"}


def test_a_product_that_is_used_twice_keeps_its_bias_apart(tmp_path: Path) -> None:
    proto = small()
    proto.graph.node[-1].output[0] = "y"
    proto.graph.node.append(node("Mul", "y f", "output"))
    model = load_onnx(write(proto, tmp_path))
    np.testing.assert_allclose(
        answers(model), by_onnxruntime(proto, X.numpy()), rtol=1e-4, atol=1e-4
    )


def normalised() -> onnx.ModelProto:
    """Constants before the first layer (not to be tuned), behind it, and at the end."""
    proto = small()
    proto.graph.node.insert(0, node("Sub", "input mean", "x"))
    proto.graph.node[1].input[0] = "x"
    proto.graph.node[-1].output[0] = "y"
    proto.graph.node.append(node("Mul", "y spread", "z"))
    proto.graph.node.append(node("Mul", "z degrees", "output"))
    for name, value in (
        ("mean", np.full((1, 3, 1, 1), 0.5)),
        ("spread", np.array([2.0, 3.0])),
        ("degrees", np.array(57.3)),
    ):
        proto.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    return proto


def test_constants_of_preprocessing_are_no_weights(tmp_path: Path) -> None:
    model = load_onnx(write(normalised(), tmp_path))
    parameters = {name for name, _ in model.network.named_parameters()}
    assert "spread" in parameters
    assert {"mean", "degrees"}.isdisjoint(parameters)
    assert model.split.layer == "fc"


def tuned(model: Model, steps: int = 40) -> tuple[float, float]:
    """The error before and after some steps of gradient descent on all weights."""
    y = 0.5 - torch.from_numpy(answers(model)).flip(0)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = ((model(X) - y) ** 2).mean()
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert bool(torch.isfinite(parameter.grad).all()), name
            assert float(parameter.grad.abs().sum()) > 0, name
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses[0], losses[-1]


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_every_weight_can_be_tuned_and_no_statistic_moves(kind: str, tmp_path: Path) -> None:
    proto = {
        "float32": small,
        "float16": lambda: as_half(small()),
        "int8": lambda: as_int8(small(), tmp_path, per_channel=True),
    }[kind]()
    model = load_onnx(write(proto, tmp_path))
    before = {name: value.clone() for name, value in model.named_buffers()}
    first, last = tuned(model)
    assert last < 0.5 * first
    for name, value in model.named_buffers():
        assert torch.equal(value, before[name])


def test_a_copy_has_weights_of_its_own(tmp_path: Path) -> None:
    """Also of the dense layer: mitigation tunes a copy."""
    model = load_onnx(write(small(), tmp_path))
    before, twin = answers(model), copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.data.zero_()
    assert np.array_equal(answers(model), before)
    assert not answers(twin).any()


def resized() -> onnx.ModelProto:
    """Features are brought to the size of the input, which the graph computes."""
    nodes = [
        node("Conv", "input w", "a", strides=[2, 2]),
        node("Shape", "a", "s1", end=2),
        node("Shape", "input", "s2", start=2),
        node("Concat", "s1 s2", "s", axis=0),
        node("Resize", "a - - s", "b", mode="linear"),
        node("MaxPool", "b", "c", kernel_shape=[8, 8], strides=[8, 8]),
        node("Flatten", "c", "d"),
        node("Gemm", "d fc", "output"),
        node("Conv", "input unused", "nowhere"),
    ]
    draw = np.random.default_rng(0)
    weights = {"w": (4, 3, 3, 3), "fc": (16, 2), "unused": (1, 3, 1, 1)}
    arrays = {k: draw.normal(size=shape).astype(np.float32) for k, shape in weights.items()}
    return by_hand(nodes, arrays, opset=15)


@pytest.mark.parametrize("source", ["view", "resize", "int8"])
def test_a_model_from_a_file_can_be_exported_again(source: str, tmp_path: Path) -> None:
    """What mitigation made of it has to leave as ONNX, whatever the batch."""
    proto = {
        "view": lambda: by_old_exporter(Viewed().eval(), tmp_path / "a.onnx"),
        "resize": resized,
        "int8": lambda: as_int8(small(), tmp_path),
    }[source]()
    model = load_onnx(write(proto, tmp_path))
    again = by_new_exporter(model.network)
    np.testing.assert_allclose(
        by_onnxruntime(again, X.numpy()), answers(model), rtol=1e-4, atol=1e-5
    )


def test_what_the_output_does_not_need_is_left_out(tmp_path: Path) -> None:
    network = load_onnx(write(resized(), tmp_path)).network
    assert {name for name, _ in network.named_parameters()} == {"w", "fc.weight"}
