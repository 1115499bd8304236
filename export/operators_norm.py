"""ONNX operators that bring values to a mean of 0 and a variance of 1, then scale and move them."""

from collections.abc import Callable

import onnx
from torch import Tensor
from torch.nn import functional

from export.graph_node import Node


def batch_norm(node: Node) -> Callable[..., Tensor]:
    """Inference form: the statistics are those of the file, also while weights are tuned."""
    epsilon = node.take("epsilon", 1e-5)
    node.take("momentum")  # only for training
    node.only("training_mode", 0)

    def run(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return functional.batch_norm(x, mean, var, scale, bias, False, 0.0, epsilon)

    return run


def layer_norm(node: Node) -> Callable[..., Tensor]:
    """Over the dimensions from `axis` on."""
    axis, epsilon = node.take("axis", -1), node.take("epsilon", 1e-5)
    node.only("stash_type", onnx.TensorProto.FLOAT)  # all is computed in float32

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        normed = functional.layer_norm(x, x.shape[axis:], eps=epsilon) * scale
        return normed if bias is None else normed + bias

    return run


def instance_norm(node: Node) -> Callable[..., Tensor]:
    epsilon = node.take("epsilon", 1e-5)
    return lambda x, scale, bias: functional.instance_norm(x, None, None, scale, bias, eps=epsilon)
