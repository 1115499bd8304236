"""The main job: files -> model and benign set -> trigger search -> verdict -> report."""

import json
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from guard.device import environment, pick_device, set_precision
from guard.engine import Engine
from guard.errors import UnusableInput
from guard.files import digest
from guard.finding import Finding
from guard.screen import METHODS, Settings, benign_error, screen, split
from guard.trigger_file import save_trigger
from tools.inputs import Inputs, open_inputs
from tools.progress import progress
from tools.report import Evidence, write_report

EXIT_CODES = {"clean": 0, "backdoored": 1, "inconclusive": 3}
STATE = "search-state.pt"  # in the folder of the report, until the report is whole


@dataclass(frozen=True)
class Job:
    """What the command line asked for."""

    model: str | None
    data: str | None
    out: Path
    device: str = "auto"
    seed: int = 0
    method: str = "calibrated"
    images: int = 2000
    tf32: bool = False
    trust_code: bool = False
    resume: bool = False
    overwrite: bool = False
    quiet: bool = False


def check(out: str, **words: Any) -> int:
    """`drmguard check` and `drmguard screen`. Raises UnusableInput."""
    return run_screening(Job(out=Path(out), **words))


def run_screening(job: Job) -> int:
    """Screen and report; the exit code of the verdict. Raises UnusableInput."""
    if job.method not in METHODS:
        raise UnusableInput(f"--method={job.method}: expected {' or '.join(METHODS)}")
    began, started = time.perf_counter(), _now()
    check_folder(job)
    device = pick_device(job.device)
    set_precision(job.tf32)
    inputs = open_inputs(
        job.model,
        job.data,
        device=device,
        images=job.images,
        seed=job.seed,
        trust_code=job.trust_code,
    )
    error = benign_error(inputs.model, inputs.data.benign)
    settings = Settings(method=job.method, seed=job.seed)
    fingerprint = fingerprint_of(inputs, settings, device, job.tf32)
    if job.resume and (job.out / "report.json").exists():
        return _already_done(job.out, fingerprint)
    prepare_folder(job)
    finding = _screen(job, inputs, settings, fingerprint, device)
    timings = {**finding.timings, "total_seconds": time.perf_counter() - began}
    evidence = _evidence(job, inputs, finding, error, fingerprint, timings, started)
    save_trigger(finding.trigger, job.out / "trigger.safetensors")
    write_report(evidence, job.out)
    (job.out / STATE).unlink(missing_ok=True)
    _say(job, finding, inputs)
    return EXIT_CODES[finding.verdict]


def check_folder(job: Job) -> None:
    """Nothing of an earlier run is lost silently. Raises UnusableInput."""
    if job.resume and job.overwrite:
        raise UnusableInput("--resume and --overwrite exclude each other")
    if job.out.exists() and not job.out.is_dir():
        raise UnusableInput(f"{job.out}: is a file; --out names a folder")
    state, report = job.out / STATE, job.out / "report.json"
    if not job.resume and not job.overwrite:
        if report.exists():
            raise UnusableInput(f"{job.out}: holds a report; pass --overwrite, or another --out")
        if state.exists():
            raise UnusableInput(f"{job.out}: holds a begun run; pass --resume or --overwrite")


def prepare_folder(job: Job) -> None:
    """Make the folder, before the search and after the inputs proved usable."""
    try:
        job.out.mkdir(parents=True, exist_ok=True)
        if job.overwrite:
            for name in (STATE, "report.json", "report.html"):
                (job.out / name).unlink(missing_ok=True)
    except OSError as error:
        raise UnusableInput(f"{job.out}: can't be written to ({error.strerror})") from None


def fingerprint_of(inputs: Inputs, settings: Settings, device: torch.device, tf32: bool) -> str:
    """A hash over all that decides the verdict: model, data, settings, precision, torch."""
    return digest(
        inputs.facts["sha256"],
        inputs.facts["sidecar_sha256"] or "",  # an ONNX file may state all of it inside
        inputs.data.manifest_sha256,
        json.dumps(asdict(settings), sort_keys=True),
        f"{device.type} tf32={tf32}",
        torch.__version__,
    )


def _screen(
    job: Job, inputs: Inputs, settings: Settings, fingerprint: str, device: torch.device
) -> Finding:
    engine = Engine(
        device=device,
        seed=job.seed,
        fingerprint=fingerprint,
        state=job.out / STATE,
        progress=progress(job.quiet),
    )
    if job.resume:
        engine.resume()
    return screen(inputs.model, inputs.data.benign, settings, engine)


def _already_done(out: Path, fingerprint: str) -> int:
    report = json.loads((out / "report.json").read_text())
    if report["config"]["fingerprint"] != fingerprint:
        raise UnusableInput(
            f"{out}: its report is of another model, other data or other settings; "
            "pass --overwrite, or another --out"
        )
    print(f"{out}: finished before: {report['verdict']}")
    return EXIT_CODES[report["verdict"]]


def _evidence(
    job: Job,
    inputs: Inputs,
    finding: Finding,
    error: dict[str, object],
    fingerprint: str,
    timings: dict[str, float],
    started: str,
) -> Evidence:
    search_part, held_part = split(inputs.data.benign, job.seed)
    roles = {"search": len(search_part), "measure": len(held_part)}
    return Evidence(
        finding=finding,
        model=inputs.model,
        benign=held_part,
        benign_error=error,
        model_facts=inputs.facts,
        data_facts={**inputs.data.facts(), "roles": roles},
        config={
            "command": sys.argv[1:],
            "fingerprint": fingerprint,
            "seed": job.seed,
            "images": job.images,
            **finding.settings,
        },
        environment=environment(inputs.data.benign.device),
        timings=timings,
        warnings=[*_warnings(inputs), *finding.warnings],
        started=started,
        ended=_now(),
    )


def _warnings(inputs: Inputs) -> list[str]:
    missing = inputs.data.missing
    if not missing:
        return []
    return [f"{len(missing)} images are missing or broken: {', '.join(missing)}"]


def _say(job: Job, finding: Finding, inputs: Inputs) -> None:
    print(f"{inputs.facts['path']}: {finding.verdict}: {finding.reason}")
    print(f"report: {job.out / 'report.html'}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
