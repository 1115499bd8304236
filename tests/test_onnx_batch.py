"""ONNX files in which the batch size, or the other pictures of a batch, reach the answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.graph_batch import check_batch
from export.onnx_in import load_onnx
from export.precision import export_files
from guard.errors import UnusableInput
from tests.conftest import SIDE
from tests.onnx_files import FLOAT, SHAPE, X, answers, by_hand, by_onnxruntime, node, refusal, write
from tests.onnx_rows import network_of

INT8 = onnx.TensorProto.INT8
FIRST = {"zero": np.array([0]), "one": np.array([1])}
COUNTED = [node("Shape", "input", "s"), node("Slice", "s zero one", "n")]  # the batch size [1]


def gated(nodes: Sequence[onnx.NodeProto], **more: Any) -> onnx.ModelProto:
    """A network whose features [N x 3] `nodes` may change: from "d" to "e"; more are constants."""
    weights = {
        "fc": np.arange(6, dtype=np.float32).reshape(3, 2),
        "axes": np.array([2, 3]),
        **FIRST,
    }
    around = [node("ReduceMean", "input axes", "d", keepdims=0), node("Gemm", "e fc", "output")]
    return by_hand([around[0], *nodes, around[1]], {**weights, **more})


def on(op: str, names: str, **attributes: Any) -> onnx.NodeProto:
    return node(op, names, "e", **attributes)


def as_gate(name: str) -> list[onnx.NodeProto]:
    """The features times a value that is 1 or 0."""
    return [node("Cast", name, "gate", to=FLOAT), on("Mul", "d gate")]


def of(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


MIXED = {
    "batch of one": gated([*COUNTED, node("Equal", "n one", "is"), *as_gate("is")]),
    "batch as a factor": gated([*COUNTED, *as_gate("n")]),
    "less than": gated([*COUNTED, node("Less", "n one", "is"), *as_gate("is")]),
    "divided": gated([*COUNTED, node("Div", "one n", "is"), *as_gate("is")]),
    "remainder": gated([*COUNTED, node("Mod", "n two", "is"), *as_gate("is")], two=np.array([2])),
    "minus": gated(
        [*COUNTED, node("Mul", "n less", "m"), node("Equal", "m other", "is"), *as_gate("is")],
        less=np.array([-1]),
        other=np.array([-5]),
    ),
    "wrapped around": gated(
        [*COUNTED, node("Mul", "n large", "m"), node("Equal", "m none", "is"), *as_gate("is")],
        large=np.array([2**62]),
        none=np.array([0]),
    ),
    "wrapped in int8": gated(
        [
            *COUNTED,
            node("Mul", "n half", "m"),
            node("Cast", "m", "c", to=INT8),
            node("Cast", "c", "is", to=onnx.TensorProto.BOOL),
            *as_gate("is"),
        ],
        half=np.array([128]),
    ),
    "bound of a slice": gated(
        [
            *COUNTED,
            node("Slice", "d zero n one", "some"),
            node("ReduceSum", "some one", "sum", keepdims=1),
            on("Mul", "d sum"),
        ]
    ),
    "as many ones": gated(
        [
            *COUNTED,
            node("ConstantOfShape", "n", "ones", value=numpy_helper.from_array(of(1))),
            node("ReduceSum", "ones", "gate"),
            on("Mul", "d gate"),
        ]
    ),
    "mean of the batch": gated([node("ReduceMean", "d zero", "m", keepdims=1), on("Sub", "d m")]),
    "softmax over the batch": gated([on("Softmax", "d", axis=0)]),
    "first of the batch": gated([node("Gather", "d zero", "f"), on("Add", "d f")]),
    "pictures reversed": gated(
        [on("Slice", "d last end zero back")],
        last=np.array([-1]),
        end=np.array([-(2**62)]),
        back=np.array([-1]),
    ),
    "all but the first": gated([on("Slice", "d one end zero")], end=np.array([2**62])),
    "normalised over the batch": gated(
        [on("LayerNormalization", "d scale", axis=0)], scale=of(1, 1, 1)
    ),
    "a small share of the neighbour": gated(
        [
            node("Transpose", "d", "t", perm=[1, 0]),
            node("Unsqueeze", "t axes1", "u"),
            node("Conv", "u kernel", "c", pads=[0, 1, 0, 1], auto_pad="NOTSET"),
            node("Squeeze", "c axes1", "v"),
            on("Transpose", "v", perm=[1, 0]),
        ],
        axes1=np.array([0, 1]),
        kernel=of(0, 1, 1e-12).reshape(1, 1, 1, 3),
    ),
    "pictures moved": gated(
        [
            node("Pad", "d pads", "p"),
            on("Slice", "p zero last zero"),
        ],
        pads=np.array([1, 0, 0, 0]),
        last=np.array([-1]),
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_a_graph_whose_answers_could_depend_on_the_batch_is_refused(
    name: str, tmp_path: Path
) -> None:
    line = refusal(write(MIXED[name], tmp_path))
    assert ": node " in line
    assert "batch" in line or "not [N x outputs]" in line


TAKEN = {
    "batch in a shape": gated(
        [*COUNTED, node("Concat", "n rest", "to", axis=0), on("Reshape", "d to")],
        rest=np.array([-1]),
    ),
    "a token for each picture": gated(
        [
            *COUNTED,
            node("Concat", "n rest", "to", axis=0),
            node("Shape", "to", "rank"),
            node("ConstantOfShape", "rank", "ones", value=numpy_helper.from_array(np.array([1]))),
            node("Mul", "ones less", "kept"),
            node("Equal", "to kept", "is"),
            node("Where", "is ones to", "sides"),
            node("Expand", "token sides", "t"),
            on("Add", "d t"),
        ],
        rest=np.array([-1]),
        less=np.array(-1),
        token=of(1, 2, 3).reshape(1, 3),
    ),
    "height as a number": gated(
        [
            node("Shape", "input", "s"),
            node("Slice", "s two three", "h"),
            node("Cast", "h", "f", to=FLOAT),
            on("Div", "d f"),
        ],
        two=np.array([2]),
        three=np.array([3]),
    ),
    "zeros for each picture": gated(
        [
            *COUNTED,
            node("Concat", "n three", "sides", axis=0),
            node("ConstantOfShape", "sides", "none"),
            on("Add", "d none"),
        ],
        three=np.array([3]),
    ),
    "a token repeated": gated(
        [
            *COUNTED,
            node("Concat", "n one", "times", axis=0),
            node("Tile", "token times", "t"),
            on("Add", "d t"),
        ],
        token=of(1, 2, 3).reshape(1, 3),
    ),
    "pictures within rows": gated(
        [
            node("Transpose", "d", "t", perm=[1, 0]),
            node("Reshape", "t flat", "u"),
            node("Tanh", "u", "v"),
            node("Reshape", "v back", "w"),
            on("Transpose", "w", perm=[1, 0]),
        ],
        flat=np.array([-1]),
        back=np.array([3, -1]),
    ),
    "two crops in one batch": gated(
        [
            node("Mul", "d k", "d2"),
            node("Concat", "d d2", "both", axis=0),
            node("Tanh", "both", "t"),
            node("Split", "t", "t1 t2", axis=0, num_outputs=2),
            on("Add", "t1 t2"),
        ],
        k=of(0.5),
    ),
    "a squeeze of whatever is one": gated([node("Unsqueeze", "d axes", "u"), on("Squeeze", "u")]),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_graph_that_takes_the_batch_size_as_a_shape_is_read_and_exported_again(
    name: str, tmp_path: Path
) -> None:
    proto = TAKEN[name]
    model = load_onnx(write(proto, tmp_path))
    again = load_onnx(export_files(model, tmp_path / "again.onnx")[0])
    for count in (1, 5):
        theirs = by_onnxruntime(proto, X[:count].numpy())
        np.testing.assert_allclose(answers(model, X[:count]), theirs, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(answers(again, X[:count]), theirs, rtol=1e-4, atol=1e-5)


def test_a_squeeze_that_takes_the_fixed_batch_away_is_named(tmp_path: Path) -> None:
    nodes = [
        node("ReduceMean", "input axes", "c"),
        node("Squeeze", "c", "d"),
        node("MatMul", "d fc", "output"),
    ]
    weights = {"axes": np.array([2, 3]), "fc": np.ones((3, 2), np.float32)}
    proto = by_hand(nodes, weights, takes=(1, *SHAPE[1:]), gives=(2,))
    line = refusal(write(proto, tmp_path))
    assert "gives a tensor [2] for one image" in line
    assert "batch is fixed to 1" in line


def test_the_pictures_are_apart_by_their_kind() -> None:
    """Of conditions too, where no NaN tells: a picture's place is taken by another's."""
    nodes = [
        node("Greater", "input low", "over"),
        node("Slice", "over last end zero back", "turned"),
        node("Where", "turned input low", "picked"),
        node("ReduceMean", "picked axes", "output", keepdims=0),
    ]
    ends = {"last": -1, "end": -(2**62), "back": -1, "zero": 0}
    weights = {name: np.array([value]) for name, value in ends.items()}
    weights |= {"low": of(0), "axes": np.array([2, 3])}
    network = network_of(by_hand(nodes, weights, takes=SHAPE, gives=("n", 3)))
    with pytest.raises(UnusableInput, match="mixes the pictures"):
        check_batch(network, (SIDE, SIDE))
