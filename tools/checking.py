"""`drmguard check`, the main job: screen, mitigate, export, prove parity and what ships, report.

files -> model and benign set -> trigger search -> verdict -> mitigation -> ONNX -> parity -> report
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.graph_read import read_program
from export.write import check_opset, trace_model
from guard.errors import UnusableInput
from guard.finding import Finding
from guard.model import Model
from tools.bom import write_bom
from tools.exporting import precisions
from tools.job import ACCEPTED, BOM, GENERATOR, Job, Opened, noting, open_job
from tools.report import Evidence, report_values
from tools.rescreening import rescreen_files, screen_export
from tools.screening import conclude, find, finished_before, gather, say_again
from tools.shipping import facts_of, ship
from tools.unlearning import mitigation_values, store, unlearn


def check(out: str, **words: Any) -> int:
    """Gives the exit code of the contract. Raises UnusableInput."""
    job = Job(out=Path(out), command="check", **words)
    wanted = precisions(job.precision)
    check_opset(job.opset, job.opset)  # before any search
    began = time.perf_counter()
    opened = open_job(job)
    if finished_before(opened):
        return say_again(job.out)
    check_readable(opened)
    finding = find(opened)
    with noting(job.out):
        evidence = gather(opened, finding)
        later = finding.verdict != "inconclusive"
        files = make_shippable(opened, finding, evidence, wanted) if later else []
        evidence.timings["total_seconds"] = time.perf_counter() - began
        return conclude(opened, evidence, files)


def check_readable(opened: Opened) -> None:
    """Before any search: what would be exported can be opened and screened again.

    A model that no exporter follows keeps its verdict. Raises UnusableInput.
    """
    job, model = opened.job, opened.inputs.model
    try:
        embed = job.embed_preprocessing
        graph = trace_model(model, opset=job.opset, embed_preprocessing=embed).graph
    except UnusableInput:
        return  # the report says why
    try:
        read_program(graph, Path("its ONNX file"), job.opset, None)
    except UnusableInput as error:
        raise UnusableInput(
            f"{opened.inputs.facts['path']}: what is exported of it could not be screened again "
            f"({error}); try another --opset, or have the verdict alone from `drmguard screen`"
        ) from None


def make_shippable(
    opened: Opened, finding: Finding, evidence: Evidence, wanted: list[str]
) -> list[Path]:
    """Mitigate, export, prove; gives all files. What can't be done must not cost the verdict."""
    files: list[Path] = []
    try:
        fit = fit_to_ship(opened, finding, evidence)
        files += fit.files
        files += export_and_prove(opened, finding, fit, evidence, wanted)
    except UnusableInput as error:
        evidence.not_done = str(error)
    return files


@dataclass
class Fit:
    """What may be shipped."""

    model: Model | None  # None: no model is fit to
    files: list[Path] = field(default_factory=list)  # written on the way
    screened: dict[str, Finding] = field(default_factory=dict)  # by the SHA-256 of a file


def fit_to_ship(opened: Opened, finding: Finding, evidence: Evidence) -> Fit:
    """The supplied model where it is clean; the mitigated one, none where it was not accepted."""
    if finding.verdict == "clean":
        return Fit(opened.inputs.model)
    start, fit = time.perf_counter(), Fit(None)

    def rescreen(model: Model, seed: int) -> Finding:
        return screen_export(opened, finding, model, seed, fit.screened)

    result = unlearn(opened, finding.triggers, rescreen)
    fit.model = result.model if result.accepted else None
    # What ships is proved: `ship` writes the accepted one's files, in the precisions asked for.
    fit.files = store(result, opened.job.out, facts_of(opened, finding), graph=not result.accepted)
    evidence.mitigation = mitigation_values(result, opened)
    evidence.timings["mitigation_seconds"] = time.perf_counter() - start
    return fit


def export_and_prove(
    opened: Opened, finding: Finding, fit: Fit, evidence: Evidence, wanted: list[str]
) -> list[Path]:
    """The ONNX files, parity.json and bom.json; gives all that was written."""
    start = time.perf_counter()
    shipped = ship(opened, finding, fit.model, wanted)
    evidence.parity, evidence.latency = shipped.rows, shipped.latency
    evidence.timings["export_seconds"] = time.perf_counter() - start
    if not shipped.models:
        return shipped.files
    start = time.perf_counter()
    seed = last_seed(opened, evidence)
    evidence.shipped = rescreen_files(opened, shipped.models, seed, fit.screened)
    evidence.timings["rescreen_seconds"] = time.perf_counter() - start
    bom = opened.job.out / BOM
    written = (*fit.files, *shipped.files)
    beside = [file for file in written if file.name in (f"{ACCEPTED}.safetensors", GENERATOR)]
    write_bom(report_values(evidence), shipped.models, beside, bom)
    return [*shipped.files, bom]


def last_seed(opened: Opened, evidence: Evidence) -> int:
    """The seed of the screening that called the exported model clean: the files repeat it."""
    rounds = evidence.mitigation["rounds"] if evidence.mitigation else 0
    return opened.job.seed + int(rounds)
