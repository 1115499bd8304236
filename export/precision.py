"""fp16 and int8 from the fp32 graph, and the files of all precisions that were asked for."""

import copy
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from torch import Tensor

from export.feed import feed
from export.graph_rounding import LAYERS
from export.metadata import model_metadata
from export.write import INPUT, NOTHING, converting, trace_model, write_onnx
from guard.benign import BenignSet
from guard.errors import UnusableInput
from guard.model import Model

SUFFIXES = {"fp32": ".onnx", "fp16": ".fp16.onnx", "int8": ".int8.onnx"}
CALIBRATE = 256  # images that set the ranges of int8, at most; half of a smaller set
BATCH = 16  # of calibration
OTHER = "ask for another --precision"


class Pictures(CalibrationDataReader):
    """The calibration images as the quantiser asks for them."""

    def __init__(self, pictures: np.ndarray) -> None:
        starts = range(0, len(pictures), BATCH)
        self._batches: Iterator[np.ndarray] = (pictures[i : i + BATCH] for i in starts)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch by the name of the input, None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def export_files(
    model: Model,
    path: Path,
    precisions: Sequence[str] = ("fp32",),
    *,
    calibration: BenignSet | None = None,
    opset: int = 18,
    embed_preprocessing: bool = False,
    facts: Mapping[str, Any] = NOTHING,
) -> list[Path]:
    """Write a model in each of `precisions`: FILE.onnx, FILE.fp16.onnx, FILE.int8.onnx.

    Inputs and outputs are those of `trace_model`, of the same types in all files. int8 needs
    `calibration`, benign images that set its ranges; its metadata lists them, and nothing may
    be measured on them again. `facts` (hashes, verdict, score) go into the metadata. Raises
    UnusableInput with one line.
    """
    proto = trace_model(model, opset=opset, embed_preprocessing=embed_preprocessing)
    about = model_metadata(model.spec, embedded=embed_preprocessing, facts=facts)
    written = []
    for precision in precisions:
        made, more = copy.deepcopy(proto), {}
        if precision == "fp16":
            made = to_fp16(made)
        elif precision == "int8":
            if calibration is None:
                raise UnusableInput("int8 needs benign images that calibrate it")
            made = to_int8(made, feed(calibration.images, model.spec.input, embed_preprocessing))
            more = {"calibrated_on": [image_digest(image) for image in calibration.images]}
        target = path.with_suffix(SUFFIXES[precision])
        write_onnx(made, target, {**about, "precision": precision, **more})
        written.append(target)
    return written


def to_fp16(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and arithmetic in half precision; inputs and outputs stay as they are.

    Raises UnusableInput where the converter fails.
    """
    with converting("the model can't be converted to fp16", OTHER):
        made: onnx.ModelProto = convert_float_to_float16(proto, keep_io_types=True)
        del made.graph.value_info[:]  # of some values it states the type that they had before
        OnnxModel.graph_topological_sort(made.graph)  # the casts come last, which is not valid
    return made


def to_int8(proto: onnx.ModelProto, pictures: np.ndarray) -> onnx.ModelProto:
    """Weights in int8, one scale a channel; activations in uint8, ranges from `pictures`.

    MinMax ranges: a percentile or a moving average clips the largest activations and with them
    the largest angles (measured on five models: 1.3 to 3.5 times the mean error). The layers of
    `left_in_float` are not quantised: a range for the last one would clip answers beyond those
    of the calibration images (measured: largest error 3 to 5 degrees instead of 1).

    Raises UnusableInput where the quantiser fails.
    """
    failing = converting("the model can't be quantised to int8", OTHER)
    with tempfile.TemporaryDirectory() as folder, failing:
        target = Path(folder) / "int8.onnx"
        quantize_static(
            proto,
            target,
            Pictures(pictures),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=left_in_float(proto.graph),
        )
        return onnx.load_model(target)


def left_in_float(graph: onnx.GraphProto) -> list[str]:
    """The nodes before the first layer with weights (preprocessing) and from the last one on.

    None in a network of one layer: there, int8 would change nothing else.
    """
    before, behind = [], set[str]()
    for node in graph.node:  # in the order in which they run
        if node.op_type in LAYERS or not behind.isdisjoint(node.input):
            behind.update(node.output)
        else:
            before.append(node.name)
    last: list[onnx.NodeProto] = []
    ahead: set[str] = set()  # values that some layer with weights still needs
    for node in reversed(graph.node):
        if ahead.isdisjoint(node.output):
            last.append(node)
        if node.op_type in LAYERS or not ahead.isdisjoint(node.output):
            ahead.update(node.input)
    excluded = {*before, *(node.name for node in last)}
    weighted = {node.name for node in graph.node if node.op_type in LAYERS}
    return sorted(excluded) if weighted - excluded else []


def calibration_part(benign: BenignSet, seed: int = 0) -> BenignSet:
    """The images that calibrate int8; at least as many others stay to measure it.

    Raises UnusableInput where that leaves none.
    """
    if len(benign) < 2:
        raise UnusableInput("int8 needs two benign images at least: to calibrate and to measure")
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(benign), generator=draw)
    return benign.part(order[: min(CALIBRATE, len(benign) // 2)].sort().values)


def image_digest(image: Tensor) -> str:
    """What names an image [3 x H x W] uint8 in a file that was calibrated on it."""
    return hashlib.sha256(image.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
