"""ONNX files of several writers, changed or refused, for tests: by exporters and by hand."""

import json
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor, nn

from export.onnx_in import load_onnx
from guard.errors import UnusableInput
from guard.model import Model
from guard.spec import ModelSpec
from tests.conftest import SIDE, images_of, spec_of

FLOAT, HALF, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8
SPEC = spec_of(arch="onnx")
SHAPE = ("n", 3, SIDE, SIDE)
X = images_of(5).float() / 255
Side = int | str


class Branches(nn.Module):
    """A residual pair of convolutions with batch norm that share one input."""

    def __init__(self, outputs: int = 2, width: int = 6) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, width, 3, 2, 1), nn.Conv2d(3, width, 1, 2)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width * 16, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)) + self.bn2(self.conv2(x)))
        x = nn.functional.leaky_relu(self.bn3(self.conv3(x)), 0.1)
        y: Tensor = self.fc(nn.functional.avg_pool2d(x, 2).flatten(1))
        return y


class Viewed(nn.Module):
    """Flattens with `view`, which exporters write as a computed or a constant shape."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, 2), nn.Linear(4 * 7 * 7, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(nn.functional.hardswish(self.conv(x)).view(x.size(0), -1)) * 57.3
        return y


def branches(outputs: int = 2) -> Branches:
    """The network with statistics and scales as after training."""
    torch.manual_seed(0)
    made = Branches(outputs).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.3, 0.3),
            ):
                assert isinstance(values, Tensor)
                values.uniform_(low, high)
    return made


def by_new_exporter(network: nn.Module, opset: int = 18) -> onnx.ModelProto:
    """What torch.export writes; batch norm stays where a network ends in no convolution."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (torch.zeros(2, 3, SIDE, SIDE),),
                dynamo=True,
                opset_version=opset,
                input_names=["input"],
                output_names=["output"],
                dynamic_shapes=({0: "batch"},),
                verbose=False,
            )
    finally:
        logging.disable(logging.NOTSET)
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto


def by_old_exporter(
    network: nn.Module, path: Path, opset: int = 13, batch: int | None = None, **more: Any
) -> onnx.ModelProto:
    """What tracing writes, with a fixed or a symbolic batch. It writes to files only."""
    axes = {"input": {0: "n"}, "output": {0: "n"}} if batch is None else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(batch or 2, 3, SIDE, SIDE),),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes=axes,
            **more,
        )
    return onnx.load(path)


def by_hand(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, Any],
    *,
    opset: int = 18,
    takes: Sequence[Side] = SHAPE,
    gives: Sequence[Side] | None = ("n", 2),
    kinds: tuple[int, int] = (FLOAT, FLOAT),
) -> onnx.ModelProto:
    """A graph from "input" to "output". `weights` are arrays; `gives` None: anything."""
    made = helper.make_empty_tensor_value_info("output")
    if gives is not None:
        made = helper.make_tensor_value_info("output", kinds[1], list(gives))
    graph = helper.make_graph(
        list(nodes),
        "by_hand",
        [helper.make_tensor_value_info("input", kinds[0], list(takes))],
        [made],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    proto = helper.make_model(graph, opset_imports=imports, producer_name="by hand")
    proto.ir_version = 8 if opset < 20 else 10
    return proto


def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """A node; `inputs` are names with blanks between, "-" for one that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    name = f"{op}_to_{output.split()[0]}"
    return helper.make_node(op, names, output.split(), name=name, **attributes)


def small(opset: int = 18, **keywords: Any) -> onnx.ModelProto:
    """Convolution, batch norm, ReLU, pooling, MatMul and Add: a dense layer in two nodes."""
    draw = np.random.default_rng(0)
    nodes = [
        node("Conv", "input conv.weight conv.bias", "a", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", "a bn.scale bn.bias bn.mean bn.var", "b"),
        node("Relu", "b", "c"),
        node("AveragePool", "c", "d", kernel_shape=[4, 4], strides=[4, 4]),
        node("Flatten", "d", "e"),
        node("MatMul", "e fc.weight", "f"),
        node("Add", "f fc.bias", "output"),
    ]
    weights = {
        "conv.weight": draw.normal(size=(4, 3, 3, 3)),
        "conv.bias": draw.normal(size=4),
        "bn.scale": draw.uniform(0.5, 1.5, 4),
        "bn.bias": draw.normal(size=4),
        "bn.mean": draw.normal(size=4),
        "bn.var": draw.uniform(0.5, 1.5, 4),
        "fc.weight": draw.normal(size=(16, 2)),
        "fc.bias": draw.normal(size=2),
    }
    return by_hand(
        nodes, {k: v.astype(np.float32) for k, v in weights.items()}, opset=opset, **keywords
    )


class _Pictures(CalibrationDataReader):
    def __init__(self, count: int = 16) -> None:
        self._left = list(images_of(count).float().numpy()[:, None] / 255)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return {"input": self._left.pop()} if self._left else None


def as_int8(proto: onnx.ModelProto, folder: Path, **keywords: Any) -> onnx.ModelProto:
    """Quantised on smooth pictures: int8 weights, uint8 activations."""
    source, target = folder / "float.onnx", folder / "int8.onnx"
    onnx.save_model(proto, source)
    choice = {"weight_type": QuantType.QInt8, "activation_type": QuantType.QUInt8} | keywords
    logging.disable(logging.WARNING)
    quantize_static(source, target, _Pictures(), quant_format=QuantFormat.QDQ, **choice)
    logging.disable(logging.NOTSET)
    return onnx.load(target)


def as_half(proto: onnx.ModelProto, keep_io_types: bool = True) -> onnx.ModelProto:
    """Weights and arithmetic in half floats; the nodes come out in no valid order."""
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    made: onnx.ModelProto = convert_float_to_float16(copied, keep_io_types=keep_io_types)
    return made


def write(
    proto: onnx.ModelProto,
    folder: Path,
    spec: ModelSpec | None = SPEC,
    *,
    name: str = "model",
    inside: bool = True,
    **changes: Any,
) -> Path:
    """Write a file with its spec in the metadata or beside it; None: without any."""
    path = folder / f"{name}.onnx"
    if spec is not None:
        values = {key: value for key, value in spec.to_json().items() if key != "arch"}
        values |= {"input": values["input"] | changes.pop("input", {})} | changes
        if inside:
            helper.set_model_props(proto, {"drmguard": json.dumps(values), "other": "text"})
        else:
            path.with_suffix(".json").write_text(json.dumps(values))
    path.write_bytes(proto.SerializeToString())
    return path


def by_onnxruntime(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """What the CPU provider makes of x, the input."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    answer: np.ndarray = session.run(None, {session.get_inputs()[0].name: x})[0]
    return answer


def answers(model: Model, x: Tensor = X) -> np.ndarray:
    with torch.no_grad():
        made: np.ndarray = model(x).numpy()
    return made


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


def copied(proto: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    return made


def refusal(path: Path) -> str:
    """The one line with which a file is refused; it names the file or its sidecar."""
    with pytest.raises(UnusableInput) as caught:
        load_onnx(path)
    line = str(caught.value)
    assert line.isprintable()
    assert path.name in line or path.with_suffix(".json").name in line
    return line


def changed(change: Callable[[onnx.ModelProto], Any]) -> onnx.ModelProto:
    proto = small()
    change(proto)
    return proto


def initializer(proto: onnx.ModelProto, name: str) -> TensorProto:
    return next(made for made in proto.graph.initializer if made.name == name)


def set_weight(name: str, value: np.ndarray) -> Callable[[onnx.ModelProto], None]:
    def change(proto: onnx.ModelProto) -> None:
        initializer(proto, name).CopyFrom(numpy_helper.from_array(value, name))

    return change


def set_opset(version: int) -> Callable[[onnx.ModelProto], None]:
    def change(proto: onnx.ModelProto) -> None:
        proto.opset_import[0].version = version

    return change


def set_node(place: int, **fields: str) -> Callable[[onnx.ModelProto], None]:
    def change(proto: onnx.ModelProto) -> None:
        for name, value in fields.items():
            setattr(proto.graph.node[place], name, value)

    return change


def with_convolution_at_the_end(on_one_pixel: bool) -> onnx.ModelProto:
    """A 1 x 1 convolution instead of a dense layer, behind or before the pooling."""
    draw = np.random.default_rng(0)
    nodes = [
        node("Conv", "input w1", "a", strides=[2, 2]),
        node("Relu", "a", "b"),
        *(
            [node("GlobalAveragePool", "b", "c"), node("Conv", "c head bias", "d")]
            if on_one_pixel
            else [node("Conv", "b head bias", "c"), node("GlobalAveragePool", "c", "d")]
        ),
        node("Flatten", "d", "output"),
    ]
    weights = {
        "w1": draw.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "head": draw.normal(size=(2, 4, 1, 1)).astype(np.float32),
        "bias": draw.normal(size=2).astype(np.float32),
    }
    return by_hand(nodes, weights)
