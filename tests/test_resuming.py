"""`--resume` and `--overwrite`: going on after an interrupt, and no report lost unasked."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from guard.engine import Engine, Silent
from tests.cli_files import ARCH, SHORT, fake_screen, files_of, light_report, lines, never, stub
from tests.conftest import Reader, benign_of, model_of, spec_of, write_model, write_npz
from tools import cli, job, screening


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return files_of(tmp_path)


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    stub(monkeypatch, "clean")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brief searches that store their state at every step."""
    monkeypatch.setattr(screening, "write_report", light_report)
    monkeypatch.setattr(job, "Settings", SHORT)
    monkeypatch.setattr(screening, "Engine", functools.partial(Engine, save_every=0.0))


def test_a_report_is_not_overwritten_unless_asked(
    files: tuple[str, str],
    tmp_path: Path,
    stubbed: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["screen", *files, f"--out={tmp_path / 'out'}"]
    assert cli.run(words) == 0
    before = (tmp_path / "out" / "report.json").read_bytes()
    capsys.readouterr()
    assert cli.run(words) == 2
    assert "--overwrite" in lines(capsys)[0]
    assert (tmp_path / "out" / "report.json").read_bytes() == before
    monkeypatch.setattr(screening, "search", fake_screen("backdoored"))
    assert cli.run([*words, "--overwrite"]) == 1
    assert json.loads((tmp_path / "out" / "report.json").read_text())["verdict"] == "backdoored"


def test_overwriting_with_unusable_input_leaves_the_earlier_report(
    files: tuple[str, str], tmp_path: Path, stubbed: None
) -> None:
    out = f"--out={tmp_path / 'out'}"
    assert cli.run(["screen", *files, out]) == 0
    before = (tmp_path / "out" / "report.json").read_bytes()
    assert cli.run(["screen", str(tmp_path / "typo.pt"), files[1], out, "--overwrite"]) == 2
    assert (tmp_path / "out" / "report.json").read_bytes() == before


class StopAt(Silent):
    """Ctrl-C at a moment of a stage."""

    def __init__(self, stage: str, step: int) -> None:
        self.at, self.stage, self.now = step, stage, ""

    def start(self, stage: str, steps: int, done: int) -> None:
        self.now = stage

    def update(self, done: int, terms: dict[str, float]) -> None:
        if self.now == self.stage and done >= self.at:
            raise KeyboardInterrupt


def content(out: Path) -> dict[str, Any]:
    """report.json without what tells of time and of the words on the command line."""
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    for key in ("timings", "started", "ended"):
        del report[key]
    del report["config"]["command"]
    return report


def interrupted(words: list[str], stage: str, step: int) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screening, "progress", lambda quiet: StopAt(stage, step))
        return cli.run(words)


@pytest.mark.parametrize(
    ("method", "stage", "step"),
    [("calibrated", "scan", 11), ("calibrated", "refine", 21), ("paper", "search", 11)],
)
def test_a_resumed_run_ends_with_the_same_report(
    method: str,
    stage: str,
    step: int,
    files: tuple[str, str],
    tmp_path: Path,
    short: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["screen", *files, f"--method={method}"]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    code = cli.run([*words, f"--out={whole}"])
    assert code in (0, 1, 3)
    capsys.readouterr()
    assert interrupted([*words, f"--out={resumed}"], stage, step) == 130
    assert "--resume" in lines(capsys)[0]
    assert not (resumed / "report.json").exists()
    assert cli.run([*words, f"--out={resumed}"]) == 2  # a begun run is not lost silently
    assert cli.run([*words, f"--out={resumed}", "--resume"]) == code
    assert content(resumed) == content(whole)
    assert sorted(p.name for p in resumed.iterdir()) == sorted(p.name for p in whole.iterdir())
    assert cli.run([*words, f"--out={resumed}", "--resume"]) == code  # already done


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("change", ["--seed=1", "--method=paper", "--images=50", "data", "model"])
def test_resuming_with_anything_else_is_refused(
    change: str,
    finished: bool,
    files: tuple[str, str],
    tmp_path: Path,
    short: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    words = ["screen", *files, f"--out={out}"]
    if finished:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(screening, "search", fake_screen("clean"))
            assert cli.run(words) == 0
    else:
        assert interrupted(words, "scan", 11) == 130
    if change == "data":
        write_npz(Path(files[1]), benign_of(model_of(Reader(2)), 60, seed=1), spec_of())
    elif change == "model":
        write_model(tmp_path, Reader(2), spec_of(arch=ARCH, width=5))
    else:
        words.append(change)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    monkeypatch.setattr("guard.calibrated.search", never)
    capsys.readouterr()
    assert cli.run([*words, "--resume"]) == 2
    assert "--overwrite" in lines(capsys)[0]
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_a_broken_state_is_refused(
    files: tuple[str, str], tmp_path: Path, short: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["screen", *files, f"--out={tmp_path / 'out'}"]
    assert interrupted(words, "scan", 11) == 130
    (tmp_path / "out" / screening.STATE).write_bytes(b"junk")
    capsys.readouterr()
    assert cli.run([*words, "--resume"]) == 2
    assert len(lines(capsys)) == 1


def test_resuming_where_nothing_was_begun_starts_anew(
    files: tuple[str, str], tmp_path: Path, stubbed: None
) -> None:
    assert cli.run(["screen", *files, f"--out={tmp_path / 'out'}", "--resume"]) == 0


def test_overwriting_a_begun_run_starts_anew(
    files: tuple[str, str], tmp_path: Path, short: None
) -> None:
    words = ["screen", *files, f"--out={tmp_path / 'out'}"]
    assert interrupted(words, "scan", 11) == 130
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "resume", never)
        assert cli.run([*words, "--seed=1", "--overwrite"]) in (0, 1, 3)
