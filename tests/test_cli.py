"""The command line: words, exit codes, refusals, files, and going on after an interrupt."""

import functools
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from guard.bench import Bench
from guard.benign import BenignSet
from guard.engine import Engine, Silent
from guard.errors import UnusableInput
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
    write_folder,
    write_model,
    write_npz,
)
from tools import checking, cli, job, sample, screening
from tools.report import Evidence, report_values

CONTRACT = {
    *("schema_version", "verdict", "reason", "score", "threshold", "threshold_source"),
    *("perturbation", "output_variance_ratio", "rav", "rnv", "target_estimate", "benign_error"),
    *("restarts", "model", "data", "config", "environment", "timings", "warnings", "limits"),
}
ARCH = "tests.test_cli:reader"
SHORT = functools.partial(
    Settings,
    calibrated=short_search(25),
    paper=PaperSettings(pretrain_steps=12, steps=12, batch=6),
)


def reader(outputs: int) -> Reader:
    return Reader(outputs)


@pytest.fixture(autouse=True)
def _coarse_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.report.plotting.DPI", 30)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A tiny model file and images that fit it."""
    spec = spec_of("gaze", arch=ARCH)
    path = write_model(tmp_path, Reader(2), spec)
    data = write_npz(tmp_path / "data.npz", benign_of(model_of(Reader(2)), 60), spec)
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
    write_text(out / "report.html", "<p>a page</p>")
    write_json(out / "report.json", report_values(evidence))
    return []


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screening, "write_report", light_report)


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch, light: None) -> None:
    monkeypatch.setattr(screening, "search", fake_screen("clean"))


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


# --- exit codes ----------------------------------------------------------------------------------


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


UNREADABLE = [
    (["--bogus"], "bogus"),
    (["--bogus=3"], "bogus"),
    (["a third word"], ""),
    (["--seed=-1"], "--seed"),
    (["--seed=1.5"], "--seed"),
    (["--seed=x"], "--seed"),
    (["--seed"], "--seed"),
    (["--images=0"], "--images"),
    (["--images=many"], "--images"),
    (["--out"], "--out"),
    (["--quiet=yes"], "--quiet"),
    (["--resume=1"], "--resume"),
    (["--method"], "--method"),
    (["--seed=99999999999999999999"], "--seed"),
    (["--out="], "--out"),
    (["--device=\udcff"], "--device"),
]


@pytest.mark.parametrize("command", ["check", "screen"])
@pytest.mark.parametrize(("words", "named"), UNREADABLE, ids=lambda value: str(value))
def test_words_that_are_not_understood_stop_before_anything_runs(
    command: str,
    words: list[str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "_call", never)
    assert cli.run([command, "model.safetensors", "data.npz", *words]) == 2
    complaint = lines(capsys)
    assert len(complaint) == 1
    assert named in complaint[0]


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["zoo", "nonsense"],
        ["inspect", "model.pt", "--bogus"],
        ["inspect", "a", "b"],
        ["zoo", "train"],
        ["zoo", "train", "plan.csv", "--out=x", "--jobs=0"],
        ["zoo", "screen", "x", "--out=y", "--limit=0"],
        ["zoo", "table", "lines.jsonl"],
        ["inspect", ""],
        ["inspect", "m\udcff.onnx"],
        ["--quiet", "check"],
    ],
    ids=" ".join,
)
def test_other_commands_refuse_in_one_line_too(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_call", never)
    assert cli.run(words) == 2
    assert len(lines(capsys)) == 1


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
    "words",
    [
        ["check", "m.onnx", "data"],
        ["screen", "m.onnx", "data"],
        ["mitigate", "m.onnx", "data", "--trigger=t.safetensors"],
        ["export", "m.onnx"],
        ["parity", "m.onnx", "f.onnx", "data"],
    ],
    ids=lambda words: words[0],
)
def test_every_command_takes_the_common_flags(words: list[str]) -> None:
    common = ["--out=o", "--device=cpu", "--seed=0", "--method=paper", "--resume", "--quiet"]
    call = cli.read([*words, *common, "--overwrite"])
    assert call is not None
    assert {"out", "seed", "overwrite"} <= set(call[2])


@pytest.mark.parametrize(
    ("words", "hint"), [(["check"], "--resume"), (["zoo", "train"], "same"), (["export"], "anew")]
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


# --- words ---------------------------------------------------------------------------------------


def test_words_reach_the_work_as_they_were_given() -> None:
    words = ["check", "m.pt", "d", "--out=7", "--seed=3", "--trust-code", "--quiet", "--device=cpu"]
    call = cli.read(words)
    assert call is not None
    assert call[:2] == ("tools.checking", "check")
    wanted = {"model": "m.pt", "data": "d", "out": "7", "seed": 3, "device": "cpu"}
    assert wanted.items() <= call[2].items()
    assert call[2]["trust_code"] is True
    assert call[2]["quiet"] is True
    assert call[2]["resume"] is False


@pytest.mark.parametrize(
    "name", ["2024", "2024_01_15", "1e3", "3.10", "None", "[a]", "a,b", "01", "0x1f"]
)
def test_paths_that_look_like_values_stay_texts(name: str) -> None:
    call = cli.read(["check", name, f"--out={name}"])
    assert call is not None
    assert (call[2]["model"], call[2]["out"]) == (name, name)


def commands() -> dict[str, Callable[..., None]]:
    zoo = {f"zoo {name}": work for name, work in cli.COMMANDS["zoo"].items()}
    return {name: work for name, work in cli.COMMANDS.items() if callable(work)} | zoo


@pytest.mark.parametrize("name", sorted(commands()))
def test_help_names_each_flag(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    for parameter in inspect.signature(commands()[name]).parameters.values():
        is_flag = parameter.kind is parameter.KEYWORD_ONLY
        assert (f"--{parameter.name}" if is_flag else parameter.name.upper()) in text
    purpose = (inspect.getdoc(commands()[name]) or "no docstring").splitlines()[0]
    assert purpose in " ".join(text.split())


@pytest.mark.parametrize("words", [[], ["--help"], ["zoo"], ["zoo", "--help"]], ids=str)
def test_help_lists_the_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(words) == 0
    said = capsys.readouterr()
    known = cli.COMMANDS["zoo"] if "zoo" in words else cli.COMMANDS
    assert all(name in said.out + said.err for name in known)


@pytest.mark.parametrize("words", [["--help"], ["check", "--help"], ["check", "--bogus"]], ids=str)
def test_help_and_refusals_import_nothing_heavy(words: list[str]) -> None:
    script = (
        "import sys; from tools import cli; cli.run(sys.argv[1:]); "
        "print([m for m in ('torch', 'cv2', 'numpy', 'matplotlib', 'onnx') if m in sys.modules])"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=root, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


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


# --- folders, resuming ---------------------------------------------------------------------------


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


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, light: None) -> None:
    monkeypatch.setattr(job, "Settings", SHORT)
    monkeypatch.setattr(screening, "Engine", functools.partial(Engine, save_every=0.0))


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
