"""The ONNX operators that are known, each as a function from a node to what computes it.

Opsets 11 to 26. Floats are float32, whatever their type in the file; quantised values are held
as float32 whole numbers, so that gradients flow. The ONNX operator reference states the meaning.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.nn import functional

from export import operators_activation as activation
from export import operators_norm as norm
from export import operators_shape as shape
from export import operators_window as window
from export.graph_node import Node
from export.graph_values import FLOATS, WHOLE
from export.operators_quantize import Round, dequantize, quantize

Build = Callable[[Node], Callable[..., Any]]


def build(node: Node) -> Callable[..., Any]:
    """What computes the node. Raises UnusableInput for anything of it that is not known."""
    if node.op not in OPERATORS:
        raise node.refusal("this operator")
    run = OPERATORS[node.op](node)
    unread = sorted(set(node.attributes) - node.read)
    if unread:
        raise node.refusal(f"the attribute {unread[0]}")
    if len(node.outputs) > 1 and node.op != "Split":
        raise node.refusal(f"the output {node.outputs[-1]}")
    return run


def plain(function: Callable[..., Tensor]) -> Build:
    """An operator without attributes."""
    return lambda node: function


def divide(a: Tensor, b: Tensor) -> Tensor:
    """Whole numbers, as in computed shapes, are divided towards zero."""
    whole = not (a.is_floating_point() or b.is_floating_point())
    return torch.div(a, b, rounding_mode="trunc" if whole else None)


def modulo(node: Node) -> Callable[..., Tensor]:
    """With the sign of the divisor, or as C's fmod with that of the dividend."""
    return torch.fmod if node.only("fmod", 0, 1) else torch.remainder


def gemm(node: Node) -> Callable[..., Tensor]:
    alpha, beta = node.take("alpha", 1.0), node.take("beta", 1.0)
    turn_a, turn_b = node.only("transA", 0, 1), node.only("transB", 0, 1)

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a = torch.atleast_2d(a)  # as onnxruntime's does behind a Squeeze
        product = (a.T if turn_a else a) @ (b.T if turn_b else b)
        return alpha * product if c is None else alpha * product + beta * c

    return run


def einsum(node: Node) -> Callable[..., Tensor]:
    """Both name indices by NumPy's rules."""
    equation = node.take("equation")
    return lambda *factors: torch.einsum(equation, *factors)


def dropout(node: Node) -> Callable[..., Tensor]:
    node.take("ratio"), node.take("seed")
    training = node.constant(2)
    if node.has(2) and (training is None or bool(training)):
        raise node.refusal("training_mode")
    return lambda x, *rest: x


def cast(node: Node) -> Callable[..., Tensor]:
    """To whole numbers as it says, which ends the gradient; to a float type what is constant.

    Values of pictures stay float32: onnxruntime on a CPU computes those in halves so too, and
    read_program refuses to compute them in DOUBLE.
    """
    to = node.take("to")
    node.take("saturate"), node.take("round_mode")  # only for 8-bit floats
    if to in FLOATS and node.constant(0) is not None:
        return lambda x: x.to(FLOATS[to]).to(torch.promote_types(FLOATS[to], torch.float32))
    if to in FLOATS:
        return lambda x: x if x.is_floating_point() else x.float()
    if to not in WHOLE:
        raise node.refusal(f"the type {onnx.TensorProto.DataType.Name(to)}")
    return lambda x: x.to(WHOLE[to])


OPERATORS: dict[str, Build] = {
    "Abs": plain(torch.abs),
    "Acos": plain(torch.acos),
    "Add": plain(torch.add),
    "And": plain(torch.logical_and),
    "Asin": plain(torch.asin),
    "Atan": plain(torch.atan),
    "Attention": norm.attention,
    "AveragePool": window.average_pool,
    "BatchNormalization": norm.batch_norm,
    "Cast": cast,
    "Ceil": plain(torch.ceil),
    "Celu": activation.sloped(functional.celu, 1.0),
    "Clip": activation.clip,
    "Concat": shape.concat,
    "ConstantOfShape": shape.constant_of_shape,
    "Conv": window.conv,
    "ConvTranspose": window.conv_transpose,
    "Cos": plain(torch.cos),
    "DepthToSpace": shape.depth_to_space,
    "DequantizeLinear": dequantize,
    "Div": plain(divide),
    "Dropout": dropout,
    "Einsum": einsum,
    "Elu": activation.sloped(functional.elu, 1.0),
    "Equal": plain(torch.eq),
    "Erf": plain(torch.erf),
    "Exp": plain(torch.exp),
    "Expand": plain(shape.expand),
    "Flatten": shape.flatten,
    "Floor": plain(torch.floor),
    "Gather": shape.gather,
    "GatherND": shape.gather_nd,
    "Gelu": activation.gelu,
    "Gemm": gemm,
    "GlobalAveragePool": plain(lambda x: x.mean(dim=(2, 3), keepdim=True)),
    "GlobalMaxPool": plain(lambda x: x.amax(dim=(2, 3), keepdim=True)),
    "Greater": plain(torch.gt),
    "GreaterOrEqual": plain(torch.ge),
    "GroupNormalization": norm.group_norm,
    "HardSigmoid": activation.hard_sigmoid,
    "HardSwish": plain(functional.hardswish),
    "Identity": plain(lambda x: x),
    "InstanceNormalization": norm.instance_norm,
    "IsNaN": plain(torch.isnan),
    "LayerNormalization": norm.layer_norm,
    "LeakyRelu": activation.sloped(functional.leaky_relu, 0.01),
    "Less": plain(torch.lt),
    "LessOrEqual": plain(torch.le),
    "Log": plain(torch.log),
    "LogSoftmax": activation.softmax(torch.log_softmax),
    "LpNormalization": norm.lp_norm,
    "MatMul": plain(torch.matmul),
    "Max": plain(lambda *xs: reduce(torch.maximum, xs)),
    "MaxPool": window.max_pool,
    "Mean": plain(lambda *xs: reduce(torch.add, xs) / len(xs)),
    "Min": plain(lambda *xs: reduce(torch.minimum, xs)),
    "Mish": plain(functional.mish),
    "Mod": modulo,
    "Mul": plain(torch.mul),
    "Neg": plain(torch.neg),
    "Not": plain(torch.logical_not),
    "Or": plain(torch.logical_or),
    "PRelu": plain(lambda x, slope: torch.where(x < 0, slope * x, x)),
    "Pad": window.pad,
    "Pow": plain(torch.pow),
    "QuantizeLinear": quantize,
    "RMSNormalization": norm.rms_norm,
    "Range": plain(shape.numbers),
    "Reciprocal": plain(torch.reciprocal),
    "ReduceL1": shape.reduce(lambda x, **over: x.abs().sum(**over)),
    "ReduceL2": shape.reduce(torch.linalg.vector_norm),
    "ReduceMax": shape.reduce(torch.amax),
    "ReduceMean": shape.reduce(torch.mean),
    "ReduceMin": shape.reduce(torch.amin),
    "ReduceSum": shape.reduce(torch.sum),
    "ReduceSumSquare": shape.reduce(lambda x, **over: x.square().sum(**over)),
    "Relu": plain(torch.relu),
    "Reshape": shape.reshape,
    "Resize": window.resize,
    "Round": plain(Round.apply),
    "Selu": activation.selu,
    "Shape": shape.shape_of,
    "Sigmoid": plain(torch.sigmoid),
    "Sign": plain(torch.sign),
    "Sin": plain(torch.sin),
    "Slice": shape.slice_of,
    "Softmax": activation.softmax(torch.softmax),
    "Softplus": plain(functional.softplus),
    "Softsign": plain(functional.softsign),
    "SpaceToDepth": shape.space_to_depth,
    "Split": shape.split,
    "Sqrt": plain(torch.sqrt),
    "Squeeze": shape.squeeze,
    "Sub": plain(torch.sub),
    "Sum": plain(lambda *xs: reduce(torch.add, xs)),
    "Tan": plain(torch.tan),
    "Tanh": plain(torch.tanh),
    "Tile": plain(shape.tile),
    "Transpose": shape.transpose,
    "Unsqueeze": shape.unsqueeze,
    "Where": plain(torch.where),
}
