"""`drmguard mitigate`, and the same step within `drmguard check`."""

import sys
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
from guard.lesson import MitigationSettings, check_trainable
from guard.mitigation import Mitigated, mitigate_until_clean
from guard.model import Model
from guard.spec import ONNX
from guard.store import save_model
from tools.agreement import Stated, read
from tools.job import (
    ACCEPTED,
    GATE_FAILED,
    MITIGATION,
    REFUSED,
    STATE,
    Job,
    Opened,
    make_folder,
    open_job,
    remove,
    written_before,
)
from tools.manifest import entries, extend_manifest
from tools.progress import progress
from tools.recovered import Recovered, open_fitting
from tools.rescreening import screen_again


def mitigate(out: str, trigger: str, **words: Any) -> int:
    """`drmguard mitigate`. Raises UnusableInput."""
    job = Job(out=Path(out), command="mitigate", **words)
    opened = open_job(job)
    check_beside(opened)
    check_trainable(opened.inputs.model, opened.inputs.data.benign)
    given = open_fitting(Path(trigger), opened)
    for line in given.warnings:
        print(f"drmguard: warning: {line}", file=sys.stderr)
    make_folder(job.out)
    result = unlearn(opened, given.triggers, partial(screen_again, opened))
    gone = written_before(job.out, MITIGATION) if job.overwrite else []
    remove(job.out, gone)  # an earlier run's accepted model must not stand beside a refused one
    files = write_outcome(result, given, opened)
    extend_manifest(job.out, files, gone)
    print(f"{opened.inputs.facts['path']}: {said(result)}")
    print(effect_line(result, opened.inputs.model.spec.error_unit))
    print(f"model: {next((path for path in files if path.suffix == '.onnx'), files[0])}")
    return 0 if result.accepted else GATE_FAILED


def check_beside(opened: Opened) -> None:
    """A report and what stands beside it are of one model. Raises UnusableInput."""
    out, inputs = opened.job.out, opened.inputs
    if (out / STATE).exists():
        raise UnusableInput(f"{out}: holds a begun run; pass another --out")
    if not (out / "report.json").exists():
        return
    report = read(out / "report.json")
    origin = Stated.of(report, out / "report.json").origin
    if origin["source_sha256"] != inputs.facts["sha256"]:
        raise UnusableInput(f"{out}: its report is of another model; pass another --out")
    if "mitigation" in report or "parity" in report:
        raise UnusableInput(f"{out}: holds a check's own models and proof; pass another --out")
    if inputs.model.spec.arch == ONNX:
        raise UnusableInput(
            f"{out}: its report proves no mitigated .onnx; pass another --out, or run "
            "`drmguard check`, which does"
        )


def write_outcome(result: Mitigated, given: Recovered, opened: Opened) -> list[Path]:
    """The model's files, and mitigation.json, by which a later run knows them for its own."""
    out, inputs = opened.job.out, opened.inputs
    data = inputs.data.manifest_sha256
    origin = {"source_sha256": inputs.facts["sha256"], "data_manifest_sha256": data}
    files = store(result, out, origin)
    values = {
        **mitigation_values(result, opened),
        "model": inputs.facts,
        "data": inputs.data.facts(),
        "trigger": given.facts,
        "warnings": given.warnings,
        "files": entries(out, files),
    }
    write_json(out / MITIGATION, values)
    return [*files, out / MITIGATION]


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


def effect_line(result: Mitigated, unit: str) -> str:
    """The errors on the held-back images before and after, in the task's unit."""
    before, after = result.before, result.after
    return (
        f"benign error {before.benign:.3g} -> {after.benign:.3g} {unit}, under the worst recovered "
        f"trigger {before.triggered:.3g} -> {after.triggered:.3g} {unit}"
    )


def said(result: Mitigated) -> str:
    """One line on the outcome."""
    word = "accepted" if result.accepted else f"not accepted: {result.reason}"
    return f"mitigation {word}"
