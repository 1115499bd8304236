"""What `drmguard mitigate` writes into the folder of a report, or into one of its own."""

from pathlib import Path
from typing import Any

from export.groups import image_groups
from export.kept import keep
from export.latency import latency
from export.parity import Proof, prove
from export.subject import model_subject
from guard.device import environment
from guard.errors import UnusableInput
from guard.mitigation import Mitigated
from guard.spec import ONNX
from tools.agreement import Stated, read
from tools.job import ACCEPTED, KEPT, PARITY, STATE, Opened, check_targets
from tools.proving import write_parity


def origin_of(opened: Opened) -> dict[str, Any]:
    """Where a mitigated file comes from: as the report states it, where the folder holds one.

    Raises UnusableInput where the folder is that of another model, or of a run with models of its
    own: its report, proof and bill of materials would not speak of the files beside them.
    """
    out, inputs = opened.job.out, opened.inputs
    data = inputs.data.manifest_sha256
    origin = {"source_sha256": inputs.facts["sha256"], "data_manifest_sha256": data}
    if (out / STATE).exists():
        raise UnusableInput(f"{out}: holds a begun run; pass another --out")
    if not (out / "report.json").exists():
        return origin
    report = read(out / "report.json")
    stated = Stated.of(report, out / "report.json").origin
    if not origin.items() <= stated.items():
        raise UnusableInput(
            f"{out}: its report is of another model or other images; pass another --out"
        )
    if "mitigation" in report or "parity" in report:
        raise UnusableInput(f"{out}: holds a check's own models and proof; pass another --out")
    return stated


def check_proof(opened: Opened) -> None:
    """The names of a proof must be free too, where there will be one. Raises UnusableInput."""
    if opened.inputs.model.spec.arch == ONNX:
        out, picture = opened.job.out, f"parity-worst-{ACCEPTED}.png"
        names = (out / PARITY, out / KEPT, out / "figures" / picture)
        check_targets(names, opened.job.overwrite)


def prove_beside(result: Mitigated, path: Path, opened: Opened) -> tuple[Proof, list[Path]]:
    """The proof of a mitigated ONNX file and what was written for it, as a check writes it."""
    out, inputs = opened.job.out, opened.inputs
    groups = image_groups(inputs.data.benign, result.triggers[0], seed=opened.job.seed)
    subject = model_subject(result.model)
    proof = prove(subject, [path], groups)
    keep(proof, subject, out / KEPT)
    facts = {
        "model": inputs.facts,
        "data": inputs.data.facts(),
        "environment": environment(opened.device),
        "latency": latency(subject, path),
    }
    values = write_parity([proof], out, facts)
    return proof, [out / KEPT, out / PARITY, *(out / one["picture"] for one in values["worst"])]
