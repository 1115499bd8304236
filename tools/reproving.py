"""The proof of parity, run again from what a report's folder keeps of it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from export.feed import feed
from export.graph_file import OnnxFile, read_onnx
from export.groups import BENIGN, TRIGGERED
from export.kept import MOST, read_kept
from export.metadata import read_metadata
from export.parity import Proof, prove_against
from export.session import open_on_cpu
from export.subject import Reference
from guard.errors import UnusableInput
from guard.files import finite
from guard.spec import InputSpec
from tools.agreement import Stated, Values, read, shipped
from tools.job import GENERATOR, KEPT, PARITY
from tools.proving import proof_lines

STEPS = 2  # of 255 at most, between a triggered image that is kept and the file's


def prove_again(out: Path, files: Values, report: Stated) -> tuple[list[str], list[str]]:
    """What was run, one line each, and what differs.

    The shipped models are held against the answers that are kept of the checked one, the trigger's
    file against the triggered images. Raises UnusableInput where one of them can't be read.
    """
    if KEPT not in files:
        return [], []
    subject, references = read_kept(out / KEPT)
    proof = prove_against(subject, [out / name for name in shipped(files)], references)
    ran, differs = proof_lines(proof), [*others_kept(out, files, proof), *milder(proof, report)]
    if not proof.passed:
        differs.append("an ONNX file does not answer as the model that was checked")
    if GENERATOR in files:
        apart = generator_apart(read_onnx(out / GENERATOR), references)
        if apart is not None and apart <= STEPS:
            ran.append(f"{GENERATOR}: makes the triggered images that are kept")
        elif apart is not None:
            differs.append(f"{GENERATOR} does not make the triggered images of {KEPT}")
    return ran, differs


def others_kept(out: Path, files: Values, proof: Proof) -> Iterator[str]:
    """Images and roundings that are not those of the proof."""
    names = set(shipped(files))
    if PARITY not in files or not names:
        return
    try:
        (basis,) = (one for one in read(out / PARITY)["proofs"] if names & set(one["files"]))
        images = {group: min(MOST, count) for group, count in basis["images"].items()}
        noise = basis["noise"]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UnusableInput(
            f"{out / PARITY}: does not say what its proof rests on; `drmguard check` writes it"
        ) from None
    if proof.images != images:
        yield f"{KEPT} does not hold the images that {PARITY} speaks of"
    elif finite(proof.noise) != noise:
        yield f"{KEPT} states another rounding of the model than {PARITY}"


def milder(proof: Proof, report: Stated) -> list[str]:
    """Files that would be judged now by another measure than they were proved by."""
    before, lines = measures(report.rows), []
    for (name, group), measure in measures(proof.rows).items():
        precision = next(row["precision"] for row in proof.rows if row["file"] == name)
        if report.proved.get(name, precision) != precision:
            lines.append(f"{name} was proved as {report.proved[name]} and is {precision} now")
        elif before.get((name, group), measure) != measure:
            lines.append(f"{KEPT} has {name} judged by another measure than it was proved by")
    return list(dict.fromkeys(lines))


def measures(rows: list[Values]) -> dict[tuple[str, str], Any]:
    """The largest or the mean difference, by file and group of images."""
    return {(str(row["file"]), str(row.get("images"))): row.get("tolerance_of") for row in rows}


def generator_apart(file: OnnxFile, references: Mapping[str, Reference]) -> float | None:
    """The largest difference from the kept triggered images, in steps of 255; None: not compared.

    Of a trigger that needs the model's gradients the file holds a part only. Infinite where the
    file makes no pictures of that size.
    """
    part = "gradients" in str(read_metadata(file.proto).get("computes"))
    if part or not {BENIGN, TRIGGERED} <= set(references):
        return None
    before, after = (references[group].images.images for group in (BENIGN, TRIGGERED))
    size = (before.shape[2], before.shape[3])
    x = feed(before, InputSpec(size), file.pixels)
    try:
        made = open_on_cpu(file).run([file.output], {file.input: x})[0]
        apart = np.abs(np.clip(np.round(255 * made), 0, 255) - after.numpy().astype(np.float32))
    except UnusableInput:
        raise
    except Exception:  # onnxruntime's exceptions have no common base; nor need the shapes fit
        return float("inf")
    return float(apart.max())
