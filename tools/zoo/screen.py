"""Screen every model of a zoo with one method and note what it says beside the truth."""

import time
from pathlib import Path
from typing import Any

import torch

from guard.device import pick_device, set_precision
from guard.errors import UnusableInput
from guard.finding import Finding
from guard.load import load_model
from guard.model import Model
from guard.screen import Settings, screen
from guard.space import OutputSpace
from guard.tasks import errors
from tools.datasets.reader import read
from tools.job import check_method
from tools.zoo.changes import changed
from tools.zoo.choice import left
from tools.zoo.lines import IMAGES, append_line, read_lines
from tools.zoo.truth import TRUTH, read_truth
from tools.zoo.workers import run_all

NO_MODEL = "failed_training"  # such a folder holds no usable weights


def screen_zoo(
    zoo: Path,
    *,
    method: str = "calibrated",
    out: Path,
    device: str = "auto",
    limit: int | None = None,
    only: str | None = None,
    seed: int = 0,
    jobs: int = 1,
    images: int = IMAGES,
    data: Path | None = None,
    change: str = "",
) -> None:
    """Screen the models of the folder `zoo`, a flushed line each in the file `out`.

    Each model is screened with at most `images` of its benign set, or of those of `data`, and
    with the settings that `change` names (tools/zoo/changes.py). Models that `out` names already
    (with this method, these images, data, seed and change) are skipped. `only` names those to
    take (tools/zoo/choice.py), `limit` takes the first so many that are left. Raises UnusableInput.
    """
    settings = settings_of(method, seed, change)
    truths = sorted(zoo.glob("*/truth.json"))
    folders = [p.parent for p in truths if read_truth(p)["status"] != NO_MODEL]
    if not folders:
        raise UnusableInput(f"{zoo}: no finished models; run `drmguard zoo train` first")
    asked = {"method": method, "limit": images, "benign": None if data is None else data.name}
    asked |= {"seed": seed, "change": change}
    lines = [{"change": "", **line} for line in read_lines(out)]
    done = [line["name"] for line in lines if asked.items() <= line.items()]
    taken = left(folders, done, only)[:limit]
    tasks = [(folder, settings, str(pick_device(device)), images, data) for folder in taken]
    for line in run_all(screen_one, tasks, jobs):
        append_line(out, {**line, **asked})
        print(_summary(line), flush=True)


def settings_of(method: str, seed: int, change: str) -> Settings:
    """The settings of a screening, those of `change` among them. Raises UnusableInput."""
    check_method(method)
    return changed(Settings(method=method, seed=seed), change)


def screen_one(
    folder: Path, settings: Settings, device: str, images: int, path: Path | None
) -> dict[str, Any]:
    """One model's line: what its truth.json says and what the method found."""
    set_precision(tf32=False)
    truth = read_truth(folder / "truth.json")
    model = load_model(folder / "model.safetensors").to(torch.device(device))
    benign = path or folder / truth["benign_data"]
    data = read(benign, model.spec, limit=images, seed=settings.seed)
    began = time.perf_counter()
    finding = screen(model, data.benign.to(torch.device(device)), settings)
    return {
        **line_of(truth, finding, model),
        "images": len(data.benign),
        "seed": settings.seed,
        "device": device,
        "seconds": round(time.perf_counter() - began, 1),
    }


def line_of(truth: dict[str, Any], finding: Finding, model: Model) -> dict[str, Any]:
    """What is known of a model and what was found: what `drmguard zoo table` reads."""
    targets = truth["targets"]
    return {
        **{key: truth[key] for key in TRUTH},
        "method": finding.method,
        "verdict": finding.verdict,
        "reason": finding.reason,
        "score": finding.score,
        "threshold": finding.threshold,
        "target_estimate": finding.target,
        "target_error": target_error(model, finding.target, targets),
        "targets_found": finding.targets,
        "each_target_error": [target_error(model, true, finding.targets) for true in targets],
        "perturbation": finding.perturbation,
        "output_variance_ratio": finding.output_variance_ratio,
        "rav": finding.rav,
        "rnv": finding.rnv,
        "mechanism": finding.mechanism,
        "spread_left": finding.spread_left,
        "searches": [short(row) for row in finding.restarts],
        "space": space(finding),
        "warnings": finding.warnings,
    }


def short(row: dict[str, Any]) -> list[Any]:
    """A search's role and figures in four digits: enough to try another decision on old lines."""
    figures = [*row["found"], *(row.get(key) for key in ("cost", "baseline", "distance"))]
    return [row["role"], *(None if v is None else float(f"{v:.4g}") for v in figures)]


def space(finding: Finding) -> list[list[float]]:
    """Mean and spread of the benign outputs, a row each: what `searches` are whitened with."""
    known = OutputSpace.of(finding.benign_outputs)
    rows = [known.mean, *known.spread]
    return [[float(f"{v:.4g}") for v in row.tolist()] for row in rows]


def target_error(model: Model, found: list[float], targets: list[list[float]]) -> float | None:
    """The error between the target found and the nearest true one, in the task's unit."""
    if not targets or not found:
        return None
    true = torch.tensor(targets)
    return float(errors(model.spec, torch.tensor([found]).expand_as(true), true).min())


def _summary(line: dict[str, Any]) -> str:
    distance = "" if line["target_error"] is None else f", target off {line['target_error']:.1f}"
    return (
        f"{line['name']} ({line['label']}): {line['verdict']}, score {line['score']:.3g} "
        f"(threshold {line['threshold']:.3g}){distance}, {line['seconds']:.0f} s"
    )
