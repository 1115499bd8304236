"""`drmguard mitigate` from end to end: what is written under which name, and the exit code."""

import json
from pathlib import Path

import pytest
from torch import nn

from export.onnx_in import load_onnx
from guard.trigger_file import save_triggers
from guard.triggers import SharedTriggers
from tests.check_files import SIDE, check, files_of, quicken, saying_again
from tests.conftest import stirred
from tools import cli, unlearning


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return files_of(tmp_path)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


@pytest.mark.parametrize(
    ("fresh", "code", "name"), [("clean", 0, "mitigated"), ("backdoored", 4, "not-accepted")]
)
def test_mitigate_stores_the_model_under_a_name_that_says_it(
    fresh: str, code: int, name: str, files: tuple[str, str], tmp_path: Path
) -> None:
    out, more = tmp_path / "out", tmp_path / "more"
    check(files, out, "clean", "")
    words = ["mitigate", *files, f"--trigger={out / 'trigger.safetensors'}", f"--out={more}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unlearning, "screen_again", saying_again(fresh))
        assert cli.run([*words, "--quiet"]) == code
        assert (more / f"{name}.safetensors").exists()
        assert (more / f"{name}.json").exists()
        assert json.loads((more / "mitigation.json").read_text())["accepted"] == (code == 0)
        assert cli.run(words) == 2  # nothing is overwritten silently
        assert cli.run([*words, "--overwrite", "--quiet"]) == code


def test_all_triggers_of_the_file_are_unlearnt(files: tuple[str, str], tmp_path: Path) -> None:
    path, more = tmp_path / "trigger.safetensors", tmp_path / "more"
    save_triggers([stirred(1, (SIDE, SIDE), seed).select(0) for seed in (1, 2, 3)], path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unlearning, "screen_again", saying_again("clean"))
        cli.run(["mitigate", *files, f"--trigger={path}", f"--out={more}", "--quiet"])
    assert json.loads((more / "mitigation.json").read_text())["unlearnt_triggers"] == 3


@pytest.mark.parametrize(
    ("fresh", "code", "name"), [("clean", 0, "mitigated"), ("backdoored", 4, "not-accepted")]
)
def test_what_came_as_onnx_is_mitigated_as_onnx(
    fresh: str,
    code: int,
    name: str,
    files: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, more, supplied = tmp_path / "out", tmp_path / "more", tmp_path / "supplied.onnx"
    assert cli.run(["export", files[0], f"--out={supplied}"]) == 0
    assert check((str(supplied), files[1]), out, "clean", "") == 0
    words = ["mitigate", str(supplied), files[1], f"--trigger={out / 'trigger.safetensors'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unlearning, "screen_again", saying_again(fresh))
        assert cli.run([*words, f"--out={more}", "--quiet"]) == code
    assert load_onnx(more / f"{name}.onnx").spec.outputs == ("pitch", "yaw")
    capsys.readouterr()
    assert cli.run(["inspect", str(more / f"{name}.safetensors")]) == 2
    assert "open the .onnx file" in capsys.readouterr().err


@pytest.mark.parametrize("first", ["clean", "backdoored"])
def test_overwriting_leaves_no_model_of_the_earlier_run(
    first: str, files: tuple[str, str], tmp_path: Path
) -> None:
    """Accepted, then not, or the other way round: the folder holds one outcome."""
    out, more, supplied = tmp_path / "out", tmp_path / "more", tmp_path / "supplied.onnx"
    assert cli.run(["export", files[0], f"--out={supplied}"]) == 0
    assert check((str(supplied), files[1]), out, "clean", "") == 0
    words = ["mitigate", str(supplied), files[1], f"--trigger={out / 'trigger.safetensors'}"]
    words += [f"--out={more}", "--quiet", "--overwrite"]
    for fresh in (first, "backdoored" if first == "clean" else "clean"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(unlearning, "screen_again", saying_again(fresh))
            cli.run(words)
        name = "mitigated" if fresh == "clean" else "not-accepted"
        wanted = {f"{name}{end}" for end in (".safetensors", ".json", ".onnx")}
        assert {path.name for path in more.iterdir()} == {"mitigation.json", *wanted}


def test_a_trigger_that_does_not_fit_is_refused_in_one_line(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trigger.safetensors"
    words = ["mitigate", *files, f"--trigger={path}", f"--out={tmp_path / 'o'}"]
    for trigger in (SharedTriggers(1, (16, 16), seed=0).select(0), nn.Identity()):
        save_triggers([trigger], path)
        assert cli.run(words) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "o").exists()
