"""QuantizeLinear and DequantizeLinear, for 8 bits, per tensor and per axis.

A quantised value is held as a whole number in the float type of the pass, so that gradients
flow: rounding passes them straight through (Bengio et al., 2013), where a value is cut off at
the end of the range they are zero.
"""

from collections.abc import Callable
from typing import Any

import onnx
import torch
from torch import Tensor

from export.graph_node import Node

RANGES = {torch.uint8: (0.0, 255.0), torch.int8: (-128.0, 127.0)}
TYPES = {onnx.TensorProto.UINT8: torch.uint8, onnx.TensorProto.INT8: torch.int8}


class Quantize(torch.autograd.Function):
    """round(x / scale) + zero, halves to even, cut off at the ends of the range."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero: Tensor | None, low: float, high: float
    ) -> Tensor:
        steps = (x.float() / scale).round_()  # in bf16 the quotient would be too coarse
        if zero is not None:
            steps.add_(zero)
        ctx.save_for_backward((steps >= low) & (steps <= high), scale)
        return steps.clamp_(low, high).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        inside, scale = ctx.saved_tensors
        return slopes[0].mul(inside).div_(scale), None, None, None, None


class Round(torch.autograd.Function):
    """Halves to even; what a quantised model becomes that was read and exported once more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        return slopes[0]


def quantize(node: Node) -> Callable[..., Tensor]:
    axis = _layout(node)
    node.take("saturate")  # only for 8-bit floats
    low, high = RANGES[_quantized_type(node)]
    shifted = _shifted(node)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        shift = _spread(zero, x, axis) if zero is not None and shifted else None
        steps: Tensor = Quantize.apply(x, _spread(scale, x, axis), shift, low, high)
        return steps

    return run


def dequantize(node: Node) -> Callable[..., Tensor]:
    axis, shifted = _layout(node), _shifted(node)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        steps = x if x.is_floating_point() else x.float()
        if zero is not None and shifted:
            steps = steps - _spread(zero, x, axis)
        return steps * _spread(scale, x, axis)

    return run


def _layout(node: Node) -> int:
    node.only("block_size", 0)
    node.only("precision", 0, onnx.TensorProto.FLOAT)
    return int(node.take("axis", 1))


def _shifted(node: Node) -> bool:
    """Whether there is a zero point other than 0: adding 0 takes as long as adding a number."""
    zero = node.constant(2)
    return node.has(2) and (zero is None or bool(zero.any()))


def _quantized_type(node: Node) -> torch.dtype:
    """The zero point's type; without one `output_dtype`, else uint8."""
    zero, named = node.constant(2), node.take("output_dtype", 0)
    if zero is None and node.has(2):
        raise node.refusal("a computed zero point")
    kind = zero.dtype if zero is not None else TYPES.get(named or onnx.TensorProto.UINT8)
    if kind not in RANGES:
        raise node.refusal(f"quantisation to {kind or named}")
    return kind


def _spread(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """A scale or zero point for the whole of x, or one an index of `axis`, shaped to meet x."""
    if values.numel() == 1:
        return values.float().reshape(())
    sides = [1] * x.dim()
    sides[axis] = -1
    return values.float().reshape(sides)
