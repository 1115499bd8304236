"""ONNX files that are refused as MODEL, each in one line that names the file."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.operators import OPERATORS
from tests.conftest import SIDE
from tests.onnx_files import (
    FLOAT,
    SHAPE,
    UINT8,
    as_int8,
    by_hand,
    changed,
    initializer,
    node,
    refusal,
    set_node,
    set_opset,
    set_weight,
    small,
    with_convolution_at_the_end,
    write,
)


def foreign(proto: onnx.ModelProto) -> None:
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    proto.graph.node[2].op_type, proto.graph.node[2].domain = "FastGelu", "com.microsoft"


def second_output(proto: onnx.ModelProto) -> None:
    proto.graph.output.append(helper.make_tensor_value_info("f", FLOAT, ["n", 2]))


def second_input(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("other", FLOAT, SHAPE))


def constant_output(proto: onnx.ModelProto) -> None:
    proto.graph.node[-1].CopyFrom(node("Identity", "fc.weight", "output"))


def unconnected(proto: onnx.ModelProto) -> None:
    proto.graph.node[2].input[0] = "nothing"


def circular(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "c"


def impossible_weight(proto: onnx.ModelProto) -> None:
    """A scale for each of 5 channels of a weight that has 4; no shape tells of it."""
    scale = numpy_helper.from_array(np.ones(5, np.float32), "scale")
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.int8), "whole")
    proto.graph.initializer.extend([scale, weight])
    proto.graph.node[0].input[1] = "w"
    proto.graph.node.insert(0, node("DequantizeLinear", "whole scale", "w", axis=0))


def impossible_split(proto: onnx.ModelProto) -> None:
    """Four values into three equal parts, which makes two: onnx.checker lets it pass."""
    proto.graph.node.insert(0, node("Concat", "one two three", "bias", axis=0))
    proto.graph.node.insert(0, node("Split", "conv.bias", "one two three", num_outputs=3))
    proto.graph.node[2].input[2] = "bias"


def longer_than_its_shape(proto: onnx.ModelProto) -> None:
    initializer(proto, "conv.weight").raw_data += b"\0" * 8


def huge_constant(proto: onnx.ModelProto) -> None:
    """128 GiB, of which onnx.checker says nothing."""
    shape = numpy_helper.from_array(np.array([2**33, 4]), "shape")
    proto.graph.initializer.append(shape)
    proto.graph.node.insert(0, node("ReduceMean", "large", "bias", axes=[0], keepdims=0))
    proto.graph.node.insert(0, node("Expand", "conv.bias shape", "large"))
    proto.opset_import[0].version = 13
    proto.graph.node[2].input[2] = "bias"


def whole_outputs(proto: onnx.ModelProto) -> None:
    proto.graph.node[-1].output[0] = "y"
    proto.graph.node.append(node("Cast", "y", "output", to=TensorProto.INT64))
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64


def no_gradient(proto: onnx.ModelProto) -> None:
    proto.graph.node[-1].output[0] = "y"
    proto.graph.node.append(node("Cast", "y", "z", to=TensorProto.INT64))
    proto.graph.node.append(node("Cast", "z", "output", to=FLOAT))


def in_double(proto: onnx.ModelProto) -> None:
    """In float32 nothing would be left of the features, in DOUBLE they come through."""
    large = numpy_helper.from_array(np.array(1e12), "large")
    proto.graph.initializer.append(large)
    proto.graph.node[2].output[0] = "r"
    for place, made in enumerate(
        (
            node("Cast", "r", "d0", to=TensorProto.DOUBLE),
            node("Add", "d0 large", "d1"),
            node("Sub", "d1 large", "d2"),
            node("Cast", "d2", "c", to=FLOAT),
        )
    ):
        proto.graph.node.insert(3 + place, made)


def in_a_branch(proto: onnx.ModelProto) -> None:
    """Of an If: inside, a value of the graph around it is taken."""
    made = helper.make_empty_tensor_value_info
    branches = {
        f"{name}_branch": helper.make_graph([node("Identity", "b", name)], name, [], [made(name)])
        for name in ("then", "else")
    }
    always = numpy_helper.from_array(np.array(True), "always")
    proto.graph.initializer.append(always)
    proto.graph.node[2].CopyFrom(node("If", "always", "c", **branches))


def control_letters(proto: onnx.ModelProto) -> None:
    proto.graph.node[2].name = "\x1b[31mred\nline"
    proto.graph.node[2].op_type = "Sinh"


NOT_NUMBERS = np.array([1, math.nan, 1, 1], np.float32)
INFINITE = np.array([1, math.inf, 1, 1], np.float32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_node(2, op_type="Sinh"), ("Relu_to_c (Sinh)", "not supported")),
        (control_letters, ("red", "(Sinh)")),
        (foreign, ("com.microsoft.FastGelu",)),
        (set_opset(10), ("opset 10", "11", "26")),
        (set_opset(27), ("opset 27",)),
        (set_weight("conv.bias", NOT_NUMBERS), ("NaN", "conv_bias")),
        (set_weight("bn.var", INFINITE), ("infinite", "bn_var")),
        (set_weight("conv.bias", np.ones(4, np.float64)), ("not a valid",)),
        (set_weight("conv.weight", np.ones((4, 2, 3, 3), np.float32)), ("model.onnx",)),
        (set_weight("fc.weight", np.ones((16, 3), np.float32)), ("model.onnx",)),
        (second_input, ("2 inputs",)),
        (second_output, ("2 outputs", "torch.cat")),
        (constant_output, ("does not depend",)),
        (unconnected, ("not a valid",)),
        (circular, ("not a valid",)),
        (impossible_weight, ("DequantizeLinear_to_w", "fails")),
        (impossible_split, ("Split_to_one", "2 of 3 outputs")),
        (longer_than_its_shape, ("conv.weight", "do not fit its shape")),
        (huge_constant, ("Expand_to_large", "more than")),
        (whole_outputs, ("INT64", "not floats")),
        (no_gradient, ("no gradient", "whole numbers")),
        (in_double, ("Cast_to_d0", "DOUBLE")),
        (in_a_branch, ("If_to_c (If)", "not supported")),
    ],
    ids=lambda value: getattr(value, "__name__", "-"),
)
def test_graphs_that_can_not_be_taken_are_refused(
    change: Callable[[onnx.ModelProto], None], words: tuple[str, ...], tmp_path: Path
) -> None:
    line = refusal(write(changed(change), tmp_path))
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("takes", "kinds", "word"),
    [
        (("n", 1, SIDE, SIDE), (FLOAT, FLOAT), "expected floats"),
        (("n", SIDE, SIDE, 3), (FLOAT, FLOAT), "--inputs-as-nchw"),
        ((3, SIDE, SIDE), (FLOAT, FLOAT), "expected floats"),
        (SHAPE, (UINT8, FLOAT), "expected floats"),
        (SHAPE, (TensorProto.INT32, FLOAT), "expected floats"),
        (("n", 3, 20, 20), (FLOAT, FLOAT), "20 x 20"),
    ],
)
def test_inputs_of_another_form_are_refused(
    takes: Any, kinds: tuple[int, int], word: str, tmp_path: Path
) -> None:
    nodes = [
        node("Cast", "input", "a", to=FLOAT),
        node("ReduceMean", "a", "b", axes=[2, 3], keepdims=0),
        node("Gemm", "b w", "output"),
    ]
    if len(takes) == 3:
        nodes[1] = node("ReduceMean", "a", "b", axes=[2], keepdims=0)
    channels = {1: 1, SIDE: SIDE}.get(takes[1], 3) if len(takes) == 4 else SIDE
    weights = {"w": np.ones((channels, 2), np.float32)}
    proto = by_hand(nodes, weights, opset=13, takes=takes, kinds=kinds, gives=("n", "d"))
    assert word in refusal(write(proto, tmp_path))


@pytest.mark.parametrize("content", [b"", b"junk, no model at all\n" * 9, b"PK\x03\x04", b"\x08"])
def test_rubbish_is_refused(content: bytes, tmp_path: Path) -> None:
    path = write(small(), tmp_path)
    path.write_bytes(content)
    refusal(path)


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = write(small(), tmp_path)
    path.write_bytes(path.read_bytes().replace(b"Relu_to_c", b"Relu_to_\xff"))
    assert "UTF-8" in refusal(path)


@pytest.mark.parametrize("lost", [3, 200, 1000])
def test_a_cut_off_file_is_refused(lost: int, tmp_path: Path) -> None:
    path = write(small(), tmp_path)
    path.write_bytes(path.read_bytes()[:-lost])
    refusal(path)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    assert "no such" in refusal(tmp_path / "model.onnx")
    (tmp_path / "folder.onnx").mkdir()
    assert "no such" in refusal(tmp_path / "folder.onnx")


@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.INT16, TensorProto.UINT64])
def test_values_of_unknown_types_are_named(kind: int, tmp_path: Path) -> None:
    proto = small()
    proto.graph.initializer.append(helper.make_tensor("odd", kind, [2], [1, 2]))
    line = refusal(write(proto, tmp_path))
    assert "odd" in line
    assert TensorProto.DataType.Name(kind) in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ("metadata", "JSON")),
        ("[1]", ("metadata",)),
        ("{}", ("task", "missing")),
        ('{"task": "gaze", "outputs": ["pitch", "yaw"], "units": "rad"}', ("input", "missing")),
    ],
)
def test_metadata_that_do_not_tell_are_refused(
    text: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    proto = small()
    helper.set_model_props(proto, {"drmguard": text})
    line = refusal(write(proto, tmp_path, None))
    for word in words:
        assert word in line


def test_a_missing_spec_is_named(tmp_path: Path) -> None:
    assert "model.json" in refusal(write(small(), tmp_path, None))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"task": "steering"}, "steering"),
        ({"task": "headpose", "outputs": ["yaw", "pitch", "roll"]}, "3 outputs"),
        ({"input": {"size": [24, 24]}}, "24"),
    ],
)
def test_a_spec_that_does_not_fit_the_graph_is_refused(
    changes: dict[str, Any], word: str, tmp_path: Path
) -> None:
    assert word in refusal(write(small(), tmp_path, **changes))


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_module_that_computes_something_else_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong reading of one operator must not pass as the file."""
    proto = with_convolution_at_the_end(on_one_pixel=False)
    path = write(proto if kind == "float32" else as_int8(proto, tmp_path), tmp_path)
    share = {"float32": 1.001, "int8": 1.5}[kind]
    wrong = {"GlobalAveragePool": lambda made: lambda x: share * x.mean(dim=(2, 3), keepdim=True)}
    monkeypatch.setattr("export.operators.OPERATORS", OPERATORS | wrong)
    assert "onnxruntime" in refusal(path)


def test_outputs_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """On a black picture, 0 / 0 on both sides: nothing is proved by that."""
    nodes = [
        node("ReduceMean", "input", "a", axes=[2, 3], keepdims=0),
        node("Div", "a a", "b"),
        node("Gemm", "b w", "output"),
    ]
    weights = {"w": np.ones((3, 2), np.float32)}
    assert "NaN" in refusal(write(by_hand(nodes, weights, opset=13), tmp_path))
