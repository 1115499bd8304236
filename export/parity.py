"""The proof that an ONNX file computes what the torch model computes, in the task's own unit."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch

from export.candidate import Candidate, open_candidate
from export.graph_file import OnnxFile
from export.groups import BENIGN, CALIBRATION, LIMITS, TRIGGERED
from export.half import BATCH, HALF, MOST, HalfSession, half_values
from export.judge import Row, Run, Worst, judge
from export.precision import image_digest
from export.session import open_sessions
from export.subject import Reference, Subject, reference
from export.tolerance import tolerance
from guard.benign import BenignSet
from guard.device import set_precision
from guard.errors import UnusableInput

BATCHES = (1, 2, 7, 64)
SMALL = 64  # images that the batches below the largest see; the largest sees all
Way = tuple[str, Any, int, int | None]  # provider, session, batch, images of a group (None: all)


@dataclass
class Proof:
    """All rows, and what they rest on."""

    unit: str
    noise: dict[str, float]  # the model's own rounding by group of images, in `unit`
    spread: float  # of the model's outputs, in `unit`
    images: dict[str, int]  # by group
    references: dict[str, Reference]  # by group
    tf32: dict[str, bool]  # whether torch's matmul and cudnn were allowed to use it
    rows: list[Row] = field(default_factory=list)
    worst: list[Worst] = field(default_factory=list)  # one a file
    options: dict[str, dict[str, str]] = field(default_factory=dict)  # as each provider states
    not_running: list[str] = field(default_factory=list)  # providers that should run but do not

    @property
    def passed(self) -> bool:
        """Whether there are rows and every one passed."""
        return bool(self.rows) and all(row["passed"] for row in self.rows)


def prove(
    subject: Subject,
    files: Sequence[Path],
    groups: Mapping[str, BenignSet],
    batches: Sequence[int] = BATCHES,
) -> Proof:
    """Hold each file against the torch side: providers x batches x groups of images.

    The torch side is float32 with TF32 off. Images that calibrated a file are a group apart.
    A file of half floats is also run with every value rounded to them, on a few images. A file
    that answers wrongly, or not at all, has rows that did not pass. Raises UnusableInput where a
    file can't be compared in the first place.
    """
    with _float32():
        references = {name: reference(subject, images) for name, images in groups.items()}
        return prove_against(subject, files, references, batches)


@contextlib.contextmanager
def _float32() -> Iterator[None]:
    """TF32 off on the torch side; onnxruntime's sessions are opened without it."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    set_precision(tf32=False)
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def prove_against(
    subject: Subject,
    files: Sequence[Path],
    references: Mapping[str, Reference],
    batches: Sequence[int] = BATCHES,
) -> Proof:
    """As `prove`, against answers that the torch side gave before."""
    proof = Proof(
        unit=subject.unit,
        noise={name: found.noise for name, found in references.items()},
        spread=subject.spread(next(iter(references.values())).answers),
        images={name: len(found.images) for name, found in references.items()},
        references=dict(references),
        tf32={
            "matmul": torch.backends.cuda.matmul.allow_tf32,
            "cudnn": torch.backends.cudnn.allow_tf32,
        },
    )
    for path in files:
        _add(path, subject, references, batches, proof)
    return proof


def _add(
    path: Path,
    subject: Subject,
    references: Mapping[str, Reference],
    batches: Sequence[int],
    proof: Proof,
) -> None:
    candidate = open_candidate(path, subject)
    parts = _grouped(references, candidate)
    worst: list[Worst] = []
    ways = _ways(candidate.file, batches, proof)
    for (provider, session, batch, most), (group, part) in product(ways, parts.items()):
        allowed = tolerance(
            "int8" if subject.rounds else candidate.precision,
            part.noise,
            unit=proof.unit,
            spread=proof.spread,
            limits=group == LIMITS,
            real=provider == HALF,
        )
        run = Run(candidate, provider, session, batch, group, part, allowed)
        row, image = judge(run, subject, most or len(part.images))
        proof.rows.append(row)
        worst.append(image)
    proof.worst.append(max(worst, key=lambda image: image.ratio))


def _ways(file: OnnxFile, batches: Sequence[int], proof: Proof) -> list[Way]:
    """Each provider in each batch; a file of half floats also where these are real.

    A file that fixes its batch runs in no other.
    """
    batches = batches if file.batch is None else (file.batch,)
    sessions, missing = open_sessions(file)
    proof.not_running += missing
    proof.options |= {name: run.get_provider_options()[name] for name, run in sessions.items()}
    sizes = [(batch, None if batch == max(batches) else SMALL) for batch in batches]
    ways: list[Way] = [(name, run, *size) for name, run in sessions.items() for size in sizes]
    if half_values(file.proto.graph):
        try:
            ways.append((HALF, HalfSession(file), file.batch or BATCH, MOST))
        except UnusableInput as error:
            proof.not_running.append(f"{HALF}: {error}")
    return ways


def _grouped(references: Mapping[str, Reference], candidate: Candidate) -> Mapping[str, Reference]:
    """The groups, the images that calibrated the file in one of their own.

    The file itself says which these are, so they are judged too: else it could choose its judges.
    """
    if not candidate.calibrated_on or BENIGN not in references:
        return references
    images = references[BENIGN].images.images
    seen = torch.tensor([image_digest(x) in candidate.calibrated_on for x in images])
    if bool(seen.all()):
        raise UnusableInput(
            f"{candidate.file.path}: was calibrated on all {len(images)} images of DATA that "
            "would measure it; give it others"
        )
    both = {
        name: references[name].part(~seen) for name in (BENIGN, TRIGGERED) if name in references
    }
    apart = {CALIBRATION: references[BENIGN].part(seen)} if bool(seen.any()) else {}
    return {**references, **both, **apart}
