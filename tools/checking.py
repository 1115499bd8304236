"""`drmguard check`, the main job: screen, mitigate, export, prove parity and what ships, report.

files -> model and benign set -> trigger search -> verdict -> mitigation -> ONNX -> parity -> report
"""

import time
from pathlib import Path
from typing import Any

from guard.finding import Finding
from guard.model import Model
from tools.bom import write_bom
from tools.exporting import precisions
from tools.job import Job, Opened, open_job
from tools.report import Evidence, report_values
from tools.rescreening import rescreen_files
from tools.screening import conclude, find, finished_before, gather, say_again
from tools.shipping import ship
from tools.unlearning import mitigation_values, store, unlearn


def check(out: str, **words: Any) -> int:
    """Gives the exit code of the contract. Raises UnusableInput."""
    job = Job(out=Path(out), command="check", **words)
    wanted = precisions(job.precision)
    began = time.perf_counter()
    opened = open_job(job)
    if finished_before(opened):
        return say_again(job.out)
    finding = find(opened)
    evidence = gather(opened, finding)
    files: list[Path] = []
    if finding.verdict != "inconclusive":
        fit = fit_to_ship(opened, finding, evidence, files)
        files += export_and_prove(opened, finding, fit, evidence, wanted)
    evidence.timings["total_seconds"] = time.perf_counter() - began
    return conclude(opened, evidence, files)


def fit_to_ship(
    opened: Opened, finding: Finding, evidence: Evidence, files: list[Path]
) -> Model | None:
    """The supplied model where it is clean; the mitigated one, None where it was not accepted."""
    if finding.verdict == "clean":
        return opened.inputs.model
    start = time.perf_counter()
    result = unlearn(opened, finding.triggers)
    files += store(result, opened.job.out)
    evidence.mitigation = mitigation_values(result, opened)
    evidence.timings["mitigation_seconds"] = time.perf_counter() - start
    return result.model if result.accepted else None


def export_and_prove(
    opened: Opened, finding: Finding, fit: Model | None, evidence: Evidence, wanted: list[str]
) -> list[Path]:
    """The ONNX files, parity.json and bom.json; gives all that was written."""
    start = time.perf_counter()
    shipped = ship(opened, finding, fit, wanted)
    evidence.parity, evidence.latency = shipped.rows, shipped.latency
    evidence.timings["export_seconds"] = time.perf_counter() - start
    if not shipped.models:
        return shipped.files
    start = time.perf_counter()
    evidence.shipped = rescreen_files(opened, shipped.models, last_seed(opened, evidence))
    evidence.timings["rescreen_seconds"] = time.perf_counter() - start
    bom = opened.job.out / "bom.json"
    write_bom(report_values(evidence), shipped.models, bom)
    return [*shipped.files, bom]


def last_seed(opened: Opened, evidence: Evidence) -> int:
    """The seed of the screening that called the exported model clean: the files repeat it."""
    rounds = evidence.mitigation["rounds"] if evidence.mitigation else 0
    return opened.job.seed + int(rounds)
