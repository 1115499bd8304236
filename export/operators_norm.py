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


def group_norm(node: Node) -> Callable[..., Tensor]:
    """Scale and bias are one a channel, before opset 21 one a group."""
    groups, epsilon = node.take("num_groups"), node.take("epsilon", 1e-5)
    node.only("stash_type", onnx.TensorProto.FLOAT)

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if node.opset < 21:
            each = x.shape[1] // groups
            scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
        return functional.group_norm(x, groups, scale, bias, epsilon)

    return run


def rms_norm(node: Node) -> Callable[..., Tensor]:
    """Over the dimensions from `axis` on, by the root of the mean square alone."""
    axis, epsilon = node.take("axis", -1), node.take("epsilon", 1e-5)
    node.only("stash_type", onnx.TensorProto.FLOAT)
    return lambda x, scale: functional.rms_norm(x, x.shape[axis:], eps=epsilon) * scale


def lp_norm(node: Node) -> Callable[..., Tensor]:
    """To a length of 1 along `axis`; what has no length stays 0."""
    axis, p = node.take("axis", -1), node.only("p", 2, 1)
    return lambda x: functional.normalize(x, p, axis)


def attention(node: Node) -> Callable[..., Tensor]:
    """softmax(Q K^T scale + mask) V of heads, [N x heads x length x features]."""
    scale = node.take("scale")
    node.take("softmax_precision")  # all is computed in float32
    for name in ("is_causal", "q_num_heads", "kv_num_heads", "qk_matmul_output_mode"):
        node.only(name, 0)
    node.only("softcap", 0.0), node.only("left_window_size", -1), node.only("right_window_size", -1)
    if any(node.has(place) for place in (4, 5, 6)):
        raise node.refusal("a past")

    def run(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, mask, scale=scale)

    return run
