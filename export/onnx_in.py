"""A supplier's ONNX file as a model under examination: read, checked, and proved.

The file is data: nothing of it runs but the operators of export.operators. What it computes
here is compared with onnxruntime before anyone relies on it.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from export.graph import OnnxNetwork
from export.graph_batch import check_batch
from export.graph_check import check_parity
from export.graph_file import OnnxFile, read_onnx
from export.graph_node import shown
from export.graph_read import read_program
from export.graph_settle import settle
from export.metadata import KEY, taken_color
from guard.errors import UnusableInput
from guard.load import examined
from guard.model import Model
from guard.spec import ONNX, InputSpec, ModelSpec, parse_spec, read_json


def load_onnx(path: Path) -> Model:
    """Read an ONNX file as MODEL. Raises UnusableInput with one line.

    The file takes float pictures [N x 3 x H x W], preprocessed as its metadata key `drmguard`
    says, else the JSON beside it. Or it takes uint8 pictures [N x H x W x 3] and preprocesses
    them itself, and says so by `"embedded": true` under `input`: the spec of the Model then has
    the range [0, 1] and the color that the file takes, whatever mean, std and range state of the
    inside.

    The file gives one tensor [N x d]. Half floats are computed in float32. Weights behind
    DequantizeLinear become float parameters, activations are rounded as the file says, with a
    straight-through gradient. A file whose answer to a picture could depend on the batch that it
    is in is refused.
    """
    file = read_onnx(path)
    spec = _spec(file)
    program = read_program(file.proto.graph, path, file.opset, file.batch)
    if file.output in program.constants:
        raise UnusableInput(f"{path}: its output does not depend on the image")
    network = OnnxNetwork(program, file.input, file.output, pixels=file.pixels)
    _check_finite(network, path)
    model = _examined(network, spec, file)
    check_parity(model, file)
    return model


def onnx_facts(path: Path) -> dict[str, Any]:
    """What `inspect` says of an ONNX file beside the facts of every model."""
    file = read_onnx(path)
    return {
        "opset": file.opset,
        "producer": f"{file.proto.producer_name} {file.proto.producer_version}".strip(),
        "input_name": file.input,
        "output_name": file.output,
        "batch": "symbolic" if file.batch is None else file.batch,
        "embedded_preprocessing": file.pixels,
    }


def _spec(file: OnnxFile) -> ModelSpec:
    """From the metadata, else from the JSON beside the file; checked against the graph."""
    values, where = _stated(file)
    spec = parse_spec({**values, "arch": ONNX} if isinstance(values, dict) else values, where)
    if bool(values["input"].get("embedded")) != file.pixels:
        raise UnusableInput(
            f'{where}: "embedded" under "input" must be true for a file that takes uint8 pictures '
            "and preprocesses them itself, and only for such a file"
        )
    if any(
        side not in (0, stated) for side, stated in zip(file.size, spec.input.size, strict=True)
    ):
        high, wide = file.size
        raise UnusableInput(
            f"{where}: states size {list(spec.input.size)}, the graph {high} x {wide}"
        )
    if not file.pixels:
        return spec
    return replace(spec, input=InputSpec(spec.input.size, taken_color(values["input"], where)))


def _stated(file: OnnxFile) -> tuple[Any, str]:
    texts = {entry.key: entry.value for entry in file.proto.metadata_props}
    if KEY not in texts:
        beside = file.path.with_suffix(".json")
        return read_json(beside), str(beside)
    where = f"{file.path}, metadata {KEY}"
    try:
        return json.loads(texts[KEY]), where
    except (ValueError, RecursionError) as error:
        raise UnusableInput(f"{where}: not readable JSON ({error})") from None


def _check_finite(network: OnnxNetwork, path: Path) -> None:
    """A bound of Clip may be infinite; weights and statistics may not."""
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if not bool(torch.isfinite(value).all()):
            raise UnusableInput(f"{path}: some weights are NaN or infinite ({name})")


def _examined(network: OnnxNetwork, spec: ModelSpec, file: OnnxFile) -> Model:
    try:
        settle(network, check_batch(network, spec.input.size))
        return examined(network, spec, None, file.path)
    except UnusableInput as error:
        line = str(error)
    except Exception as error:  # of torch, from shapes that do not fit one another
        high, wide = spec.input.size
        line = f"{file.path}: fails on an image of {high} x {wide} ({shown(str(error))})"
    fixed = f"; its batch is fixed to {file.batch}: ask for a symbolic one"
    raise UnusableInput(line + (fixed if file.batch else ""))
