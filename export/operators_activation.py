"""ONNX operators on single values, and softmax, that read attributes."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from export.graph_node import Node

Build = Callable[[Node], Callable[..., Tensor]]


def sloped(function: Callable[..., Tensor], default: float) -> Build:
    """What takes the attribute `alpha` behind x."""

    def build(node: Node) -> Callable[..., Tensor]:
        alpha = node.take("alpha", default)
        return lambda x: function(x, alpha)

    return build


def selu(node: Node) -> Callable[..., Tensor]:
    alpha, gamma = node.take("alpha", 1.6732632), node.take("gamma", 1.0507010)
    return lambda x: gamma * functional.elu(x, alpha)


def clip(node: Node) -> Callable[..., Tensor]:
    def run(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        bounds = [None if bound is None else bound.item() for bound in (low, high)]
        return x if bounds == [None, None] else torch.clamp(x, *bounds)

    return run


def hard_sigmoid(node: Node) -> Callable[..., Tensor]:
    alpha, beta = node.take("alpha", 0.2), node.take("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0, 1)


def gelu(node: Node) -> Callable[..., Tensor]:
    approximate = node.only("approximate", "none", "tanh")
    return lambda x: functional.gelu(x, approximate=approximate)


def softmax(function: Callable[..., Tensor]) -> Build:
    """Before opset 13 over all dimensions from `axis` on, since then over that one alone."""

    def build(node: Node) -> Callable[..., Tensor]:
        axis = node.take("axis", -1 if node.opset >= 13 else 1)
        if node.opset >= 13:
            return lambda x: function(x, axis)
        return lambda x: function(x.flatten(axis), -1).reshape(x.shape)

    return build
