"""Graphs of one node as rows of a table, and the networks made of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.graph import OnnxNetwork
from export.graph_read import read_program
from tests.onnx_files import by_hand, node

PICTURE = (2, 3, 9, 8)


@dataclass
class Row:
    """One node on noise; `more` are its other inputs: arrays, "input" again, None left out."""

    op: str
    more: tuple[Any, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = PICTURE
    opset: int = 18
    positive: bool = False
    scale: float = 2.0  # of the noise
    outputs: int = 1

    def __str__(self) -> str:
        words = [f"{key}={value}" for key, value in self.attributes.items()]
        sizes = [str(getattr(value, "shape", value)) for value in self.more]
        return " ".join([self.op, *sizes, *words, f"opset{self.opset}"])

    def proto(self) -> onnx.ModelProto:
        names, weights = ["input"], {}
        for place, value in enumerate(self.more):
            if isinstance(value, np.ndarray):
                weights[f"w{place}"] = value
            names.append(f"w{place}" if f"w{place}" in weights else value or "-")
        outputs = ["output", *(f"other{i}" for i in range(1, self.outputs))]
        made = node(self.op, " ".join(names), " ".join(outputs), **self.attributes)
        return by_hand([made], weights, opset=self.opset, takes=self.shape, gives=None)

    def input(self) -> np.ndarray:
        x = np.random.default_rng(1).normal(size=self.shape).astype(np.float32) * self.scale
        return np.abs(x) + np.float32(0.1) if self.positive else x


def row(op: str, *more: Any, **keywords: Any) -> Row:
    own = ("shape", "opset", "positive", "scale", "outputs")
    known = {key: keywords.pop(key) for key in own if key in keywords}
    return Row(op, more, keywords, **known)


def f(*shape: int, seed: int = 0) -> np.ndarray:
    """A weight of this shape."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def of(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def scalar(value: float, kind: Any = np.float32) -> np.ndarray:
    return np.array(value, kind)


def whole(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


W = f(4, 3, 3, 3)
STATISTICS = (f(3), f(3, seed=1), f(3, seed=2), np.abs(f(3, seed=3)) + 1)
SCALE, SCALES = scalar(0.25), of(1, 1, 2, 2)


def network_of(proto: onnx.ModelProto) -> OnnxNetwork:
    graph = onnx.shape_inference.infer_shapes(proto).graph
    program = read_program(graph, Path("a.onnx"), proto.opset_import[0].version, None)
    return OnnxNetwork(program, "input", "output")
