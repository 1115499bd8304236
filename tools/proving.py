"""`drmguard parity`: does an ONNX file compute what the model computes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from torch import nn

from export.groups import image_groups
from export.half import ABOUT, HALF
from export.judge import Worst
from export.latency import latency
from export.parity import Proof, prove
from export.session import uses_tf32
from export.subject import model_subject
from guard.device import environment, pick_device
from guard.errors import UnusableInput
from guard.files import whole_file, write_json
from guard.model import Model
from guard.trigger_file import load_triggers
from tools.job import GATE_FAILED, PARITY, Job, check_folder, check_method, inputs_of, make_folder
from tools.recovered import trigger_facts


def parity(out: str, file: str, trigger: str | None, **words: Any) -> int:
    """Prove one file and write parity.json; 0 or 4. Raises UnusableInput."""
    job = Job(out=Path(out), command="parity", **words)
    check_method(job.method)
    check_folder(job)
    if (job.out / "report.json").exists():
        raise UnusableInput(
            f"{job.out}: holds a report, and this is not its proof; pass another --out"
        )
    device = pick_device(job.device)
    inputs = inputs_of(job, device)
    make_folder(job.out)
    shown = None if trigger is None else open_trigger(Path(trigger), inputs.model)
    subject, path = model_subject(inputs.model), Path(file)
    groups = image_groups(inputs.data.benign, shown, seed=job.seed)
    proof = prove(subject, [path], groups)
    facts = {
        "model": inputs.facts,
        "data": inputs.data.facts(),
        "environment": environment(device),
        "latency": latency(subject, path),
        "trigger": None if trigger is None else trigger_facts(Path(trigger)),
    }
    write_parity([proof], job.out, facts)
    print("\n".join(proof_lines(proof)))
    return 0 if proof.passed else GATE_FAILED


def open_trigger(path: Path, model: Model) -> nn.Module | None:
    """The trigger that decided, of a file, on the model's device; None where none was found."""
    trigger = load_triggers(path, model)[0]
    return None if isinstance(trigger, nn.Identity) else trigger


def write_parity(proofs: Sequence[Proof], folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write parity.json and the worst image of each file; what was written in parity.json.

    `facts` are its further keys: model, data, environment, latency. Raises UnusableInput where
    the folder can't be written to.
    """
    worst = [image for proof in proofs for image in proof.worst]
    options = {name: given for proof in proofs for name, given in proof.options.items()}
    values = {
        "schema_version": 1,
        "passed": all(proof.passed for proof in proofs),
        "rows": [row for proof in proofs for row in proof.rows],
        "worst": [_worst_values(image) for image in worst],
        "proofs": [_basis(proof) for proof in proofs],
        "providers": {
            "run": sorted({row["provider"] for proof in proofs for row in proof.rows}),
            "not_running": sorted({line for proof in proofs for line in proof.not_running}),
            "options": options,
            "about": {HALF: ABOUT},
            "onnxruntime": onnxruntime.__version__,
        },
        "tf32": {
            "torch": any(on for proof in proofs for on in proof.tf32.values()),
            "onnxruntime": uses_tf32(options),
        },
        **facts,
    }
    try:
        for image in worst:
            _write_picture(image, folder / _picture(image))
        write_json(folder / PARITY, values)
    except OSError as error:
        raise UnusableInput(f"{folder}: can't be written to ({error.strerror})") from None
    return values


def _basis(proof: Proof) -> dict[str, Any]:
    files = sorted({row["file"] for row in proof.rows})
    rest = {"noise": proof.noise, "spread": proof.spread, "images": proof.images}
    return {"files": files, "unit": proof.unit, **rest}


def _worst_values(image: Worst) -> dict[str, Any]:
    where = {"images": image.group, "index": image.index, "name": image.name}
    return {"file": image.file, **where, "picture": str(_picture(image)), "ratio": image.ratio}


def _picture(image: Worst) -> Path:
    return Path("figures") / f"parity-worst-{Path(image.file).stem}.png"


def _write_picture(image: Worst, path: Path) -> None:
    bgr = np.ascontiguousarray(image.image.flip(0).permute(1, 2, 0).numpy())
    with whole_file(path) as temporary:
        if not cv2.imwrite(str(temporary), bgr):
            raise OSError(0, f"{path} can't be encoded")


def proof_lines(proof: Proof) -> list[str]:
    """A line on each file: passed, or its first row that did not."""
    lines = []
    for name in dict.fromkeys(row["file"] for row in proof.rows):
        rows = [row for row in proof.rows if row["file"] == name]
        failed = [row for row in rows if not row["passed"]]
        if failed:
            row = failed[0]
            where = f"{row['images']} images in batches of {row['batch']}, {row['provider']}"
            lines.append(f"{name}: parity missed: {row['reason']} ({where})")
            continue
        statistic = rows[0]["tolerance_of"]
        largest = max(row[f"{statistic}_task_error"] for row in rows)
        what = {"max": "largest difference", "mean": "largest mean difference"}[statistic]
        judged = f"{rows[0]['precision']}, {what} {largest:.3g} {proof.unit}"
        if rows[0]["batch_fixed"]:
            judged += f", in batches of {rows[0]['batch']} alone, as the file fixes them"
        lines.append(f"{name}: parity passed: {judged}")
    return [*lines, *(f"not running: {line}" for line in proof.not_running)]
