"""From a torch module to one ONNX file: symbolic batch, fixed names, nothing private inside."""

import contextlib
import io
import json
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import Message  # type: ignore[import-untyped]
from torch import Tensor, nn

from export.graph_node import shown
from export.metadata import KEY, trigger_metadata
from guard.errors import UnusableInput, one_line
from guard.files import finite, whole_file
from guard.model import Model, Module, copied
from guard.paper import MomentumTrigger

INPUT, OUTPUT, BATCH = "input", "output", "batch"
OPSETS = range(18, 27)  # what the exporter writes and onnxruntime runs
NOTHING: Mapping[str, Any] = {}


class Embedded(nn.Module):
    """The preprocessing and the network: uint8 RGB [N x H x W x 3] -> outputs [N x d]."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        # Contiguous: the exporter writes strides that it sees into the graph, as index arithmetic.
        x = pixels.permute(0, 3, 1, 2).contiguous().to(torch.float32) / 255.0
        y: Tensor = self.model(x)
        return y


def export_trigger(
    trigger: nn.Module,
    path: Path,
    *,
    size: tuple[int, int],
    opset: int = 18,
    facts: Mapping[str, Any] = NOTHING,
) -> None:
    """Write a trigger x -> x' as ONNX: `input` and `output` [N x 3 x H x W], RGB in [0, 1].

    Of equation 7 only G can be written: T needs gradients of the model. The metadata says so.
    `size` is height, width. Raises UnusableInput with one line.
    """
    example = torch.rand(2, 3, *size)
    proto = _trace(frozen_copy(written_part(trigger)), example, opset, "the trigger")
    about = trigger_metadata(trigger, size, facts)
    write_onnx(proto, path, {**about, "precision": "fp32"})


def written_part(trigger: nn.Module) -> nn.Module:
    """The part of a trigger that ONNX can hold."""
    return trigger.generator if isinstance(trigger, MomentumTrigger) else trigger


def trace_model(model: Model, *, opset: int, embed_preprocessing: bool) -> onnx.ModelProto:
    """The graph of a model in fp32: `input` -> `output` [N x d] in the model's units.

    `input` takes what the network takes: preprocessed floats [N x 3 x H x W]; with
    `embed_preprocessing` uint8 RGB pictures [N x H x W x 3]. Raises UnusableInput with one line.
    """
    frozen = frozen_copy(model)
    height, width = model.spec.input.size
    if embed_preprocessing:
        pixels = torch.zeros(2, height, width, 3, dtype=torch.uint8)
        return _trace(Embedded(frozen), pixels, opset, "the model")
    return _trace(frozen.network, torch.rand(2, 3, height, width), opset, "the model")


def frozen_copy(module: Module) -> Module:
    """A copy for the exporter, on the CPU and in evaluation mode; the original stays as it is."""
    frozen = copied(module).cpu().eval()
    frozen.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    assert not any(part.training for part in frozen.modules())
    return frozen.requires_grad_(False)


def _trace(module: nn.Module, example: Tensor, opset: int, what: str) -> onnx.ModelProto:
    hint = "it must take any batch size, and take the same steps for every image"
    with converting(f"{what} can't be exported to ONNX", hint):
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: BATCH},),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    # The exporter leaves a file at another opset without a word.
    check_opset(opset, {entry.domain: entry.version for entry in proto.opset_import}.get(""))
    _check_batch(proto, what)
    return proto


@contextlib.contextmanager
def converting(complaint: str, hint: str) -> Iterator[None]:
    """Quiet; what a converter or the user's own module raises becomes one line."""
    try:
        with quiet():
            yield
    except Exception as error:  # they may raise anything
        raise UnusableInput(f"{complaint} ({_first_cause(error)}); {hint}") from None


def _first_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)


def check_opset(asked: int, written: int | None) -> None:
    """Raises UnusableInput where `asked` is out of range, or is not what was `written`."""
    if written != asked or asked not in OPSETS:
        raise UnusableInput(
            f"--opset={asked}: can't be written for this model; "
            f"opsets {OPSETS[0]} to {OPSETS[-1]} are supported"
        )


def _check_batch(proto: onnx.ModelProto, what: str) -> None:
    """A module that reshapes to the batch of the example is exported without a word."""
    values = (proto.graph.input[0], proto.graph.output[0])
    first = [value.type.tensor_type.shape.dim[0].dim_param for value in values]
    if first != [BATCH, BATCH]:
        raise UnusableInput(
            f"{what} fixes its batch size, so its ONNX file would be wrong at any other; "
            "let its code take the batch size from the input"
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The libraries' hints, which no user can act on, stay off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        # On some failures the exporter prints its graph to stderr, a hundred lines of it.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def write_onnx(proto: onnx.ModelProto, path: Path, about: Mapping[str, Any]) -> None:
    """Write one whole, checked file that says `about` under the metadata key and no more.

    Raises UnusableInput where what a converter made is no valid file, or names a local path.
    """
    _strip(proto)
    text = json.dumps(finite(dict(about)), ensure_ascii=False, allow_nan=False)
    onnx.helper.set_model_props(proto, {KEY: text})
    _check_private(proto, path)
    with converting(f"{path.name} can't be written as valid ONNX", "try another --opset"):
        onnx.checker.check_model(proto, full_check=True)
    foreign = {entry.domain for entry in (*proto.opset_import, *proto.graph.node)} - {""}
    if foreign:
        raise UnusableInput(f"{path.name} would need operators of {', '.join(sorted(foreign))}")
    with whole_file(path) as temporary:
        onnx.save_model(proto, temporary)


def _strip(message: Message) -> None:
    """Remove documentation and properties wherever they are: stack traces, paths, class names."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type:
            for part in value if field.is_repeated else (value,):
                _strip(part)


def _check_private(proto: onnx.ModelProto, path: Path) -> None:
    """No text of the file names a place on this machine; "head.py.weight" is none."""
    places = {os.getcwd(), str(Path.home()), tempfile.gettempdir(), sys.prefix}
    marks = [re.escape(place) for place in places if len(place) > 3]
    pattern = re.compile("|".join([*marks, r"\.py\b(?!\.\w)", "Traceback"]))
    found = [text for text in _texts(proto) if pattern.search(text)]
    if found:
        raise UnusableInput(f"{path.name} would hold a local path ({shown(found[0])})")


def _texts(message: Message) -> Iterator[str]:
    """All texts in a file; the bytes of weights are none."""
    for field, value in message.ListFields():
        parts = value if field.is_repeated else (value,)
        if field.message_type:
            for part in parts:
                yield from _texts(part)
        elif field.type == field.TYPE_STRING:
            yield from parts
        elif field.name in ("s", "strings"):
            yield from (part.decode(errors="replace") for part in parts)
