"""The words on the command line: what is understood, what is refused, and the help."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli_files import lines, never
from tools import cli

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
    monkeypatch.setattr(cli, "call", never)
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
        ["inspect", "m.onnx", "--quiet=yes"],
        ["verify", "folder", "--seed=x"],
        ["zoo", "table", "lines.jsonl", "--out=x", "--overwrite=yes"],
        ["screen", "m.onnx", "data", "--out=x", "--", "--trace"],
        ["check", "--", "--help"],
        ["check", "m.onnx", "--"],
    ],
    ids=" ".join,
)
def test_other_commands_refuse_in_one_line_too(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "call", never)
    assert cli.run(words) == 2
    assert len(lines(capsys)) == 1


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


@pytest.mark.parametrize("words", [["inspect", "m.onnx"], ["verify", "folder"]], ids=str)
def test_commands_that_write_nothing_take_the_common_flags_too(words: list[str]) -> None:
    common = ["--out=o", "--device=cpu", "--seed=3", "--method=paper", "--resume", "--quiet"]
    call = cli.read([*words, *common, "--overwrite"])
    assert call is not None
    assert call[2].items() >= {"device": "cpu", "method": "paper"}.items()
    assert not {"out", "seed", "overwrite"} & set(call[2])


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
