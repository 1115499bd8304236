"""What the commands take, and stand-ins for what is slow in them."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guard.bench import Bench
from guard.benign import BenignSet
from guard.engine import Engine
from guard.files import write_json, write_text
from guard.finding import Finding
from guard.model import Model
from guard.screen import Settings, split, without_verdict
from guard.settings import PaperSettings
from tests.conftest import (
    Reader,
    benign_of,
    model_of,
    short_search,
    spec_of,
    write_model,
    write_npz,
)
from tools import screening
from tools.report import Evidence, report_values
from tools.report.page import page

ARCH = "tests.cli_files:reader"
SHORT = functools.partial(
    Settings,
    calibrated=short_search(25),
    paper=PaperSettings(pretrain_steps=12, steps=12, batch=6),
)


def reader(outputs: int) -> Reader:
    return Reader(outputs)


def files_of(folder: Path) -> tuple[str, str]:
    """A tiny model file and images that fit it."""
    spec = spec_of("gaze", arch=ARCH)
    path = write_model(folder, Reader(2), spec)
    data = write_npz(folder / "data.npz", benign_of(model_of(Reader(2)), 60), spec)
    return str(path), str(data)


def fake_screen(verdict: str) -> Callable[..., Finding]:
    """A screening that finds `verdict` without any search."""

    def screened(model: Model, benign: BenignSet, settings: Settings, engine: Engine) -> Finding:
        held = Bench(model, split(benign, settings.seed)[1])
        finding = without_verdict(settings.method, "because the test says so", held)
        return replace(finding, verdict=verdict, score=1.0, threshold=2.0)

    return screened


def never(*words: Any, **more: Any) -> Any:
    raise AssertionError("the work was begun")


def light_report(evidence: Evidence, out: Path) -> list[Path]:
    """The report without its pictures, which take a second."""
    values = report_values(evidence)
    write_text(out / "report.html", page(evidence, values, []))
    write_json(out / "report.json", values)
    return []


def stub(patch: pytest.MonkeyPatch, verdict: str) -> None:
    """Screenings find `verdict` at once, and reports have no pictures."""
    patch.setattr(screening, "write_report", light_report)
    patch.setattr(screening, "search", fake_screen(verdict))


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()
