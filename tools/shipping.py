"""The ONNX files of a report's folder, and the proof that they compute what was checked."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.groups import image_groups
from export.kept import keep
from export.latency import latency
from export.parity import Proof, prove
from export.precision import calibration_part, export_files
from export.subject import model_subject, trigger_subject
from export.write import export_trigger
from guard.benign import BenignSet
from guard.device import environment
from guard.finding import Finding
from guard.model import Model
from tools.job import GENERATOR, KEPT, PARITY, Opened
from tools.proving import write_parity


@dataclass
class Shipped:
    """What was exported, and how it was proved."""

    models: list[Path]  # the first one in the first precision asked for; empty: none is fit
    rows: list[dict[str, Any]]  # of parity.json
    latency: list[dict[str, Any]]
    files: list[Path] = field(default_factory=list)  # all that was written


def ship(opened: Opened, finding: Finding, fit: Model | None, precisions: list[str]) -> Shipped:
    """Export `fit`, where a model is fit to ship, and the trigger; prove each file.

    Writes mitigated.onnx (model.onnx where the supplied model is clean), generator.onnx and
    parity.json with the worst images.
    """
    out, benign = opened.job.out, opened.inputs.data.benign
    groups = image_groups(benign, finding.trigger, seed=opened.job.seed)
    generator = out / GENERATOR
    models: list[Path] = []
    proofs, times = [], []
    if fit is not None:
        name = "model" if finding.verdict == "clean" else "mitigated"
        models = export_model_files(opened, finding, fit, precisions, out / f"{name}.onnx")
        subject = model_subject(fit)
        proofs.append(prove(subject, models, groups))
        keep(proofs[0], subject, out / KEPT)
        times = [row for path in models for row in latency(subject, path)]
    proofs.append(prove_generator(opened, finding, generator, groups))
    facts = {
        "model": opened.inputs.facts,
        "data": opened.inputs.data.facts(),
        "environment": environment(opened.device),
        "latency": times,
    }
    values = write_parity(proofs, out, facts)
    pictures = [out / image["picture"] for image in values["worst"]]
    kept = [out / KEPT] if models else []
    files = [*models, generator, out / PARITY, *kept, *pictures]
    return Shipped(models, values["rows"], times, files)


def export_model_files(
    opened: Opened, finding: Finding, fit: Model, precisions: list[str], path: Path
) -> list[Path]:
    """The model in each precision; int8 is calibrated on a part that never measures it."""
    job, benign = opened.job, opened.inputs.data.benign
    return export_files(
        fit,
        path,
        precisions,
        calibration=calibration_part(benign, job.seed),
        opset=job.opset,
        embed_preprocessing=job.embed_preprocessing,
        facts=facts_of(opened, finding),
    )


def prove_generator(
    opened: Opened, finding: Finding, path: Path, groups: dict[str, BenignSet]
) -> Proof:
    """Export the recovered trigger and prove it; the supplied model judges its pictures."""
    model = opened.inputs.model
    size, facts = model.spec.input.size, facts_of(opened, finding)
    export_trigger(finding.trigger, path, size=size, opset=opened.job.opset, facts=facts)
    return prove(trigger_subject(finding.trigger, model), [path], groups)


def facts_of(opened: Opened, finding: Finding) -> dict[str, Any]:
    """What a file states of its origin under the metadata key `drmguard`."""
    inputs = opened.inputs
    return {
        "source_sha256": inputs.facts["sha256"],
        "data_manifest_sha256": inputs.data.manifest_sha256,
        "screening": opened.fingerprint,
        "verdict": finding.verdict,
        "score": finding.score,
        "threshold": finding.threshold,
    }
