"""`drmguard mitigate` from end to end: what is written under which name, and the exit code."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from export.metadata import read_metadata
from export.onnx_in import load_onnx
from guard.files import sha256, write_text
from guard.trigger_file import save_triggers
from guard.triggers import SharedTrigger, SharedTriggers
from tests.check_files import SIDE, check, files_of, quicken, saying, saying_again
from tests.conftest import stirred
from tools import cli, screening, unlearning
from tools.job import STATE


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
    stated = read_metadata(onnx.load(more / f"{name}.onnx"))
    assert stated["source_sha256"] == sha256(supplied)
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


def test_too_few_images_leave_no_folder(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, more = tmp_path / "trigger.safetensors", tmp_path / "more"
    save_triggers([stirred(1, (SIDE, SIDE), seed=1).select(0)], path)
    words = ["mitigate", *files, f"--trigger={path}", f"--out={more}", "--images=39"]
    assert cli.run(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "39 images are too few to fine-tune on" in line
    assert not more.exists()


def still(seed: int = 0) -> SharedTrigger:
    """A trigger that changes nothing."""
    trigger = SharedTriggers(1, (SIDE, SIDE), seed).select(0)
    with torch.no_grad():
        trigger.one.pattern.zero_()
    return trigger


STRONG = stirred(1, (SIDE, SIDE), 1).select(0)


@pytest.mark.parametrize(
    ("triggers", "names", "code"),
    [
        ([still()], "this model", 0),
        ([STRONG], "another", 0),
        ([still(), STRONG], "another", 0),
        ([STRONG], None, 0),
        ([still(), still(1)], "another", 2),
        ([still()], None, 2),
    ],
    ids=["own", "another's", "one of them", "nobody's", "without effect", "nobody's without"],
)
def test_a_trigger_of_another_model_is_warned_of_and_needs_an_effect(
    triggers: list[nn.Module],
    names: str | None,
    code: int,
    files: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, own = tmp_path / "trigger.safetensors", sha256(Path(files[0]))
    save_triggers(triggers, path, own if names == "this model" else names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unlearning, "screen_again", saying_again("clean"))
        assert mitigate(files, path, tmp_path / "o") == code
    said = capsys.readouterr().err.splitlines()
    assert len(said) == (names != "this model")
    assert all(str(path) in line and files[0] in line for line in said)
    assert (tmp_path / "o").exists() == (code == 0)
    if code == 0:
        facts = json.loads((tmp_path / "o" / "mitigation.json").read_text())
        assert [f"drmguard: warning: {line}" for line in facts["warnings"]] == said
        assert facts["model"]["sha256"] == own


def mitigate(files: tuple[str, str], trigger: Path, out: Path, *more: str) -> int:
    return cli.run(["mitigate", *files, f"--trigger={trigger}", f"--out={out}", "--quiet", *more])


def screened(files: tuple[str, str], out: Path) -> Path:
    """The trigger in the folder of a screening that found a backdoor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screening, "search", saying("backdoored"))
        assert cli.run(["screen", *files, f"--out={out}", "--quiet"]) == 1
    return out / "trigger.safetensors"


@pytest.mark.parametrize("fresh", [("clean", "backdoored"), ("backdoored", "clean")], ids=str)
def test_the_manifest_of_a_report_vouches_for_what_mitigate_adds(
    fresh: tuple[str, str], files: tuple[str, str], tmp_path: Path
) -> None:
    """One outcome, then another over it."""
    out = tmp_path / "out"
    trigger = screened(files, out)
    for verdict, more in zip(fresh, ([], ["--overwrite"]), strict=True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(unlearning, "screen_again", saying_again(verdict))
            assert mitigate(files, trigger, out, *more, "--seed=1") == 4 * (verdict != "clean")
        listed = json.loads((out / "manifest.json").read_text())["files"]
        on_disk = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
        assert set(listed) == on_disk - {"manifest.json"}
        assert ("mitigated.safetensors" in listed) == (verdict == "clean")
        assert cli.run(["verify", str(out)]) == 0


def of_a_check(files: tuple[str, str], out: Path) -> None:
    assert check(files, out, "backdoored", "clean") == 1


def of_another_model(files: tuple[str, str], out: Path) -> None:
    screened((exported(files, out.parent / "other.onnx"), files[1]), out)


def begun(files: tuple[str, str], out: Path) -> None:
    screened(files, out)
    (out / STATE).touch()


def exported(files: tuple[str, str], path: Path) -> str:
    assert cli.run(["export", files[0], f"--out={path}"]) == 0
    return str(path)


@pytest.mark.parametrize(
    ("made", "suffix"),
    [
        (of_a_check, ".safetensors"),
        (of_another_model, ".safetensors"),
        (begun, ".safetensors"),
        (screened, ".onnx"),
    ],
)
def test_a_folder_whose_report_speaks_of_other_files_is_left_alone(
    made: Callable[[tuple[str, str], Path], object],
    suffix: str,
    files: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An .onnx file needs a proof and a bill of materials there, which mitigate does not write."""
    out = tmp_path / "out"
    if suffix == ".onnx":
        files = (exported(files, tmp_path / "supplied.onnx"), files[1])
    made(files, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert mitigate(files, out / "trigger.safetensors", out, "--overwrite") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pass another --out" in line
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_overwriting_takes_only_what_an_earlier_mitigation_wrote(
    files: tuple[str, str], tmp_path: Path
) -> None:
    out, more = tmp_path / "out", tmp_path / "more"
    trigger = screened(files, out)
    mine = [more / "mitigated.onnx", more / "mitigated.json", more / "mitigated.safetensors"]
    for path in mine:
        write_text(path, "mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unlearning, "screen_again", saying_again("backdoored"))
        for _ in range(2):
            assert mitigate(files, trigger, more, "--overwrite") == 4
    assert [path.read_text() for path in mine] == ["mine"] * 3
    assert (more / "not-accepted.safetensors").exists()


def test_the_errors_before_and_after_are_printed(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trigger = screened(files, tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unlearning, "screen_again", saying_again("clean"))
        assert mitigate(files, trigger, tmp_path / "more") == 0
    facts = json.loads((tmp_path / "more" / "mitigation.json").read_text())
    benign, under = (
        [f"{facts[f'{what}_error_{when}']:.3g}" for when in ("before", "after")]
        for what in ("benign", "trigger")
    )
    line = f"benign error {benign[0]} -> {benign[1]} deg, under the worst recovered trigger"
    assert f"{line} {under[0]} -> {under[1]} deg" in capsys.readouterr().out.splitlines()
