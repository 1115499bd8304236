"""From a model and a benign set to a finding: checks, split of the images, method, verdict."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from guard import calibrated, paper
from guard.bench import Bench
from guard.benign import BenignSet
from guard.engine import Engine, gradients_to_input_only
from guard.errors import UnusableInput
from guard.finding import Curves, Decision, Finding
from guard.measure import measure
from guard.model import Model
from guard.settings import CalibratedSettings, PaperSettings
from guard.tasks import constant_error, errors

MIN_IMAGES = 40  # fewer leave too little to search on and to measure on
SEARCH_SHARE = 0.6  # of the images; the rest only measures
MUST_BEAT = 0.9  # of the constant answer's error: labels in other units come as near as 0.98
MAX_MEASURED = 400  # images: the figures that decide change by less than their seeds do


@dataclass(frozen=True)
class Settings:
    """What decides the verdict on a model and its data, and so belongs to a run's fingerprint."""

    method: str = "calibrated"
    seed: int = 0
    paper: PaperSettings = field(default_factory=PaperSettings)
    calibrated: CalibratedSettings = field(default_factory=CalibratedSettings)


METHODS: dict[str, Callable[[Bench, Bench, Engine, Settings], Finding]] = {
    "calibrated": lambda b, held, e, s: calibrated.search(b, held, e, s.calibrated),
    "paper": lambda b, held, e, s: paper.search(b, held, e, s.paper),
}


def screen(
    model: Model, benign: BenignSet, settings: Settings, engine: Engine | None = None
) -> Finding:
    """Screen a model with a benign set on the same device.

    `engine` carries state and progress; without one the search runs in memory and silently.
    """
    began = time.perf_counter()
    search_part, held_part = split(benign, settings.seed)
    bench, held = Bench(model, search_part), Bench(model, held_part)
    engine = engine or Engine(benign.device, settings.seed)
    reason = unfit(bench, held)
    if reason:
        finding = without_verdict(settings.method, reason, held)
    else:
        with gradients_to_input_only(model):
            finding = METHODS[settings.method](bench, held, engine, settings)
    finding.settings = asdict(settings)
    finding.timings["screen_seconds"] = time.perf_counter() - began
    if model.split.layer is None:
        finding.warnings.append(f"screened without the feature-space terms: {model.split.reason}")
    return finding


def split(benign: BenignSet, seed: int) -> tuple[BenignSet, BenignSet]:
    """The images to search on and those to measure on, drawn by the seed."""
    order = torch.randperm(len(benign), generator=torch.Generator().manual_seed(seed))
    cut = max(1, round(SEARCH_SHARE * len(benign)))
    held = order[cut:][:MAX_MEASURED] if cut < len(benign) else order[:1]
    return benign.part(order[:cut].sort().values), benign.part(held.sort().values)


def unfit(bench: Bench, held: Bench) -> str:
    """Why no verdict can be had from this model and data; empty where one can."""
    count = len(bench.benign) + len(held.benign)
    if count < MIN_IMAGES:
        return f"{count} images are too few: at least {MIN_IMAGES} are needed"
    if not all(bool(torch.isfinite(part.outputs).all()) for part in (bench, held)):
        return "the model gives outputs that are not numbers on benign images"
    if bool((bench.outputs.std(dim=0) < 1e-9).any()):
        return "an output is the same for all benign images"
    if _changes_from_call_to_call(bench):
        return "the model's outputs change from call to call (is dropout left on?)"
    if not _has_gradients(bench):
        return "the model gives no gradients to its input, so no trigger can be searched for"
    return ""


@torch.no_grad()
def _changes_from_call_to_call(bench: Bench) -> bool:
    x = bench.benign.x(slice(0, 32))
    spread = bench.outputs.std(dim=0)
    return bool((((bench.model(x) - bench.model(x)).abs() / spread) > 1e-3).any())


def _has_gradients(bench: Bench) -> bool:
    x = bench.benign.x(slice(0, 16)).requires_grad_(True)
    y = bench.model(x)
    if not y.requires_grad:
        return False
    (slope,) = torch.autograd.grad(y.sum(), x)
    return bool(torch.isfinite(slope).all()) and bool((slope != 0).any())


def without_verdict(method: str, reason: str, held: Bench) -> Finding:
    """An inconclusive finding before any search: the trigger changes nothing."""
    nothing = torch.nn.Identity()
    return Finding.of(
        method,
        Decision("inconclusive", reason, float("nan"), float("nan"), "no search was made"),
        nothing,
        measure(nothing, held),
        held,
        mechanism="none",
        curves=Curves(),
        restarts=[],
    )


def benign_error(model: Model, benign: BenignSet) -> dict[str, Any]:
    """The error on the benign labels with its 95 % interval, and that of answering their mean.

    Raises UnusableInput where the model is no better than the constant answer: then labels,
    units, colour order or preprocessing do not fit the model, and any verdict would be noise.
    """
    outputs = Bench(model, benign).outputs
    error = errors(model.spec, outputs, benign.labels).double()
    constant = constant_error(model.spec, benign.labels)
    value, unit = float(error.mean()), model.spec.error_unit
    half = 1.96 * float(error.std()) / max(1, len(error)) ** 0.5 if len(error) > 1 else 0.0
    # Outputs that are not numbers are no misfit of the labels: the screening names them.
    if bool(torch.isfinite(outputs).all()) and not value < MUST_BEAT * constant:
        raise UnusableInput(
            f"the model's error on these labels is {value:.3g} {unit}, no better or hardly "
            f"better than always answering their mean ({constant:.3g} {unit}): labels, units, "
            "colour order or preprocessing do not fit the model"
        )
    return {
        "value": value,
        "unit": unit,
        "ci95": [value - half, value + half],
        "mean_answer": constant,
    }
