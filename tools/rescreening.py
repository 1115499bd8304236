"""What ships is what was checked: each exported file is opened as a supplier's and screened."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from export.onnx_in import load_onnx
from guard.engine import Engine
from guard.errors import UnusableInput
from guard.files import sha256
from guard.finding import Finding
from guard.model import Model
from guard.screen import Settings, screen
from tools.job import Opened
from tools.progress import progress
from tools.shipping import export_model_files


def rescreen_files(
    opened: Opened, files: list[Path], seed: int, known: Mapping[str, Finding]
) -> list[dict[str, Any]]:
    """What report.json says under `shipped`: the verdict on each ONNX file of a model.

    `known` holds, by SHA-256, the findings on files that were screened before with this seed.
    """
    digests = {path: sha256(path) for path in files}
    return [
        {"file": path.name, "sha256": digest, **_verdict(opened, path, seed, known.get(digest))}
        for path, digest in digests.items()
    ]


def _verdict(opened: Opened, path: Path, seed: int, known: Finding | None) -> dict[str, Any]:
    try:
        finding = known or screen_file(opened, path, seed)
    except UnusableInput as error:  # our own file that can't be read back is no clean one
        reason = f"can't be screened: {error}"
        return {"verdict": "inconclusive", "score": None, "threshold": None, "reason": reason}
    named = ("verdict", "score", "threshold", "reason")
    return {name: getattr(finding, name) for name in named}


def screen_export(
    opened: Opened, found: Finding, model: Model, seed: int, known: dict[str, Finding]
) -> Finding:
    """Screen a mitigated model as the fp32 file that `ship` would write of it; note it in `known`.

    A model that no file can hold is screened as it is: `ship` says later what is wrong with it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mitigated.onnx"
        try:
            export_model_files(opened, found, model, ["fp32"], path)
            finding = screen_file(opened, path, seed)
        except UnusableInput:
            return screen_again(opened, model, seed)
        known[sha256(path)] = finding
    return finding


def screen_file(opened: Opened, path: Path, seed: int) -> Finding:
    """Open an ONNX file as a supplier's and screen it. Raises UnusableInput."""
    return screen_again(opened, load_onnx(path).to(opened.device), seed)


def screen_again(opened: Opened, model: Model, seed: int) -> Finding:
    """Screen what became of a model with the benign set that it was checked on."""
    job = opened.job
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    engine = Engine(opened.device, seed, progress=progress(job.quiet))
    return screen(model, opened.inputs.data.benign, Settings(method=job.method, seed=seed), engine)
