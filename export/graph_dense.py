"""The dense layers of an ONNX graph, which become nn.Linear: f is split at the last one."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from export.graph_node import Node


@dataclass(frozen=True)
class Dense:
    """x [N x m] -> x weight^T + bias [N x n]."""

    name: str  # of its weight in the file
    weight: Tensor  # [n x m]
    bias: Tensor | None = None  # [n]
    on_maps: bool = False  # takes and gives maps of one pixel: [N x m x 1 x 1]
    in_rows: bool = False  # takes [m] as [1 x m], as onnxruntime's Gemm does behind a Squeeze


@dataclass(frozen=True)
class Layer:
    """A dense layer in its place as nn.Linear. By name, so that a copied module runs its own."""

    name: str
    on_maps: bool
    in_rows: bool

    def __call__(self, network: nn.Module, x: Tensor) -> Tensor:
        layer = network.get_submodule(self.name)
        x = torch.atleast_2d(x) if self.in_rows else x
        y: Tensor = layer(x.flatten(1)) if self.on_maps else layer(x)
        return y[:, :, None, None] if self.on_maps else y


def as_dense(node: Node, pixels: set[str]) -> Dense | None:
    """The dense layer that a node is: Gemm, MatMul, or Conv on maps of one pixel (`pixels`)."""
    weight, bias = node.constant(1), node.constant(2)
    if weight is None or (bias is None and node.has(2)):
        return None
    name, get = node.inputs[1], node.attributes.get
    if node.op == "MatMul" and weight.dim() == 2:
        dense = Dense(name, weight.T)
    elif node.op == "Gemm" and not get("transA", 0):
        turned = weight if get("transB", 0) else weight.T
        dense = Dense(name, get("alpha", 1.0) * turned, in_rows=True)
        bias = None if bias is None else get("beta", 1.0) * bias
    elif node.op == "Conv" and node.inputs[0] in pixels and _is_point(node, weight):
        dense = Dense(name, weight.flatten(1), on_maps=True)
    else:
        return None
    return dense if bias is None else with_bias(dense, bias)


def with_bias(dense: Any, bias: Tensor | None) -> Dense | None:
    """The layer with this bias, where it is one value an output."""
    if not isinstance(dense, Dense) or dense.bias is not None or bias is None:
        return None
    if bias.numel() != len(dense.weight) or bias.shape[-1:] != dense.weight.shape[:1]:
        return None
    return replace(dense, bias=bias.flatten())


def _is_point(node: Node, weight: Tensor) -> bool:
    """A kernel of one pixel, without padding and groups."""
    alone = node.attributes.get("group", 1) == 1 and not any(node.attributes.get("pads", ()))
    return alone and tuple(weight.shape[2:]) == (1, 1)
