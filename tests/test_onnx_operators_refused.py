"""Operators and attributes that are refused, each in one line that names the node."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from guard.errors import UnusableInput
from tests.onnx_rows import SCALE, SCALES, STATISTICS, Row, W, f, network_of, of, row, scalar, whole

UNKNOWN = [
    (row("Sinh"), "operator"),
    (row("ConvTranspose", f(3, 4, 3, 3), auto_pad="SAME_UPPER"), "SAME_UPPER"),
    (row("ConvTranspose", f(3, 4, 3, 3), output_shape=[10, 9]), "output_shape"),
    (row("ConvTranspose", f(3, 4, 3)), "3 dimensions"),
    (row("LayerNormalization", f(8), stash_type=10), "stash_type"),
    (row("ConstantOfShape", value=numpy_helper.from_array(np.array([1], np.uint16))), "UINT16"),
    (row("Relu", made_up=3), "made_up"),
    (row("GatherND", whole(0, 1, 1).reshape(1, 3), batch_dims=1), "batch_dims"),
    (row("GroupNormalization", f(3), f(3), num_groups=3, stash_type=10, opset=21), "stash_type"),
    (row("Attention", "input", "input", is_causal=1, opset=23), "is_causal"),
    (row("Attention", "input", "input", None, "input", "input", opset=23), "a past"),
    (row("Conv", W, auto_pad="SOMEHOW"), "SOMEHOW"),
    (row("Conv", f(4, 3, 3)), "3 dimensions"),
    (row("Conv", f(4, 3, 3), shape=(2, 3, 9), pads=[1, 1], strides=[1]), "1 of a window"),
    (row("AveragePool", kernel_shape=[3, 1, 1], shape=(2, 1, 3, 9, 8)), "window of 3 dim"),
    (row("Conv", f(4, 3, 3, 3, 3)), "5 dimensions"),
    (row("Conv", W, strides=[2]), "strides"),
    (row("Conv", W, pads=[-1, 0, 0, 0]), "pads"),
    (row("Conv", W, pads=[1, 1]), "pads"),
    (row("Conv", W, auto_pad="SAME_UPPER", dilations=[2, 2]), "dilations"),
    (row("MaxPool", kernel_shape=[2]), "kernel_shape"),
    (row("MaxPool", kernel_shape=[2, 2], outputs=2), "other1"),
    (row("MaxPool", kernel_shape=[2, 2], ceil_mode=1, pads=[0, 0, 1, 1]), "ceil_mode"),
    (row("AveragePool", kernel_shape=[2, 2], dilations=[2, 2], opset=19), "dilations"),
    (row("BatchNormalization", *STATISTICS, training_mode=1), "training_mode"),
    (row("Dropout", scalar(0.5), scalar(True, np.bool_)), "training_mode"),
    (row("Gelu", approximate="sometimes", opset=20), "approximate"),
    (row("Cast", to=onnx.TensorProto.BFLOAT16), "BFLOAT16"),
    (row("Cast", to=onnx.TensorProto.STRING), "STRING"),
    (row("Pad", whole(0, 0, 1, 1, 0, 0, 1, 1), mode="mirror"), "mirror"),
    (row("Resize", None, SCALES), "round_prefer_floor"),
    (row("Resize", None, SCALES, mode="linear", antialias=1), "antialias"),
    (row("Resize", None, SCALES, mode="cubic", exclude_outside=1), "exclude_outside"),
    (row("Resize", None, SCALES, mode="cubic", cubic_coeff_a=-0.5), "cubic"),
    (
        row("Resize", None, SCALES, coordinate_transformation_mode="tf_crop_and_resize"),
        "tf_crop_and_resize",
    ),
    (row("Resize", None, of(1, 2, 2, 2), mode="linear"), "scales"),
    (row("Resize", None, of(2, 2), axes=[0, 1], mode="linear"), "axes"),
    (row("QuantizeLinear", SCALE, "input"), "zero point"),
    (row("QuantizeLinear", SCALE, scalar(0, np.int8), block_size=4, opset=21), "block_size"),
    (row("QuantizeLinear", SCALE, opset=21, output_dtype=onnx.TensorProto.INT16), "quantisation"),
]


@pytest.mark.parametrize(("made", "word"), UNKNOWN, ids=str)
def test_what_is_not_known_is_named_before_anything_runs(made: Row, word: str) -> None:
    with pytest.raises(UnusableInput) as caught:
        network_of(made.proto())
    line = str(caught.value)
    assert "\n" not in line
    assert word in line
    assert f"a.onnx: node {made.op}_to_output ({made.op})" in line
