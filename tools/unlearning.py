"""`drmguard mitigate`, and the same step within `drmguard check`."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from export.precision import export_files
from export.write import NOTHING
from guard.errors import UnusableInput
from guard.files import write_json
from guard.finding import Finding
from guard.lesson import MitigationSettings
from guard.mitigation import Mitigated, mitigate_until_clean
from guard.model import Model
from guard.spec import ONNX
from guard.store import save_model
from guard.trigger_file import load_triggers
from tools.job import (
    ACCEPTED,
    GATE_FAILED,
    REFUSED,
    WRITTEN,
    Job,
    Opened,
    make_folder,
    open_job,
    remove,
)
from tools.progress import progress
from tools.rescreening import screen_again


def mitigate(out: str, trigger: str, **words: Any) -> int:
    """`drmguard mitigate`. Raises UnusableInput."""
    job = Job(out=Path(out), command="mitigate", **words)
    opened = open_job(job)
    loaded = open_fitting(Path(trigger), opened)
    make_folder(job.out)
    result = unlearn(opened, loaded, partial(screen_again, opened))
    if job.overwrite:  # an earlier run's accepted model must not stand beside a refused one
        remove(job.out, WRITTEN["mitigate"])
    files = store(result, job.out)
    write_json(job.out / "mitigation.json", mitigation_values(result, opened))
    print(f"{opened.inputs.facts['path']}: {said(result)}")
    print(f"model: {files[-1] if files[-1].suffix == '.onnx' else files[0]}")
    return 0 if result.accepted else GATE_FAILED


def open_fitting(path: Path, opened: Opened) -> list[nn.Module]:
    """The triggers of a file, for this model's images. Raises UnusableInput."""
    triggers = load_triggers(path, opened.inputs.model)
    if any(isinstance(one, nn.Identity) for one in triggers):
        raise UnusableInput(f"{path}: holds no trigger; the search behind it found none")
    return [one.to(opened.device) for one in triggers]


def unlearn(
    opened: Opened, triggers: list[nn.Module], rescreen: Callable[[Model, int], Finding]
) -> Mitigated:
    """Fine-tune, screen afresh (`rescreen` takes model and seed), go on where that finds more."""
    job = opened.job
    return mitigate_until_clean(
        opened.inputs.model,
        opened.inputs.data.benign,
        triggers,
        lambda model, number: rescreen(model, job.seed + 1 + number),
        MitigationSettings(),
        seed=job.seed,
        progress=progress(job.quiet),
    )


def store(
    result: Mitigated, out: Path, facts: Mapping[str, Any] = NOTHING, *, graph: bool = True
) -> list[Path]:
    """The mitigated model, under a name that says whether it may be shipped.

    What came as an ONNX file is written as one too: without its graph, weights are of no use.
    `facts` go into that file's metadata. Without `graph` it is left to the caller.
    """
    name = ACCEPTED if result.accepted else REFUSED
    files = save_model(result.model, out / f"{name}.safetensors")
    if graph and result.model.spec.arch == ONNX:
        files += export_files(result.model, out / f"{name}.onnx", facts=facts)
    return files


def mitigation_values(result: Mitigated, opened: Opened) -> dict[str, Any]:
    """What report.json says under `mitigation`."""
    last, settings = result.rescreens[-1], MitigationSettings()
    return {
        "accepted": result.accepted,
        "reason": result.reason,
        "unit": opened.inputs.model.spec.error_unit,
        "benign_error_before": result.before.benign,
        "benign_error_after": result.after.benign,
        "trigger_error_before": result.before.triggered,
        "trigger_error_after": result.after.triggered,
        "held_back": result.held,
        "held_back_persons": result.persons,
        "unlearnt_triggers": len(result.triggers),
        "rounds": len(result.rescreens),
        "rescreen": {
            "verdict": last.verdict,
            "score": last.score,
            "threshold": last.threshold,
            "reason": last.reason,
        },
        "curve": [{"step": step, **asdict(look)} for step, look in result.curve],
        "settings": asdict(settings),
    }


def said(result: Mitigated) -> str:
    """One line on the outcome."""
    word = "accepted" if result.accepted else f"not accepted: {result.reason}"
    return f"mitigation {word}"
