"""Nothing of the user's is lost: what is written over, what is taken away, what is vouched for."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guard.errors import UnusableInput
from guard.files import write_text
from guard.finding import Finding
from tests.cli_files import fake_screen, files_of, lines, stub
from tools import checking, cli, screening
from tools.job import KEPT, NOTE, PARITY, SHIPPED, STATE, WRITTEN


@pytest.fixture(autouse=True)
def _stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    stub(monkeypatch, "inconclusive")


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """`drmguard check` of a tiny model that ends without a verdict, into the folder `out`."""
    return ["check", *files_of(tmp_path), f"--out={tmp_path / 'out'}"]


THERE: list[tuple[str, list[str]]] = [(name, []) for name in WRITTEN["check"]]
THERE += [(name, ["--resume"]) for name in WRITTEN["check"] if name != "report.json"]


@pytest.mark.parametrize(("name", "more"), THERE, ids=str)
def test_what_would_be_written_over_is_named(
    name: str, more: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--resume too, where no run was begun."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    assert cli.run([*words, *more]) == 2
    assert (tmp_path / "out" / name).read_text() == "mine"
    (line,) = lines(capsys)
    assert str(tmp_path / "out") in line


@pytest.mark.parametrize(("name", "folder"), [("model.onnx", True), ("figures", False)])
def test_what_can_not_be_replaced_is_named_before_the_search(
    name: str, folder: bool, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder where a file goes, or the other way round, in spite of --overwrite."""
    path = tmp_path / "out" / name
    path.mkdir(parents=True) if folder else write_text(path, "mine")
    given = [[*words, "--overwrite"]]
    if folder:
        given.append(["export", words[1], f"--out={path}", "--overwrite"])
    for one in given:
        assert cli.run(one) == 2
        assert f"{path}: is in the way" in lines(capsys)[0]
    assert list(path.parent.iterdir()) == [path]


def test_parity_leaves_what_stands_beside_the_model(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The JSON of a model named parity.safetensors has the name of the proof."""
    model = tmp_path / "parity.safetensors"
    sidecar = Path(words[1]).with_suffix(".json").rename(model.with_suffix(".json"))
    Path(words[1]).rename(model)
    before = sidecar.read_text()
    given = ["parity", str(model), "FILE.onnx", words[2], f"--out={tmp_path}", "--overwrite"]
    assert cli.run(given) == 2
    assert "written over" in lines(capsys)[0]
    assert sidecar.read_text() == before


def test_export_never_writes_over_its_model(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = words[1], tmp_path / "supplied.onnx"
    assert cli.run(["export", model, f"--out={out}"]) == 0
    before = out.read_bytes()
    assert cli.run(["export", str(out), f"--out={out}", "--overwrite"]) == 2
    assert "written over" in capsys.readouterr().err
    assert out.read_bytes() == before


@pytest.mark.parametrize("name", ["model.pt", "mitigated.pth", "mine.onnx"])
def test_other_files_stay(name: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    for more in ([], ["--overwrite"]):
        assert cli.run([*words, *more]) == 3
        assert (tmp_path / "out" / name).read_text() == "mine"


def test_overwriting_takes_nothing_that_the_tool_does_not_write(
    words: list[str], tmp_path: Path
) -> None:
    """Whatever a manifest from elsewhere lists."""
    out, away = tmp_path / "out", tmp_path / "away"
    assert cli.run(words) == 3
    away.mkdir()
    mine = [out / "labels.csv", away / "v.txt", away / "old.png", out / "figures"]
    for path in mine[:3]:
        path.write_text("mine")
    (out / "figures").symlink_to(away)
    (out / "link").symlink_to(away)
    listed = ["labels.csv", "link/v.txt", "figures/old.png", "figures", "../away/v.txt", "a\0b"]
    (out / "manifest.json").write_text(json.dumps({"files": {name: {} for name in listed}}))
    assert cli.run([*words, "--overwrite"]) == 3
    assert all(path.exists() for path in mine)


def unlisted(name: str) -> Callable[[Path], None]:
    """A file that a check writes, from somewhere else."""
    return lambda out: write_text(out / name, "another run's")


def nothing_listed(out: Path) -> None:
    (out / "manifest.json").write_text('{"files": {}}')


def no_files(out: Path) -> None:
    (out / "manifest.json").write_text("[]")


def outside(out: Path) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"]["../data.npz"] = {"sha256": "0"}
    (out / "manifest.json").write_text(json.dumps(manifest))


def no_hash(out: Path) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"]["report.json"] = {}
    (out / "manifest.json").write_text(json.dumps(manifest))


def unlisted_trigger(out: Path) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["files"]["trigger.safetensors"]
    (out / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        *((unlisted(name), 4) for name in (SHIPPED[0], PARITY, KEPT, "bom.json")),
        *((nothing_listed, 2), (no_files, 2), (outside, 2), (no_hash, 2), (unlisted_trigger, 4)),
    ],
)
def test_a_manifest_must_vouch_for_the_report_and_every_model(
    spoil: Callable[[Path], None],
    code: int,
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.run(words) == 3
    assert cli.run(["verify", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    spoil(tmp_path / "out")
    assert cli.run(["verify", str(tmp_path / "out")]) == code
    said = capsys.readouterr()
    assert len((said.out + said.err).splitlines()) == 1


def test_a_kill_before_the_manifest_is_mended_by_resuming(words: list[str], tmp_path: Path) -> None:
    assert cli.run(words) == 3
    (tmp_path / "out" / "manifest.json").unlink()
    assert cli.run([*words, "--resume"]) == 3
    assert cli.run(["verify", str(tmp_path / "out")]) == 0


def test_a_report_that_can_not_be_read_is_not_resumed(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text("{}")
    assert cli.run([*words, "--resume"]) == 2
    assert len(lines(capsys)) == 1


def test_mitigate_goes_into_the_folder_of_the_report(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trigger's own folder is where users keep it: only its own names may not be there."""
    assert cli.run(words) == 3
    given = ["mitigate", *words[1:], f"--trigger={tmp_path / 'out' / 'trigger.safetensors'}"]
    (tmp_path / "out" / "mitigation.json").write_text("mine")
    assert cli.run(given) == 2
    assert "mitigation.json: exists" in lines(capsys)[0]
    assert (tmp_path / "out" / "mitigation.json").read_text() == "mine"


def test_a_verdict_outlives_a_step_that_can_not_be_done(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ship(*_: object) -> None:
        write_text(tmp_path / "out" / "model.onnx", "not proved")
        raise UnusableInput("the model can't be exported")

    monkeypatch.setattr(screening, "search", fake_screen("clean"))
    monkeypatch.setattr(checking, "ship", ship)
    assert cli.run(words) == 4
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["verdict"], report["not_done"]) == ("clean", "the model can't be exported")
    assert "can't be exported" in capsys.readouterr().out
    assert not (tmp_path / "out" / "model.onnx").exists()
    assert cli.run([*words, "--resume"]) == 4
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    assert cli.run(["verify", str(tmp_path / "copy")]) == 0
    write_text(tmp_path / "out" / "mitigated.onnx", "mine")
    assert cli.run([*words, "--overwrite"]) == 4
    assert (tmp_path / "out" / "mitigated.onnx").read_text() == "mine"


def stopped(words: list[str], out: Path, at: str) -> int:
    """Ctrl-C before the first state of the search, in it, or once a model is written."""

    def search(*given: Any) -> Finding:
        if at != "start":
            (out / STATE).touch()  # as a search leaves it
        if at != "ship":
            raise KeyboardInterrupt
        return fake_screen("clean")(*given)

    def ship(*_: object) -> None:
        write_text(out / "model.onnx", "not proved")
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screening, "search", search)
        patch.setattr(checking, "ship", ship)
        return cli.run(words)


@pytest.fixture
def any_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guard.engine.Engine.resume", lambda engine: None)


@pytest.mark.parametrize("name", ["mitigated.onnx", "bom.json", "model.onnx", "report.html"])
@pytest.mark.parametrize("at", ["search", "ship"])
@pytest.mark.usefixtures("any_state")
def test_going_on_leaves_what_the_begun_run_did_not_write(
    at: str, name: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out" / name
    assert stopped(words, path.parent, at) == 130
    path.write_text("mine")
    capsys.readouterr()
    assert cli.run([*words, "--resume"]) == 2
    assert f"{path}: exists" in lines(capsys)[0]
    assert path.read_text() == "mine"
    path.unlink()
    assert cli.run([*words, "--resume"]) == 3
    assert cli.run(["verify", str(path.parent)]) == 0


@pytest.mark.parametrize("name", ["mitigated.onnx", "figures/old.png"])
@pytest.mark.parametrize("at", ["start", "search", "ship"])
@pytest.mark.usefixtures("any_state")
def test_going_on_takes_what_the_run_was_begun_in_spite_of(
    at: str, name: str, words: list[str], tmp_path: Path
) -> None:
    path, model = tmp_path / "out" / name, tmp_path / "out" / "model.onnx"
    write_text(path, "mine")
    assert stopped([*words, "--overwrite"], model.parent, at) == 130
    assert model.exists() == (at == "ship")
    assert cli.run([*words, "--resume"]) == 3
    assert path.read_text() == "mine"  # nothing was mitigated
    assert not model.exists()


@pytest.mark.usefixtures("any_state")
def test_a_run_that_was_killed_while_it_wrote_goes_on(words: list[str], tmp_path: Path) -> None:
    """It could note nothing: what is new since it began counts as its own."""
    out = tmp_path / "out"
    assert stopped(words, out, "ship") == 130
    noted = json.loads((out / NOTE).read_text())
    assert set(noted["written"]) == {"trigger.safetensors", "trigger.json", "model.onnx"}
    (out / NOTE).write_text(json.dumps({**noted, "written": None}))
    assert cli.run([*words, "--resume"]) == 3
    assert not (out / "model.onnx").exists()
