"""ONNX files as MODEL: of several writers, in several precisions, and the commands on them."""

import copy
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from export.graph_check import precision
from export.graph_file import read_onnx
from export.onnx_in import load_onnx
from guard.load import model_facts
from guard.model import Model
from guard.screen import Settings
from tests.conftest import SIDE, benign_of, images_of, short_search, spec_of, write_npz
from tests.onnx_files import (
    FLOAT,
    SPEC,
    UINT8,
    as_half,
    as_int8,
    branches,
    by_hand,
    by_new_exporter,
    by_old_exporter,
    by_onnxruntime,
    changed,
    copied,
    initializer,
    node,
    refusal,
    set_node,
    small,
    with_convolution_at_the_end,
    write,
)
from tools import cli

X = images_of(5).float() / 255


@pytest.fixture(scope="module")
def new() -> onnx.ModelProto:
    """The residual pair of tests.onnx_files as torch's new exporter writes it, which is slow."""
    return by_new_exporter(branches())


def answers(model: Model, x: Tensor = X) -> np.ndarray:
    with torch.no_grad():
        made: np.ndarray = model(x).numpy()
    return made


# --- writers -------------------------------------------------------------------------------------


def agrees_with_its_source(model: Model, network: nn.Module) -> None:
    """Outputs, and gradients to the input, are those of the torch model of the file."""
    x, twin = X.clone().requires_grad_(), X.clone().requires_grad_()
    y, expected = model(x), network(twin)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    (y**2).sum().backward()
    (expected**2).sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
    torch.testing.assert_close(x.grad, twin.grad, rtol=1e-3, atol=1e-5)


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


class Viewed(nn.Module):
    """Flattens with `view`, which exporters write as a computed or a constant shape."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, 2), nn.Linear(4 * 7 * 7, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(nn.functional.hardswish(self.conv(x)).view(x.size(0), -1)) * 57.3
        return y


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


# --- split, names, tuning ------------------------------------------------------------------------


@pytest.mark.parametrize("on_one_pixel", [True, False])
def test_a_convolution_is_a_dense_layer_where_its_maps_have_one_pixel(
    on_one_pixel: bool, tmp_path: Path
) -> None:
    model = load_onnx(write(with_convolution_at_the_end(on_one_pixel), tmp_path))
    assert model.split.layer == ("head" if on_one_pixel else None)


def test_a_bias_for_each_image_is_no_dense_layer(tmp_path: Path) -> None:
    proto = gemm()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    bias = initializer(proto, "b")
    bias.CopyFrom(numpy_helper.from_array(np.ones((4, 2), np.float32), "b"))
    assert "batch is fixed to 4" in refusal(write(proto, tmp_path))


def gemm(**attributes: Any) -> onnx.ModelProto:
    """A graph of one dense layer."""
    weight = np.random.default_rng(0).normal(size=(2, 3 * SIDE * SIDE)).astype(np.float32) / 9
    turned = attributes.get("transB", 0)
    nodes = [node("Flatten", "input", "a"), node("Gemm", "a w b", "output", **attributes)]
    bias = np.array([[1, 2]], np.float32)
    return by_hand(nodes, {"w": weight if turned else weight.T.copy(), "b": bias})


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


# --- input forms and specs -----------------------------------------------------------------------


def embedded(color: str = "rgb") -> onnx.ModelProto:
    """uint8 NHWC in; the picture is cast, turned and scaled in the graph."""
    proto = small()
    before = [
        node("Cast", "input", "p1", to=FLOAT),
        node("Transpose", "p1", "p2", perm=[0, 3, 1, 2]),
        node("Slice", "p2 start end axis step", "p3"),
        node("Div", "p3 full", "x"),
    ]
    proto.graph.node[0].input[0] = "x"
    nodes = [*before, *proto.graph.node]
    weights = {made.name: numpy_helper.to_array(made) for made in proto.graph.initializer}
    turned = color == "bgr"
    for name, value in (
        ("start", -1 if turned else 0),
        ("end", -(2**62) if turned else 2**62),
        ("axis", 1),
        ("step", -1 if turned else 1),
    ):
        weights[name] = np.array([value])
    weights["full"] = np.array(255, np.float32)
    return by_hand(nodes, weights, takes=("n", SIDE, SIDE, 3), kinds=(UINT8, FLOAT))


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_preprocessing_in_the_graph_leaves_none_to_the_model(color: str, tmp_path: Path) -> None:
    """Mean, std and color of the metadata tell what happens inside."""
    inside = {"embedded": True, "color": color, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    model = load_onnx(write(embedded(color), tmp_path, input=inside))
    pixels = images_of(5)
    assert torch.equal(model.preprocess(X), X)
    expected = by_onnxruntime(embedded(color), pixels.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(answers(model), expected, rtol=1e-4, atol=1e-5)
    plain = by_onnxruntime(small(), (X if color == "rgb" else X.flip(1)).numpy())
    np.testing.assert_allclose(answers(model), plain, rtol=1e-4, atol=1e-5)
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x)
    assert float(slope.abs().sum()) > 0


@pytest.mark.parametrize(("proto", "said"), [(embedded, False), (small, True)])
def test_the_metadata_and_the_graph_agree_on_who_preprocesses(
    proto: Callable[[], onnx.ModelProto], said: bool, tmp_path: Path
) -> None:
    assert "embedded" in refusal(write(proto(), tmp_path, input={"embedded": said}))


def test_preprocessing_of_the_spec_is_done_before_the_graph(tmp_path: Path) -> None:
    values = {"color": "bgr", "range": [0, 255], "mean": [1.0, 2.0, 3.0], "std": [50.0, 60.0, 70.0]}
    model = load_onnx(write(small(), tmp_path, input=values))
    mean, std = (np.array(values[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    fed = ((255 * X.numpy()[:, ::-1] - mean) / std).astype(np.float32)
    np.testing.assert_allclose(answers(model), by_onnxruntime(small(), fed), rtol=1e-3, atol=1e-4)


def test_the_spec_may_lie_beside_the_file_but_that_inside_wins(tmp_path: Path) -> None:
    path = write(small(), tmp_path, inside=False)
    assert load_onnx(path).spec.task == "gaze"
    assert model_facts(load_onnx(path), path)["sidecar_sha256"] is not None
    regression = spec_of("regression", outputs=("a", "b"))
    write(small(), tmp_path, regression)
    model = load_onnx(path)
    assert (model.spec.task, model.spec.arch) == ("regression", "onnx")


def test_height_and_width_may_be_symbolic(tmp_path: Path) -> None:
    proto = small(takes=("n", 3, "h", "w"))
    assert load_onnx(write(proto, tmp_path)).split.layer == "fc"
    assert "24" in refusal(write(proto, tmp_path, input={"size": [24, 24]}))


def test_the_precision_decides_the_tolerance(new: onnx.ModelProto, tmp_path: Path) -> None:
    for kind, proto in (
        ("float32", small()),
        ("float16", as_half(small())),
        ("float16", as_half(new, keep_io_types=False)),
        ("int8", as_int8(small(), tmp_path)),
    ):
        assert precision(read_onnx(write(proto, tmp_path))) == kind


# --- commands ------------------------------------------------------------------------------------


def test_inspect_prints_what_a_file_takes_and_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(small(), tmp_path)
    assert cli.run(["inspect", str(path)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["format"] == "onnx"
    assert facts["sidecar_sha256"] is None
    assert facts["split"] == {"layer": "fc", "features": 16, "reason": ""}
    assert facts["onnx"] == {
        "opset": 18,
        "producer": "by hand",
        "input_name": "input",
        "output_name": "output",
        "batch": "symbolic",
        "embedded_preprocessing": False,
    }


def test_inspect_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(changed(set_node(2, op_type="Sin")), tmp_path)
    assert cli.run(["inspect", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_screen_takes_an_onnx_file_and_resumes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = short_search(2)
    short = functools.partialmethod(Settings.__init__, calibrated=settings)
    monkeypatch.setattr(Settings, "__init__", short)
    monkeypatch.setattr("tools.report.plotting.DPI", 30)
    path = write(small() if kind == "float32" else as_int8(small(), tmp_path), tmp_path)
    data = write_npz(tmp_path / "data.npz", benign_of(load_onnx(path), 60), SPEC)
    words = ["screen", str(path), str(data), f"--out={tmp_path / 'out'}", "--quiet"]
    code = cli.run([*words, "--device=cpu"])
    assert code in (0, 1, 3)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["model"]["format"] == "onnx"
    assert report["model"]["split"]["layer"] is not None
    assert math.isfinite(report["score"])
    assert cli.run([*words, "--device=cpu", "--resume"]) == code
