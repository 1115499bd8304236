"""Mitigate every backdoored model of a zoo and judge the result with the attacker's own trigger.

Tables 5 and 6 of the paper: DAE should fall to RE, AE rise to that of a benign model, RE stay.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from guard.device import pick_device, set_precision
from guard.errors import UnusableInput
from guard.finding import Finding
from guard.lesson import MitigationSettings
from guard.load import load_model
from guard.mitigation import Mitigated, mitigate_until_clean
from guard.model import Model
from guard.screen import Settings, screen
from tools.datasets.reader import BenignData, read
from tools.zoo.changes import changed
from tools.zoo.choice import left
from tools.zoo.lines import IMAGES, append_line, read_lines
from tools.zoo.measure import measure
from tools.zoo.plain import RATES, fine_tuned
from tools.zoo.screen import line_of
from tools.zoo.store import row_of, test_images
from tools.zoo.train import twins
from tools.zoo.truth import Truth, load_truth, read_truth
from tools.zoo.workers import run_all


def mitigate_zoo(
    zoo: Path,
    *,
    out: Path,
    device: str = "auto",
    limit: int | None = None,
    only: str | None = None,
    seed: int = 0,
    jobs: int = 1,
    change: str = "",
) -> None:
    """Screen and mitigate the working attacks of `zoo`, a flushed line each in the file `out`.

    With the settings of the mitigation that `change` names (tools/zoo/changes.py). Models that
    `out` names already (with this seed and change) are skipped; `only` names those to take.
    Raises UnusableInput.
    """
    settings = changed(MitigationSettings(), change)
    folders = [path.parent for path in sorted(zoo.glob("*/truth.json")) if _works(path)]
    if not folders:
        raise UnusableInput(f"{zoo}: no model with a working attack; run `drmguard zoo train`")
    lines, asked = read_lines(out), (seed, change)
    done = [line["name"] for line in lines if (line.get("seed"), line.get("change", "")) == asked]
    taken = left(folders, done, only)[:limit]
    tasks = [(folder, str(pick_device(device)), seed, settings) for folder in taken]
    for line in run_all(mitigate_one, tasks, jobs):
        append_line(out, {**line, "change": change})
        print(_summary(line), flush=True)


def _works(path: Path) -> bool:
    truth = read_truth(path)
    return truth["attack"] != "benign" and truth["status"] == "ok"


def mitigate_one(
    folder: Path, device: str, seed: int, settings: MitigationSettings
) -> dict[str, Any]:
    """One model's line: the screening's, and errors with the true trigger before, after, and after
    plain fine-tuning.

    `benign_model` has those of a model that never held a backdoor: a trigger that spoils the
    picture spoils its answers too.
    """
    set_precision(tf32=False)
    truth, where = load_truth(folder), torch.device(device)
    model = load_model(folder / "model.safetensors").to(where)
    data = read(folder / truth.values["benign_data"], model.spec, limit=IMAGES, seed=seed)
    data.benign = data.benign.to(where)
    began = time.perf_counter()
    found = screen(model, data.benign, Settings(seed=seed))
    line = {
        **line_of(truth.values, found, model),
        "images": len(data.benign),
        "seed": seed,
        "before": judged(model, truth, folder),
    }
    twin = benign_twin(truth, folder.parent)
    if twin is not None:
        line["benign_model"] = judged(twin.to(where), truth, folder)
    if found.verdict == "backdoored":
        result = unlearnt(model, data, found, settings, seed)
        ends = {key: fine_tuned(model, data.benign, rate, seed) for key, rate in RATES.items()}
        ends["after"] = result.model
        line |= _outcome(result) | {key: judged(end, truth, folder) for key, end in ends.items()}
    return {**line, "device": device, "seconds": round(time.perf_counter() - began, 1)}


def benign_twin(truth: Truth, zoo: Path) -> Model | None:
    """A benign model of `zoo` alike: what its errors are, no mitigation need fall below."""
    rows = [row_of(read_truth(path)) for path in sorted(zoo.glob("*/truth.json"))]
    alike = twins(row_of(truth.values), rows)
    return load_model(zoo / alike[0].name / "model.safetensors") if alike else None


def unlearnt(
    model: Model, data: BenignData, found: Finding, settings: MitigationSettings, seed: int
) -> Mitigated:
    """What `drmguard check` would make of the model."""

    def rescreen(pupil: Model, number: int) -> Finding:
        return screen(pupil, data.benign, Settings(seed=seed + 1 + number))

    return mitigate_until_clean(model, data.benign, found.triggers, rescreen, settings, seed=seed)


def _outcome(result: Mitigated) -> dict[str, Any]:
    return {
        "accepted": result.accepted,
        "reason": result.reason,
        "rounds": len(result.rescreens),
        "held_before": asdict(result.before),
        "held_after": asdict(result.after),
        "curve": [[step, look.benign, look.triggered] for step, look in result.curve],
        "rescreen_score": result.rescreens[-1].score,
    }


def judged(model: Model, truth: Truth, folder: Path) -> dict[str, float]:
    """RE, AE and DAE on the test images, with the true trigger."""
    assert truth.attack is not None
    assert truth.A is not None
    where = next(model.parameters()).device
    x, y = (part.to(where) for part in test_images(folder, truth.values))
    found = measure(model, truth.attack, truth.A.to(where), x, y)
    return {"RE": found.RE, "AE": found.AE, "DAE": found.DAE}


def _summary(line: dict[str, Any]) -> str:
    if "after" not in line:
        return f"{line['name']} ({line['label']}): {line['verdict']}, nothing to unlearn"
    ends = [line[key] for key in ("before", "after", *RATES)]
    figures = [f"RE {e['RE']:.2f} AE {e['AE']:.2f} DAE {e['DAE']:.2f}" for e in ends]
    word = "accepted" if line["accepted"] else "not accepted"
    course = f"{figures[0]} -> {figures[1]}; plain fine-tuning {' or '.join(figures[2:])}"
    return f"{line['name']} ({line['label']}): {word}; {course}"
