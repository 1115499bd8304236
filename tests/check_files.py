"""`drmguard check` of a tiny model with screenings that say what a test wants."""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from guard.bench import Bench
from guard.benign import BenignSet
from guard.engine import Engine
from guard.finding import Finding
from guard.lesson import MitigationSettings
from guard.model import Model
from guard.screen import Settings, split, without_verdict
from guard.triggers import SharedTriggers
from tests.conftest import benign_of, model_of, plain, spec_of, write_model, write_npz
from tools import cli, rescreening, screening, unlearning
from tools.job import Opened

SIDE = 24
ARCH = "tests.conftest:plain"
QUICK = functools.partial(
    MitigationSettings, steps=2, batch=4, check_every=1, rise=9.0, harm=9e9, forget=0.0
)


def files_of(folder: Path) -> tuple[str, str]:
    """A tiny convolutional model and images that fit it."""
    torch.manual_seed(0)
    network, spec = plain(2), spec_of("gaze", SIDE, arch=ARCH)
    path = write_model(folder, network, spec)
    data = write_npz(folder / "data.npz", benign_of(model_of(network, side=SIDE), 60), spec)
    return str(path), str(data)


def saying(verdict: str) -> Callable[..., Finding]:
    """A screening that finds `verdict` and a trigger without any search."""

    def screened(model: Model, benign: BenignSet, settings: Settings, engine: Engine) -> Finding:
        held = Bench(model, split(benign, settings.seed)[1])
        finding = without_verdict(settings.method, "because the test says so", held)
        trigger = SharedTriggers(1, (SIDE, SIDE), seed=settings.seed).select(0)
        return replace(finding, verdict=verdict, score=1.0, threshold=2.0, trigger=trigger)

    return screened


def saying_again(verdict: str) -> Callable[..., Finding]:
    """The same for a fresh screening of what became of a model."""

    def screened(opened: Opened, model: Model, seed: int) -> Finding:
        engine = Engine(opened.device, seed)
        return saying(verdict)(model, opened.inputs.data.benign, Settings(seed=seed), engine)

    return screened


def saying_in_turn(fresh: str, shipped: str) -> Callable[..., Finding]:
    """`fresh` of what a mitigation made (other seeds than the first), then `shipped`."""
    seen = list[int]()

    def screened(opened: Opened, model: Model, seed: int) -> Finding:
        new_round = seed > opened.job.seed and seed not in seen
        seen.append(seed)
        return saying_again(fresh if new_round else shipped)(opened, model, seed)

    return screened


def quicken(patch: pytest.MonkeyPatch) -> None:
    """Brief mitigations, coarse pictures and no measuring of latencies."""
    patch.setattr("tools.report.plotting.DPI", 30)
    patch.setattr(unlearning, "MitigationSettings", QUICK)
    patch.setattr("export.latency.LEAST", 1)
    patch.setattr("export.latency.SECONDS", 0.0)


def check(
    files: tuple[str, str], out: Path, found: str, fresh: str, *more: str, shipped: str = "clean"
) -> int:
    """`drmguard check` with what the three screenings say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screening, "search", saying(found))
        patch.setattr(rescreening, "screen_again", saying_in_turn(fresh, shipped))
        return cli.run(["check", *files, f"--out={out}", "--quiet", *more])


def report_of(out: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((out / "report.json").read_text())
    return values
