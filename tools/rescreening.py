"""What ships is what was checked: each exported file is opened as a supplier's and screened."""

from pathlib import Path
from typing import Any

import torch

from export.onnx_in import load_onnx
from guard.engine import Engine
from guard.errors import UnusableInput
from guard.finding import Finding
from guard.model import Model
from guard.screen import Settings, screen
from tools.job import Opened
from tools.progress import progress


def rescreen_files(opened: Opened, files: list[Path], seed: int) -> list[dict[str, Any]]:
    """What report.json says under `shipped`: the verdict on each ONNX file of a model."""
    return [{"file": path.name, **_verdict(opened, path, seed)} for path in files]


def _verdict(opened: Opened, path: Path, seed: int) -> dict[str, Any]:
    try:
        finding = screen_again(opened, load_onnx(path).to(opened.device), seed)
    except UnusableInput as error:  # our own file that can't be read back is no clean one
        reason = f"can't be screened: {error}"
        return {"verdict": "inconclusive", "score": None, "threshold": None, "reason": reason}
    named = ("verdict", "score", "threshold", "reason")
    return {name: getattr(finding, name) for name in named}


def screen_again(opened: Opened, model: Model, seed: int) -> Finding:
    """Screen what became of a model with the benign set that it was checked on."""
    job = opened.job
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    engine = Engine(opened.device, seed, progress=progress(job.quiet))
    return screen(model, opened.inputs.data.benign, Settings(method=job.method, seed=seed), engine)
