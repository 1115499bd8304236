"""The command line: what a command prints and writes, and its exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from guard.benign import BenignSet
from guard.errors import UnusableInput
from tests.cli_files import SHORT, fake_screen, files_of, lines, never, stub
from tests.conftest import Reader, benign_of, model_of, spec_of, write_folder, write_npz
from tools import checking, cli, job, sample, screening

CONTRACT = {
    *("schema_version", "verdict", "reason", "score", "threshold", "threshold_source"),
    *("perturbation", "output_variance_ratio", "rav", "rnv", "target_estimate", "benign_error"),
    *("restarts", "model", "data", "config", "environment", "timings", "warnings", "limits"),
}


@pytest.fixture(autouse=True)
def _coarse_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.report.plotting.DPI", 30)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return files_of(tmp_path)


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    stub(monkeypatch, "clean")


@pytest.mark.parametrize(("given", "taken"), [(None, "1"), ("0", "0")])
def test_large_pages_are_asked_for_unless_the_user_says_otherwise(
    given: str | None, taken: str
) -> None:
    name = "THP_MEM_ALLOC_ENABLE"
    others = {key: value for key, value in os.environ.items() if key != name}
    told = others if given is None else {**others, name: given}
    code = f"import tools, os, sys; print(os.environ['{name}'], 'torch' in sys.modules)"
    made = subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, text=True)
    assert made.stdout.split() == [taken, "False"]  # before torch, which reads it once


@pytest.mark.parametrize(
    ("verdict", "code"), [("clean", 0), ("backdoored", 1), ("inconclusive", 3)]
)
def test_each_verdict_has_its_exit_code_and_a_whole_report(
    verdict: str,
    code: int,
    files: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(screening, "search", fake_screen(verdict))
    out = tmp_path / "out"
    assert cli.run(["screen", *files, f"--out={out}"]) == code
    report = json.loads((out / "report.json").read_text())
    assert set(report) >= CONTRACT
    assert report["verdict"] == verdict
    assert set(report["target_estimate"]) == {"pitch", "yaw"}
    assert {"value", "unit", "ci95"} <= set(report["benign_error"])
    assert {"path", "sha256", "format", "arch", "parameters", "split"} <= set(report["model"])
    assert {"path", "n", "manifest_sha256", "roles"} <= set(report["data"])
    assert (out / "report.html").exists()
    assert list((out / "figures").glob("*.png"))
    assert not [p for p in out.rglob("*") if p.name.startswith(".") or p.name.endswith(".pt")]
    assert verdict in capsys.readouterr().out


def test_a_report_has_the_trigger_beside_it(files: tuple[str, str], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "Settings", SHORT)
        assert cli.run(["screen", *files, f"--out={tmp_path / 'out'}"]) in (0, 1, 3)
    assert (tmp_path / "out" / "trigger.safetensors").exists()
    assert (tmp_path / "out" / "trigger.json").exists()


@pytest.mark.skipif(not sample.DATA.exists(), reason="the built-in sample is not made yet")
@pytest.mark.parametrize("words", [[], ["sample:benign"]], ids=str)
def test_model_and_data_may_be_left_out(words: list[str], tmp_path: Path, stubbed: None) -> None:
    assert cli.run(["screen", *words, f"--out={tmp_path / 'out'}"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["data"]["n"] > 100
    assert report["model"]["path"].endswith("benign") == (words == ["sample:benign"])


def test_missing_images_are_warned_of_by_name(
    files: tuple[str, str], tmp_path: Path, stubbed: None
) -> None:
    benign = benign_of(model_of(Reader(2)), 60)
    rows = [f"{i}.png,{p},{y}" for i, (p, y) in enumerate(benign.labels.tolist())]
    images = benign.images.permute(0, 2, 3, 1).numpy()
    data = write_folder(tmp_path / "data", "filename,pitch_rad,yaw_rad", rows, images)
    (data / "7.png").unlink()
    assert cli.run(["screen", files[0], str(data), f"--out={tmp_path / 'out'}"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["data"]["n"] == 59
    assert any("7.png" in warning for warning in report["warnings"])


def test_inspect_prints_what_is_understood(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["inspect", files[0]]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["outputs"] == ["pitch", "yaw"]
    assert (facts["task"], facts["units"], facts["format"]) == ("gaze", "rad", "safetensors")
    assert facts["input"]["size"] == [16, 16]
    assert facts["split"]["layer"] == "fc"
    assert len(facts["sha256"]) == 64


@pytest.mark.parametrize("command", ["inspect", "verify"])
@pytest.mark.parametrize("word", ["--device=gpu", "--method=other"])
def test_flags_without_effect_are_looked_at(
    command: str, word: str, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([command, files[0], word]) == 2
    assert word.partition("=")[0] in lines(capsys)[0]


def test_unusable_inputs_give_2_and_one_line(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = files
    (tmp_path / "a-file").write_text("")
    out = f"--out={tmp_path / 'out'}"
    cases = [
        [model, data, out, "--method=other"],
        [model, data, out, "--device=gpu"],
        [model, data, out, "--resume", "--overwrite"],
        [model, out],
        [str(tmp_path / "absent.safetensors"), data, out],
        [".", data, out],
        [model, str(tmp_path / "absent"), out],
        ["sample:nonsense", data, out],
        [model, data, f"--out={tmp_path / 'a-file'}"],
    ]
    if not torch.cuda.is_available():
        cases.append([model, data, out, "--device=cuda"])
    for words in cases:
        assert cli.run(["check", *words]) == 2, words
        complaint = lines(capsys)
        assert len(complaint) == 1, words
        assert complaint[0].startswith("drmguard: ")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_can_not_be_made_is_refused_before_the_search(
    files: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(screening, "search", never)
    (tmp_path / "a-file").write_text("")
    assert cli.run(["screen", *files, f"--out={tmp_path / 'a-file' / 'out'}"]) == 2
    assert len(lines(capsys)) == 1


def test_labels_that_do_not_fit_give_2(
    tmp_path: Path, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    benign = benign_of(model_of(Reader(2)), 60)
    data = write_npz(
        tmp_path / "wrong.npz", BenignSet(benign.images, benign.labels.flip(0)), spec_of()
    )
    assert cli.run(["screen", files[0], str(data), f"--out={tmp_path / 'out'}"]) == 2
    assert "do not fit the model" in lines(capsys)[0]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("a bug"), 5),
        (AssertionError("a bug"), 5),
        (KeyError("a bug"), 5),
        (OSError("a bug"), 5),
        (FileNotFoundError(2, "No such file", "a bug"), 5),
        (PermissionError(13, "Permission denied", "d/m.onnx"), 2),
        (OSError(28, "No space left on device"), 2),
        (OSError(36, "File name too long", 300 * "m"), 2),
        (SystemExit(0), 5),
        (SystemExit(1), 5),
        (ModuleNotFoundError("No module named 'tqdm'"), 5),
        (ImportError("cannot import name 'x' from 'y'"), 5),
        (ImportError("libGL.so.1: cannot open shared object file"), 2),
        (UnusableInput("model.pt: no"), 2),
        (KeyboardInterrupt(), 130),
    ],
    ids=repr,
)
def test_what_ends_the_work_decides_the_exit_code(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """None of these may end with 0 or 1, which are verdicts."""

    def failing(**words: Any) -> int:
        raise error

    monkeypatch.setattr(checking, "check", failing)
    assert cli.run(["check"]) == code
    said = lines(capsys)
    assert said[-1].startswith("drmguard: ")
    assert len(said) == 1 or code == 5


def test_an_error_while_reading_words_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*words: Any, **more: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("fire.Fire", failing)
    assert cli.run(["check"]) == 5


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["check"], "--resume keeps the search; what comes after it begins again"),
        (["screen"], "--resume goes on from here"),
        *((["zoo", "train"], "same"), (["export"], "anew"), (["mitigate"], "anew")),
    ],
)
def test_who_interrupts_is_told_how_to_go_on(
    words: list[str],
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(words: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "read", stopped)
    assert cli.run(words) == 130
    assert hint in lines(capsys)[0]
