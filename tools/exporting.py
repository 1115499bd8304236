"""`drmguard export`: a model as ONNX, each file held against the model before it gets its name."""

import os
import tempfile
from pathlib import Path
from typing import Any

from export.groups import LIMITS, image_groups, limit_images
from export.parity import prove
from export.precision import SUFFIXES, calibration_part, export_files
from export.subject import model_subject
from guard.device import pick_device
from guard.errors import UnusableInput
from tools.datasets.reader import read
from tools.inputs import SAMPLE, data_path, facts_of_file, model_path, open_model
from tools.job import GATE_FAILED, check_method, check_source, check_targets, make_folder
from tools.proving import proof_lines

BATCHES = (1, 3)  # of the look at each file; `drmguard parity` proves it on images


def export(
    model: str,
    out: str,
    precision: str,
    data: str | None,
    opset: int,
    embed_preprocessing: bool,
    images: int,
    seed: int,
    trust_code: bool,
    overwrite: bool,
    device: str,
    method: str,
) -> int:
    """Write FILE.onnx, FILE.fp16.onnx, FILE.int8.onnx as asked; 0 or 4. Raises UnusableInput.

    `device` and `method` are those of every command, and change nothing here.
    """
    pick_device(device)
    check_method(method)
    path, wanted = Path(out), precisions(precision)
    check_targets(targets(path, wanted), overwrite)
    if "int8" in wanted and data is None and not model.startswith(SAMPLE):
        raise UnusableInput(
            "--precision=int8: pass --data=DATA, benign images that set the ranges of int8"
        )
    source = model_path(model)
    check_source(source, targets(path, wanted))
    opened = open_model(source, trust_code)
    facts: dict[str, Any] = {"source_sha256": facts_of_file(opened, source)["sha256"]}
    calibration, groups = None, {LIMITS: limit_images(opened.spec.input.size, seed)}
    if "int8" in wanted or data is not None:
        benign = read(data_path(data, model), opened.spec, limit=images, seed=seed)
        if "int8" in wanted:  # the others take any number of images
            calibration = calibration_part(benign.benign, seed)
        groups = image_groups(benign.benign, seed=seed)
        facts["data_manifest_sha256"] = benign.manifest_sha256
    make_folder(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        files = export_files(
            opened,
            Path(folder) / path.name,
            wanted,
            calibration=calibration,
            opset=opset,
            embed_preprocessing=embed_preprocessing,
            facts=facts,
        )
        proof = prove(model_subject(opened), files, groups, BATCHES)
        for file in files if proof.passed else ():
            os.replace(file, path.parent / file.name)
    print("\n".join(proof_lines(proof)))
    return 0 if proof.passed else GATE_FAILED


def precisions(words: str) -> list[str]:
    """The precisions of --precision, each once. Raises UnusableInput."""
    wanted = list(dict.fromkeys(words.split(",")))
    unknown = [word for word in wanted if word not in SUFFIXES]
    if unknown:
        raise UnusableInput(
            f"--precision={words}: {unknown[0] or 'nothing'} is none of {', '.join(SUFFIXES)}"
        )
    return wanted


def targets(path: Path, wanted: list[str]) -> list[Path]:
    """The file of each precision. Raises UnusableInput for another kind of name."""
    if path.suffix != ".onnx":
        raise UnusableInput(f"--out={path}: expected a name that ends in .onnx")
    return [path.with_suffix(SUFFIXES[precision]) for precision in wanted]
