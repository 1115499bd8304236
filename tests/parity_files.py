"""Models whose files are held against them, and ways to spoil a file."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export.groups import image_groups
from export.parity import Proof, prove
from export.subject import Subject, model_subject
from guard.benign import BenignSet
from guard.model import Model
from guard.networks import NETWORKS
from guard.spec import InputSpec
from tests.conftest import benign_of, model_of, plain

ARCH = "tests.parity_files:network"
IMAGE = InputSpec((16, 16), "bgr", (0.0, 255.0), (104.0, 117.0, 123.0), (50.0, 60.0, 70.0))


def lived(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with batch statistics as training leaves them, not those of the start."""
    draw = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            size = layer.running_mean.shape
            layer.running_mean.copy_(0.2 * torch.randn(size, generator=draw))
            layer.running_var.copy_(0.5 + torch.rand(size, generator=draw))
    return network


def network(outputs: int = 2) -> nn.Module:
    """A factory's model."""
    torch.manual_seed(1)
    return lived(plain(outputs))


class Branches(nn.Module):
    """Two convolutions with batch norm that share one input: a wrong fold mixes their biases."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.one = nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4))
        self.two = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.fc = nn.Linear(4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.one(x) + self.two(x))
        answer: Tensor = self.fc(x.mean(dim=(2, 3)))
        return answer


NETS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: NETWORKS["resnet18"](2, 4),
    "resnet34": lambda: NETWORKS["resnet34"](2, 4),
    "mobilenet_v1": lambda: NETWORKS["mobilenet_v1"](2, 4),
    "factory": lambda: plain(2, width=6),
    "two branches": lambda: Branches(2),
}


@functools.cache
def model() -> Model:
    """A model with preprocessing of all kinds; not to be changed by a test."""
    return model_of(network(), input=IMAGE)


@functools.cache
def benign() -> BenignSet:
    return benign_of(model(), 40)


def proof_of(path: Path, subject: Subject | None = None, **groups: BenignSet) -> Proof:
    return prove(subject or model_subject(model()), [path], groups or image_groups(benign()))


def failed(proof: Proof) -> list[str]:
    return [row["reason"] for row in proof.rows if not row["passed"]]


def weights(proto: onnx.ModelProto, size: int) -> Iterator[tuple[Any, np.ndarray]]:
    """The weights with `size` dimensions, as tensors and as copies to change."""
    for tensor in proto.graph.initializer:
        if len(tensor.dims) == size and tensor.data_type == TensorProto.FLOAT:
            yield tensor, numpy_helper.to_array(tensor).copy()


def one_weight(proto: onnx.ModelProto) -> None:
    tensor, values = next(weights(proto, 4))
    values.flat[5] *= 1.01
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def nan_weight(proto: onnx.ModelProto) -> None:
    tensor, values = next(weights(proto, 4))
    values.flat[5] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def shift_bias(proto: onnx.ModelProto) -> None:
    for tensor, values in weights(proto, 1):
        if len(values) == 2:  # of the last layer
            values[0] += 0.01
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def hard_batch(proto: onnx.ModelProto) -> None:
    """The answers pass through a reshape to two rows."""
    graph = proto.graph
    graph.node[-1].output[0] = "answer"
    graph.initializer.append(numpy_helper.from_array(np.array([2, 2]), "rows"))
    graph.node.append(helper.make_node("Reshape", ["answer", "rows"], ["output"]))
    del graph.value_info[:]


def first_image_only(proto: onnx.ModelProto) -> None:
    """Every image of a batch gets the answer of the first: right for one image alone."""
    graph = proto.graph
    graph.node[-1].output[0] = "answer"
    for name, value in (("zero", 0), ("one", 1)):
        graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "nothing"))
    graph.node.extend(
        [
            helper.make_node("Slice", ["answer", "zero", "one", "zero"], ["first"]),
            helper.make_node("Mul", ["answer", "nothing"], ["zeros"]),
            helper.make_node("Add", ["zeros", "first"], ["output"]),
        ]
    )


def state(**changes: Any) -> Callable[[onnx.ModelProto], None]:
    """Change what the metadata say of the input."""

    def change(proto: onnx.ModelProto) -> None:
        (entry,) = proto.metadata_props
        stated = json.loads(entry.value)
        stated["input"].update(changes)
        entry.value = json.dumps(stated)

    return change


def tamper(source: Path, target: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    proto = onnx.load(source)
    change(proto)
    onnx.save(proto, target)
    return target


def static_batch(proto: onnx.ModelProto) -> None:
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def second_input(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch"]))
