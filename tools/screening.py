"""`drmguard screen`: files -> model and benign set -> trigger search -> verdict -> report."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from guard.device import environment
from guard.engine import Engine
from guard.errors import UnusableInput
from guard.finding import Finding
from guard.screen import screen as search
from guard.screen import split
from guard.trigger_file import save_triggers
from tools.inputs import Inputs, model_path
from tools.job import (
    GATE_FAILED,
    MANIFEST,
    NOTE,
    REPORT,
    STATE,
    Job,
    Opened,
    note,
    noting,
    open_job,
    own_files,
    prepare_folder,
    remove,
)
from tools.manifest import write_manifest
from tools.progress import progress
from tools.report import Evidence, write_report

EXIT_CODES = {"clean": 0, "backdoored": 1, "inconclusive": 3}
GATES = ("mitigation", "parity", "shipped", "not_done")  # what may fail after the verdict


def screen(out: str, **words: Any) -> int:
    """`drmguard screen`. Raises UnusableInput."""
    job = Job(out=Path(out), command="screen", **words)
    began = time.perf_counter()
    opened = open_job(job)
    if finished_before(opened):
        return say_again(job.out)
    finding = find(opened)
    with noting(job.out):
        evidence = gather(opened, finding)
        evidence.timings["total_seconds"] = time.perf_counter() - began
        return conclude(opened, evidence)


def find(opened: Opened) -> Finding:
    """Search for a trigger, resumable, and store the one that was found."""
    job = opened.job
    prepare_folder(job)
    engine = Engine(
        device=opened.device,
        seed=job.seed,
        fingerprint=opened.fingerprint,
        state=job.out / STATE,
        progress=progress(job.quiet),
    )
    if job.resume:
        engine.resume()
    finding = search(opened.inputs.model, opened.inputs.data.benign, opened.settings, engine)
    finding = held_to_file(opened, finding)
    note(job.out, None)
    path, model = job.out / "trigger.safetensors", opened.inputs.facts["sha256"]
    save_triggers(finding.triggers, path, model)
    return finding


def held_to_file(opened: Opened, finding: Finding) -> Finding:
    """The finding, never "clean" where a supplied ONNX file answers otherwise under a trigger."""
    path = model_path(opened.job.model)
    if path.suffix != ".onnx":
        return finding
    from tools.supplied import check_on  # onnx and onnxruntime load slowly

    try:
        check_on(opened.inputs.model, path, opened.inputs.data.benign, finding.triggers)
    except UnusableInput as error:
        if finding.verdict != "clean":
            return replace(finding, warnings=[*finding.warnings, f"under a trigger, {error}"])
        return replace(finding, verdict="inconclusive", reason=f"under a trigger, {error}")
    return finding


def conclude(opened: Opened, evidence: Evidence, files: Sequence[Path] = ()) -> int:
    """Write the report and the manifest of it and of `files`; say it; give the exit code."""
    out = opened.job.out
    figures = write_report(evidence, out)
    written = [*(out / name for name in REPORT), *figures, *files]
    # What this run wrote and nothing has proved must not stay under the name of what ships.
    remove(out, [name for name in own_files(out) if out / name not in written])
    write_manifest(out, written)
    remove(out, (NOTE, STATE))  # last: until here --resume can mend a kill
    finding = evidence.finding
    print(f"{opened.inputs.facts['path']}: {finding.verdict}: {finding.reason}")
    gates = failed_gates({name: getattr(evidence, name) for name in GATES})
    for line in gates:
        print(line)
    print(f"report: {out / 'report.html'}")
    return GATE_FAILED if gates else EXIT_CODES[finding.verdict]


def failed_gates(values: Mapping[str, Any]) -> list[str]:
    """A line for each acceptance gate that failed; `values` as in report.json."""
    mitigation, parity, shipped, not_done = (values.get(name) for name in GATES)
    rows: list[dict[str, Any]] = parity or []
    lines = []
    if not_done is not None:
        lines.append(f"not all could be done: {not_done}")
    if mitigation is not None and not mitigation["accepted"]:
        lines.append(f"mitigation not accepted: {mitigation['reason']}")
    missed = [row for row in rows if not row["passed"]]
    if missed:
        row = missed[0]
        lines.append(
            f"parity failed in {len(missed)} of {len(rows)} comparisons, first {row['file']} "
            f"on {row['provider']}, batch {row['batch']}"
        )
    for row in shipped or []:
        if row["verdict"] != "clean":
            lines.append(f"{row['file']}, screened again, is {row['verdict']}: {row['reason']}")
    return lines


def finished_before(opened: Opened) -> bool:
    """Whether --resume finds this very run complete. Raises UnusableInput for another one's."""
    job, report = opened.job, opened.job.out / "report.json"
    if not (job.resume and report.exists()):
        return False
    try:
        config = json.loads(report.read_text())["config"]
        asked = config["fingerprint"], config["steps"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UnusableInput(f"{report}: not a readable report; pass --overwrite") from None
    if asked != (opened.fingerprint, steps(job)):
        raise UnusableInput(
            f"{job.out}: its report is of another model, other data, another command or other "
            "settings; pass --overwrite, or another --out"
        )
    return (job.out / MANIFEST).exists()  # without, a kill came before the end


def say_again(out: Path) -> int:
    """The verdict of a complete report, and its exit code."""
    report = json.loads((out / "report.json").read_text())
    print(f"{out}: finished before: {report['verdict']}")
    return GATE_FAILED if failed_gates(report) else EXIT_CODES[report["verdict"]]


def steps(job: Job) -> dict[str, Any]:
    """What the command does after the verdict; a resumed run must ask for the same."""
    if job.command == "screen":
        return {"command": "screen"}
    return {
        "command": job.command,
        "precision": job.precision,
        "opset": job.opset,
        "embed_preprocessing": job.embed_preprocessing,
    }


def gather(opened: Opened, finding: Finding) -> Evidence:
    """What the report needs of a screening."""
    job, inputs = opened.job, opened.inputs
    search_part, held_part = split(inputs.data.benign, job.seed)
    roles = {"search": len(search_part), "measure": len(held_part)}
    return Evidence(
        finding=finding,
        model=inputs.model,
        benign=held_part,
        benign_error=opened.benign_error,
        model_facts=inputs.facts,
        data_facts={**inputs.data.facts(), "roles": roles},
        config={
            "command": sys.argv[1:],
            "steps": steps(job),
            "fingerprint": opened.fingerprint,
            "seed": job.seed,
            "images": job.images,
            **finding.settings,
        },
        environment=environment(inputs.data.benign.device),
        timings=dict(finding.timings),
        warnings=[*_warnings(inputs), *finding.warnings],
        started=opened.started,
    )


def _warnings(inputs: Inputs) -> list[str]:
    missing = inputs.data.missing
    if not missing:
        return []
    return [f"{len(missing)} images are missing or broken: {', '.join(missing)}"]
