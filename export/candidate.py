"""A file that is to be held against a model: what it is, and how it wants to be fed."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from export.feed import feed
from export.graph_check import precision
from export.graph_file import OnnxFile, read_onnx
from export.metadata import read_metadata, taken_color
from export.subject import Subject
from guard.errors import UnusableInput
from guard.spec import ONNX, InputSpec, parse_spec, read_json

PRECISIONS = {"float32": "fp32", "float16": "fp16", "int8": "int8"}


@dataclass(frozen=True)
class Candidate:
    """A file under proof."""

    file: OnnxFile
    precision: str  # "fp32", "fp16" or "int8": what the graph is, or says where that is stricter
    input: InputSpec
    calibrated_on: frozenset[str]  # digests of images that measure it apart; of int8 alone

    def feed(self, images: Tensor) -> np.ndarray:
        """RGB images [N x 3 x H x W] uint8 as the array that the file takes."""
        turned = self.file.pixels and self.input.color == "bgr"
        x = feed(images.flip(1) if turned else images, self.input, self.file.pixels)
        return x.astype(np.float16) if self.file.half_input else x


def open_candidate(path: Path, subject: Subject) -> Candidate:
    """Read a file and see that it can be compared. Raises UnusableInput with one line."""
    file = read_onnx(path)
    _check_shapes(file, subject)
    stated = read_metadata(file.proto)
    judged = _stricter(PRECISIONS[precision(file)], stated.get("precision"))
    digests = stated.get("calibrated_on") if judged == "int8" else None
    return Candidate(
        file=file,
        precision=judged,
        input=_stated_input(file, stated, subject),
        calibrated_on=frozenset(map(str, digests if isinstance(digests, list) else ())),
    )


def _stricter(found: str, stated: object) -> str:
    """What a file is judged as: no node that does nothing may loosen what it says of itself."""
    order = list(PRECISIONS.values())
    return min(found, stated, key=order.index) if stated in order else found


def _check_shapes(file: OnnxFile, subject: Subject) -> None:
    sides = file.proto.graph.output[0].type.tensor_type.shape.dim
    answer = tuple(side.dim_value for side in sides)[1:]
    for what, found, wanted in (
        ("takes pictures of", file.size, subject.input.size),
        ("gives, for an image, values of shape", answer, subject.shape),
    ):
        if not _agree(found, wanted):
            raise UnusableInput(f"{file.path}: {what} {list(found)}, the model {list(wanted)}")


def _agree(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether the sizes are the same; 0 stands for any."""
    same = all(side in (0, other) for side, other in zip(found, wanted, strict=False))
    return same and len(found) == len(wanted)


def _stated_input(file: OnnxFile, stated: dict[str, Any], subject: Subject) -> InputSpec:
    """The preprocessing that the file or the JSON beside it asks for, else the model's."""
    beside = file.path.with_suffix(".json")
    if not stated and beside.is_file():
        stated = read_json(beside)
    if stated.get("kind") == "trigger" or not stated:
        return replace(subject.input, color="rgb") if file.pixels else subject.input
    theirs, ours = parse_spec({**stated, "arch": ONNX}, str(file.path)), subject.spec
    for what in ("task", "outputs", "units"):
        found, wanted = getattr(theirs, what), getattr(ours, what)
        if found != wanted:
            raise UnusableInput(f"{file.path}: its {what} is {found}, that of the model {wanted}")
    if not file.pixels:
        return theirs.input
    return replace(theirs.input, color=taken_color(stated["input"], str(file.path)))
