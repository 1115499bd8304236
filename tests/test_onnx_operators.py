"""Every operator with its attributes, against onnxruntime."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from export.operators import OPERATORS, divide
from tests.onnx_files import FLOAT, by_hand, by_onnxruntime, node
from tests.onnx_rows import (
    PICTURE,
    SCALES,
    STATISTICS,
    Row,
    W,
    f,
    network_of,
    of,
    row,
    scalar,
    whole,
)

INFINITY = float("inf")
B = f(4)
WINDOW = {"kernel_shape": [3, 3], "strides": [2, 2]}
SIZES = whole(2, 3, 5, 13)
SAME = ("SAME_UPPER", "SAME_LOWER")

ROWS = [
    *(row(op) for op in ("Abs", "Erf", "Exp", "HardSwish", "Identity", "Neg", "Relu", "Sigmoid")),
    *(row(op) for op in ("Softplus", "Tanh", "HardSigmoid", "LeakyRelu", "Elu", "Reciprocal")),
    *(row(op) for op in ("Round", "Floor", "Ceil", "Sign", "IsNaN", "Sin", "Cos", "Atan")),
    *(row(op, scale=0.2) for op in ("Asin", "Acos", "Tan")),
    *(row(op, f(3, 1, 1)) for op in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    row("Equal", "input"),
    row("Mod", of(0.7), fmod=1),
    *(row(op, positive=True) for op in ("Log", "Sqrt")),
    *(row(op, f(3, 1, 1)) for op in ("Add", "Sub", "Mul", "Div", "Min", "Max", "PRelu")),
    *(row(op, "input", f(8)) for op in ("Min", "Max", "Sum")),
    row("Add", "input"),
    row("Max"),
    row("HardSigmoid", alpha=0.1, beta=0.6),
    row("LeakyRelu", alpha=0.3),
    row("Elu", alpha=0.5),
    row("PRelu", of(0.2)),
    row("Gelu", opset=20),
    row("Gelu", opset=20, approximate="tanh"),
    *(row(op) for op in ("Mish", "Selu", "Celu", "Softsign", "LogSoftmax", "ReduceL1")),
    row("Selu", alpha=1.5, gamma=0.7),
    row("Celu", alpha=0.4),
    row("LogSoftmax", opset=12, axis=2),
    row("LogSoftmax", axis=1),
    *(row("Mean", *more) for more in ((), (f(8), "input"))),
    row("Pow", scalar(2.0)),
    row("Pow", scalar(3, np.int64)),
    row("Pow", scalar(0.5), positive=True),
    row("Clip"),
    row("Clip", scalar(-0.5)),
    row("Clip", None, scalar(0.5)),
    row("Clip", scalar(0), scalar(6), opset=11),
    row("Clip", scalar(-INFINITY), scalar(1)),
    row("Dropout", opset=11, ratio=0.3),
    row("Dropout", scalar(0.5), opset=13),
    row("Dropout", scalar(0.5), scalar(False, np.bool_), opset=13, seed=3),
    row("Softmax"),
    row("Softmax", axis=1),
    row("Softmax", opset=11),
    row("Softmax", opset=12, axis=2),
    row("LayerNormalization", f(8), f(8)),
    row("LayerNormalization", f(9, 8), axis=2, epsilon=0.1, opset=17),
    row("LayerNormalization", f(3, 9, 8), f(3, 9, 8), axis=-3),
    row("InstanceNormalization", f(3), f(3, seed=1)),
    row("InstanceNormalization", f(3), f(3, seed=1), epsilon=0.1, shape=(2, 3, 8), opset=11),
    row("BatchNormalization", *STATISTICS),
    row("BatchNormalization", *STATISTICS, epsilon=0.1, momentum=0.5, opset=11),
    row("BatchNormalization", *STATISTICS, training_mode=0, opset=15, shape=(4, 3)),
    row("GroupNormalization", f(4), f(4, seed=1), num_groups=2, shape=(2, 4, 9, 8), opset=21),
    row("GroupNormalization", f(2), f(2, seed=1), num_groups=2, shape=(2, 4, 9, 8), epsilon=0.1),
    row("RMSNormalization", f(8), opset=23),
    row("RMSNormalization", f(9, 8), axis=2, epsilon=0.1, opset=23),
    *(row("LpNormalization", axis=axis, p=p) for axis, p in ((-1, 2), (1, 1))),
    row("Attention", "input", "input", opset=23),
    row("Attention", f(2, 3, 7, 8), f(2, 3, 7, 5), f(1, 1, 9, 7), scale=0.2, opset=24),
    # Convolution
    row("Conv", W),
    row("Conv", W, B, kernel_shape=[3, 3], strides=[2, 1], dilations=[1, 2], pads=[1, 2, 1, 2]),
    row("Conv", W, B, pads=[0, 1, 2, 0], auto_pad="NOTSET"),
    *(row("Conv", W, B, auto_pad=auto, strides=[2, 2]) for auto in SAME),
    *(row("Conv", f(4, 3, 2, 4), auto_pad=auto) for auto in SAME),
    row("Conv", W, B, auto_pad="VALID", strides=[1, 2]),
    row("Conv", f(6, 1, 3, 3), group=3, pads=[1, 1, 1, 1]),
    row("Conv", f(4, 3, 1, 1), B, opset=11),
    row("Conv", W, B, opset=22, pads=[1, 1, 1, 1]),
    row("ConvTranspose", f(3, 4, 3, 3), B),
    row("ConvTranspose", f(3, 2, 3, 2), strides=[2, 3], output_padding=[1, 2], pads=[1, 0, 0, 1]),
    row("ConvTranspose", f(3, 1, 3, 3), f(3), group=3, dilations=[2, 1], kernel_shape=[3, 3]),
    row("Einsum", f(8, 5), equation="ncij, jk -> ncik"),
    row("Einsum", f(4, 3, 9, 8), equation="nchw,kchw->nk"),
    row("Einsum", "input", equation="...ij,...kj", opset=12),
    row("Einsum", equation="nc...->...cn", shape=(2, 3, 4, 5), opset=14),
    # Pooling
    row("MaxPool", **WINDOW),
    row("MaxPool", **WINDOW, ceil_mode=1, storage_order=1),
    row("MaxPool", **WINDOW, pads=[1, 1, 1, 1], ceil_mode=1),
    row("MaxPool", **WINDOW, pads=[0, 1, 2, 1]),
    row("MaxPool", **WINDOW, pads=[2, 2, 2, 2]),
    row("MaxPool", kernel_shape=[2, 3], dilations=[2, 2]),
    row("MaxPool", kernel_shape=[2, 2], opset=11),
    *(row("MaxPool", **WINDOW, auto_pad=auto) for auto in (*SAME, "VALID")),
    *(
        row("AveragePool", **WINDOW, count_include_pad=counted, **more)
        for counted in (0, 1)
        for more in (
            {},
            {"pads": [1, 1, 1, 1]},
            {"pads": [0, 1, 1, 0]},
            {"pads": [2, 2, 2, 2]},
            {"auto_pad": "SAME_UPPER"},
            {"auto_pad": "SAME_LOWER"},
            {"auto_pad": "VALID"},
            {"ceil_mode": 1},
            {"ceil_mode": 1, "pads": [1, 1, 1, 1]},
        )
    ),
    row("AveragePool", kernel_shape=[2, 2], opset=11),
    row("AveragePool", kernel_shape=[2, 2], opset=19, dilations=[1, 1]),
    row("GlobalAveragePool"),
    row("GlobalMaxPool"),
    row("ReduceMean", axes=[2, 3], opset=13),
    row("ReduceMean", axes=[-1], keepdims=0, opset=11),
    row("ReduceMean", opset=13),
    row("ReduceMean", whole(2, 3)),
    row("ReduceMean", whole(1, -1), keepdims=0),
    row("ReduceMean", keepdims=0),
    row("ReduceMean", whole(), noop_with_empty_axes=1),
    row("ReduceSum", axes=[1], keepdims=0, opset=11),
    row("ReduceSum", whole(1), opset=13),
    *(row(op, whole(-1, 2), keepdims=0) for op in ("ReduceL2", "ReduceMax", "ReduceMin")),
    *(row(op, axes=[1], opset=13) for op in ("ReduceL2", "ReduceMax", "ReduceMin")),
    *(row(op, axes=[1], opset=13) for op in ("ReduceL1", "ReduceSumSquare")),
    *(row(op, whole(-1, 2), keepdims=0) for op in ("ReduceL1", "ReduceSumSquare")),
    # Dense
    row("Gemm", f(5, 4), shape=(2, 5)),
    row("Gemm", f(4, 5), f(4), transB=1, alpha=0.5, beta=2.0, shape=(2, 5)),
    row("Gemm", f(5, 4), f(1, 4), beta=0.5, shape=(2, 5), opset=11),
    row("Gemm", f(5, 4), scalar(0.7), shape=(2, 5)),
    row("Gemm", f(5, 4), f(3, 1), alpha=2.0, transA=1, shape=(5, 3)),
    row("Gemm", "input", transB=1, alpha=0.3, shape=(2, 5)),
    row("MatMul", f(8, 4)),
    row("MatMul", f(5, 4), shape=(2, 5)),
    row("MatMul", f(2, 3, 8, 4)),
    # Rearranging
    row("Concat", "input", f(2, 2, 9, 8), axis=1),
    row("Concat", "input", axis=-1),
    *(row("Flatten", axis=axis) for axis in (0, 1, 2, 4, -1)),
    row("Flatten", opset=11),
    row("Reshape", whole(2, -1)),
    row("Reshape", whole(0, 3, 0, -1)),
    row("Reshape", whole(-1, 24), allowzero=1),
    row("Expand", whole(4, 2, 1, 9, 8)),
    row("Expand", whole(3, 1, 8), shape=(2, 1, 9, 1)),
    row("Transpose", perm=[0, 2, 3, 1]),
    row("Transpose"),
    row("Squeeze", axes=[2, 3], shape=(2, 3, 1, 1), opset=11),
    row("Squeeze", whole(-1, 2), shape=(2, 3, 1, 1)),
    row("Squeeze", shape=(2, 3, 1, 1)),
    row("Unsqueeze", axes=[0, 3], shape=(2, 3), opset=11),
    row("Unsqueeze", whole(-1, 1), shape=(2, 3)),
    row("Gather", whole(2, 0, -1), axis=1),
    row("Gather", scalar(1, np.int64), axis=-1),
    row("Gather", scalar(-1, np.int64), shape=(4,)),
    row("Gather", np.array([[0, 1], [1, 0]], np.int32)),
    row("GatherND", np.array([[0, 1, 8], [-1, 0, 2]])),
    row("GatherND", np.array([[[1], [0]], [[0], [0]]])),
    row("Tile", whole(1, 2, 1, 3)),
    *(row("DepthToSpace", blocksize=2, shape=(2, 12, 3, 2), mode=m) for m in ("DCR", "CRD")),
    row("DepthToSpace", blocksize=3, shape=(2, 18, 3, 2), opset=11),
    row("SpaceToDepth", blocksize=2, shape=(2, 3, 4, 6)),
    row("Range", scalar(6.0), scalar(1.5), shape=(1,), positive=True),
    row("Slice", whole(1), whole(3)),
    row("Slice", whole(2), whole(-9), whole(1), whole(-1)),
    row("Slice", whole(1, -5), whole(2**62, -1), whole(2, 3), whole(3, 2)),
    row("Slice", whole(-1), whole(-(2**63)), whole(3), whole(-2)),
    row("Split", axis=1, split=[1, 2], outputs=2, opset=11),
    row("Split", whole(4, 5), axis=2, outputs=2, opset=13),
    row("Split", axis=2, num_outputs=2, outputs=2),
    row("Split", axis=3, outputs=2, opset=13),
    row("Shape"),
    row("Shape", start=1, end=-1, opset=15),
    *(row("Cast", to=kind) for kind in (FLOAT, onnx.TensorProto.DOUBLE)),
    *(row("Cast", to=kind) for kind in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)),
    row("Cast", to=onnx.TensorProto.FLOAT16),
    row("Cast", to=onnx.TensorProto.BOOL),
    row("Pad", whole(0, 0, 1, 2, 0, 0, 3, 0)),
    row("Pad", whole(0, 1, 0, 0, 0, 0, 0, -1), scalar(0.5), opset=11),
    row("Pad", whole(1, 2, 3, 0), scalar(-1), whole(2, -1)),
    row("Pad", whole(0, 0, 1, 2, 0, 0, 3, 0), mode="reflect"),
    row("Pad", whole(0, 0, 1, 2, 0, 0, 3, 0), mode="edge", opset=13),
    row("Pad", whole(0, 0, 1, 2, 0, 0, 3, 0), mode="wrap", opset=19),
    # Resizing
    *(
        row("Resize", None, SCALES, None, **modes)
        for modes in (
            {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
            {"nearest_mode": "round_prefer_ceil"},
            {"mode": "linear"},
            {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
            {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
            {"mode": "cubic"},
            {"mode": "cubic", "coordinate_transformation_mode": "pytorch_half_pixel"},
            {"mode": "cubic", "coordinate_transformation_mode": "align_corners"},
        )
    ),
    row("Resize", None, None, SIZES, mode="linear"),
    row("Resize", None, None, SIZES, nearest_mode="round_prefer_ceil"),
    row("Resize", None, None, SIZES, mode="cubic"),
    row("Resize", of(), of(), SIZES, mode="linear", opset=11),
    row("Resize", None, of(1, 1, 0.6, 1.7), mode="linear"),
    row("Resize", None, of(2, 2), axes=[2, 3], mode="linear", antialias=0),
]


@pytest.mark.parametrize("made", ROWS, ids=str)
def test_an_operator_gives_what_onnxruntime_gives(made: Row) -> None:
    x = made.input()
    theirs = by_onnxruntime(made.proto(), x)
    with torch.no_grad():
        ours = network_of(made.proto())(torch.from_numpy(x)).numpy()
    assert ours.shape == theirs.shape
    half = theirs.dtype == np.float16
    np.testing.assert_allclose(ours, theirs, rtol=1e-3 if half else 1e-5, atol=5e-6)


@pytest.mark.parametrize("both", ["And", "Or"])
@pytest.mark.parametrize("kind", [np.float32, None])
def test_a_choice_by_conditions_is_that_of_onnxruntime(both: str, kind: Any) -> None:
    """Conditions, and a constant of the input's shape; None: the zeros that are the default."""
    value = {} if kind is None else {"value": numpy_helper.from_array(np.array([0.7], kind))}
    nodes = [
        node("Greater", "input low", "over"),
        node("Less", "input high", "under"),
        node(both, "over under", "both"),
        node("Not", "both", "outside"),
        node("Shape", "input", "shape"),
        node("ConstantOfShape", "shape", "whole", **value),
        node("Cast", "whole", "constant", to=FLOAT),
        node("Where", "outside input constant", "output"),
    ]
    proto = by_hand(nodes, {"low": of(-0.5), "high": of(0.9)}, takes=PICTURE, gives=None)
    x = row("Relu").input()
    ours = network_of(proto)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, by_onnxruntime(proto, x), rtol=1e-6)


@pytest.mark.parametrize(("kind", "value"), [(onnx.TensorProto.DOUBLE, 1e12), (FLOAT, 1e4)])
def test_constants_are_computed_in_the_type_that_the_file_says(kind: int, value: float) -> None:
    """Of 0.7 nothing is left beside 1e12 in float32, all in DOUBLE; a half rounds it."""
    nodes = [
        node("Cast", "small", "a", to=kind),
        node("Cast", "large", "b", to=kind),
        node("Add", "a b", "c"),
        node("Sub", "c b", "d"),
        node("Cast", "d", "e", to=onnx.TensorProto.FLOAT16),
        node("Cast", "e", "f", to=FLOAT),
        node("Mul", "input f", "output"),
    ]
    proto = by_hand(nodes, {"small": of(0.7), "large": of(value)}, takes=PICTURE, gives=None)
    x = row("Relu").input()
    ours = network_of(proto)(torch.from_numpy(x))
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours.numpy(), by_onnxruntime(proto, x), rtol=1e-6)


def test_every_operator_has_its_row() -> None:
    elsewhere = {"QuantizeLinear", "DequantizeLinear"}
    elsewhere |= {"Where", "And", "Or", "Not", "ConstantOfShape"}  # above
    assert {made.op for made in ROWS} | elsewhere == set(OPERATORS)


STEPPED = {"Range", "Shape", "Floor", "Ceil", "Sign", "IsNaN", "Equal"}
STEPPED |= {"Greater", "GreaterOrEqual", "Less", "LessOrEqual"}


def smooth(made: Row) -> bool:
    """Whether the output is a float that changes with the input."""
    kinds = (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL)
    return made.op not in STEPPED and made.attributes.get("to") not in kinds


@pytest.mark.parametrize("made", [made for made in ROWS if smooth(made)], ids=str)
def test_an_operator_passes_gradients_to_the_input(made: Row) -> None:
    x = torch.from_numpy(made.input()).requires_grad_()
    y = network_of(made.proto())(x)
    (slope,) = torch.autograd.grad((y * torch.arange(1, y.numel() + 1).view(y.shape)).sum(), x)
    assert bool(torch.isfinite(slope).all())
    assert float(slope.abs().sum()) > 0


def test_whole_numbers_are_divided_towards_zero() -> None:
    """As onnxruntime does with computed shapes."""
    assert divide(torch.tensor([-7, 7]), torch.tensor([2, 2])).tolist() == [-3, 3]


def test_a_zero_in_a_shape_may_be_meant() -> None:
    made = row("Reshape", whole(3, 0), shape=(0, 3), allowzero=1)
    assert network_of(made.proto())(torch.zeros(0, 3)).shape == (3, 0)
