"""`drmguard check` from end to end: what is written, what is proved, and the exit code."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from export.metadata import read_metadata
from export.onnx_in import load_onnx
from export.write import write_onnx
from guard.errors import UnusableInput
from guard.files import sha256
from guard.load import load_model
from guard.model import Model
from tests.bom_files import complaints
from tests.check_files import SIDE, check, files_of, quicken, report_of
from tests.conftest import benign_of, model_of, spec_of, write_model, write_npz, write_sidecar
from tools import checking, cli, rescreening
from tools.job import STATE, Opened

ALWAYS = {"report.json", "report.html", "figures", "trigger.safetensors", "trigger.json"}
PROVED = {"generator.onnx", "parity.json"}
SHIPPED = {"bom.json", "parity-images.npz"}


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return files_of(tmp_path)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


@pytest.mark.parametrize(
    ("found", "fresh", "code", "written"),
    [
        ("clean", "", 0, {*PROVED, *SHIPPED, "model.onnx"}),
        (
            "backdoored",
            "clean",
            1,
            {*PROVED, *SHIPPED, "mitigated.onnx", "mitigated.safetensors", "mitigated.json"},
        ),
        (
            "backdoored",
            "backdoored",
            4,
            {*PROVED, "not-accepted.safetensors", "not-accepted.json"},
        ),
        ("inconclusive", "", 3, set()),
    ],
)
def test_each_verdict_has_its_files_and_its_exit_code(
    found: str, fresh: str, code: int, written: set[str], files: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert check(files, out, found, fresh) == code
    assert {path.name for path in out.iterdir()} == ALWAYS | {"manifest.json"} | written
    listed = json.loads((out / "manifest.json").read_text())["files"]
    on_disk = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert set(listed) == on_disk - {"manifest.json"}
    report = report_of(out)
    assert ("parity" in report) == bool(written)
    assert ("mitigation" in report) == (found == "backdoored")
    assert cli.run(["check", *files, f"--out={out}", "--resume"]) == code  # finished before


def test_the_report_says_what_mitigation_did(files: tuple[str, str], tmp_path: Path) -> None:
    assert check(files, tmp_path / "out", "backdoored", "clean") == 1
    found = report_of(tmp_path / "out")["mitigation"]
    keys = {"accepted", "benign_error_before", "benign_error_after"}
    keys |= {"trigger_error_before", "trigger_error_after", "rescreen"}
    assert set(found) >= keys
    assert found["accepted"] is True
    assert (found["held_back"], found["held_back_persons"]) == (18, 0)
    assert found["rescreen"]["verdict"] == "clean"


@pytest.mark.parametrize(("found", "fresh"), [("clean", ""), ("backdoored", "clean")])
@pytest.mark.parametrize(("shipped", "code"), [("backdoored", 4), ("inconclusive", 4)])
def test_files_that_do_not_come_out_clean_fail(
    found: str,
    fresh: str,
    shipped: str,
    code: int,
    files: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    both = "--precision=fp32,int8"
    assert check(files, out, found, fresh, both, shipped=shipped) == code
    rows = report_of(out)["shipped"]
    name = "model" if found == "clean" else "mitigated"
    # The fp32 file of a mitigated model is the one that its mitigation was judged on.
    first = shipped if found == "clean" else fresh
    wanted = [(f"{name}.onnx", first), (f"{name}.int8.onnx", shipped)]
    assert [row["sha256"] for row in rows] == [sha256(out / row["file"]) for row in rows]
    assert [(row["file"], row["verdict"]) for row in rows] == wanted
    assert f"{name}.int8.onnx, screened again, is {shipped}" in capsys.readouterr().out
    assert "Each file screened again" in (out / "report.html").read_text()
    assert cli.run(["check", *files, f"--out={out}", both, "--resume"]) == code


@pytest.mark.parametrize(("found", "name"), [("clean", "model"), ("backdoored", "mitigated")])
def test_files_that_can_not_be_screened_are_not_called_clean(
    found: str, name: str, files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(path: Path) -> Model:
        raise UnusableInput(f"{path.name}: unreadable")

    monkeypatch.setattr(rescreening, "load_onnx", unreadable)
    assert check(files, tmp_path / "out", found, "clean") == 4
    (row,) = report_of(tmp_path / "out")["shipped"]
    assert (row["verdict"], row["reason"]) == (
        "inconclusive",
        f"can't be screened: {name}.onnx: unreadable",
    )


def test_parity_rows_hold_what_the_contract_names(files: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert check(files, out, "clean", "", "--precision=fp32,int8") == 0
    rows = report_of(out)["parity"]
    keys = {"file", "precision", "provider", "batch", "max_abs"}
    keys |= {"max_task_error", "tolerance", "passed"}
    assert all(set(row) >= keys for row in rows)
    assert {row["file"] for row in rows} == {"model.onnx", "model.int8.onnx", "generator.onnx"}
    assert {1, 2, 7} < {row["batch"] for row in rows}
    groups = {"benign", "triggered", "limits"}
    assert {row["images"] for row in rows if row["precision"] == "fp32"} == groups
    assert {row["images"] for row in rows if row["precision"] == "int8"} == groups | {"calibration"}
    assert all(row["passed"] for row in rows)
    page = (out / "report.html").read_text()
    assert "model.int8.onnx" in page
    assert "99th percentile" in page


def test_a_file_that_computes_something_else_gives_4(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tools.shipping as shipping

    written = shipping.export_files

    def spoilt(model: Model, *words: Any, **more: Any) -> list[Path]:
        with torch.no_grad():
            model.network.get_parameter("0.weight").mul_(1.01)  # after the check, before the export
        paths = written(model, *words, **more)
        with torch.no_grad():
            model.network.get_parameter("0.weight").div_(1.01)
        return paths

    monkeypatch.setattr(shipping, "export_files", spoilt)
    out = tmp_path / "out"
    assert check(files, out, "clean", "") == 4
    assert not all(row["passed"] for row in report_of(out)["parity"])


def test_the_shipped_file_says_where_it_comes_from(files: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert check(files, out, "backdoored", "clean", "--embed-preprocessing", "--opset=19") == 1
    proto = onnx.load(out / "mitigated.onnx")
    assert proto.opset_import[0].version == 19
    stated = json.loads(proto.metadata_props[0].value)
    report = report_of(out)
    assert stated["source_sha256"] == report["model"]["sha256"]
    assert stated["data_manifest_sha256"] == report["data"]["manifest_sha256"]
    assert stated["verdict"] == "backdoored"
    assert stated["input"]["embedded"] is True
    assert load_onnx(out / "mitigated.onnx").spec.outputs == ("pitch", "yaw")


def test_the_bill_of_materials_names_the_shipped_file(
    files: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert check(files, out, "backdoored", "clean", "--precision=fp32,fp16") == 1
    bom, report = json.loads((out / "bom.json").read_text()), report_of(out)
    listed = json.loads((out / "manifest.json").read_text())["files"]
    main = bom["metadata"]["component"]
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    assert (main["type"], main["name"]) == ("machine-learning-model", "mitigated.onnx")
    assert main["hashes"][0]["content"] == listed["mitigated.onnx"]["sha256"]
    assert main["pedigree"]["ancestors"][0]["hashes"][0]["content"] == report["model"]["sha256"]
    assert main["modelCard"]["modelParameters"]["task"] == "gaze regression"
    names = {part["name"]: part["type"] for part in bom["components"]}
    assert names == {
        "mitigated.fp16.onnx": "machine-learning-model",
        "mitigated.safetensors": "machine-learning-model",
        "generator.onnx": "file",
        "data.npz": "data",
    }
    assert complaints(bom) == []


def test_a_run_ends_when_its_report_is_written(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when its screening was over."""
    times = iter(f"2031-01-01T00:00:0{k}+00:00" for k in range(9))
    monkeypatch.setattr("tools.report.values.now", lambda: next(times))
    out = tmp_path / "out"
    assert check(files, out, "clean", "") == 0
    bom = json.loads((out / "bom.json").read_text())
    assert bom["metadata"]["timestamp"] < report_of(out)["ended"]
    assert "ended 2031-" in (out / "report.html").read_text()


def test_an_opset_that_can_not_be_written_stops_before_anything_runs(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(files, tmp_path / "out", "clean", "", "--opset=40") == 2
    assert "18 to 26" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", ["fp64", "fp32,x", ""])
def test_unknown_precisions_stop_before_anything_runs(
    words: str, files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["check", *files, f"--out={tmp_path / 'o'}", f"--precision={words}"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_overwriting_takes_away_what_the_earlier_run_wrote_and_nothing_else(
    files: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert check(files, out, "backdoored", "clean") == 1
    (out / "mine.onnx").write_text("the user's")
    assert check(files, out, "clean", "", "--overwrite") == 0
    names = {path.name for path in out.iterdir()}
    assert "mine.onnx" in names
    assert "model.onnx" in names
    assert not {"mitigated.onnx", "mitigated.safetensors"} & names


@pytest.mark.parametrize(
    ("found", "fresh", "more", "code"),
    [
        ("clean", "", "--overwrite", 0),
        ("inconclusive", "", "--overwrite", 3),
        ("backdoored", "backdoored", "--resume", 4),
    ],
)
def test_what_an_interrupted_run_has_written_does_not_stand_beside_another_report(
    found: str,
    fresh: str,
    more: str,
    code: int,
    files: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing has proved its models; the user's file of such a name stays."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "mitigated.fp16.onnx").write_text("the user's")

    def stopped(opened: Opened, *_: object) -> None:
        (opened.job.out / STATE).touch()  # as a search leaves it
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checking, "ship", stopped)
        assert check(files, out, "backdoored", "clean", "--overwrite") == 130
    assert (out / "mitigated.safetensors").exists()
    monkeypatch.setattr("guard.engine.Engine.resume", lambda engine: None)
    assert check(files, out, found, fresh, more) == code
    assert not {"mitigated.safetensors", "mitigated.json"} & {path.name for path in out.iterdir()}
    assert (out / "mitigated.fp16.onnx").read_text() == "the user's"
    listed = json.loads((out / "manifest.json").read_text())["files"]
    mine = {"manifest.json", "mitigated.fp16.onnx"}
    assert {path.name for path in out.iterdir() if path.is_file()} == mine | {
        name for name in listed if "/" not in name
    }


def test_the_model_is_never_written_over(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "mitigated.safetensors"
    Path(files[0]).rename(source)
    source.with_suffix(".json").write_text(Path(files[0]).with_suffix(".json").read_text())
    assert cli.run(["check", str(source), files[1], f"--out={tmp_path}"]) == 2
    assert "written over" in capsys.readouterr().err


def test_a_resumed_check_with_another_precision_is_refused(
    files: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert check(files, out, "clean", "") == 0
    assert check(files, out, "clean", "", "--resume", "--precision=fp16") == 2
    assert cli.run(["screen", *files, f"--out={out}", "--resume"]) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("found", "fresh"), [("clean", ""), ("backdoored", "clean")])
def test_a_model_that_no_exporter_follows_keeps_its_verdict(
    found: str, fresh: str, files: tuple[str, str], tmp_path: Path
) -> None:
    network = load_model(Path(files[0])).network
    supplied, out = tmp_path / "scripted.pt", tmp_path / "out"
    torch.jit.save(torch.jit.trace(network.eval(), torch.zeros(2, 3, SIDE, SIDE)), supplied)
    write_sidecar(supplied, spec_of("gaze", SIDE).to_json())
    assert check((str(supplied), files[1]), out, found, fresh, "--trust-code") == 4
    report = report_of(out)
    assert report["verdict"] == found
    assert "exported" in report["not_done"]
    assert (out / "mitigated.safetensors").exists() == (found == "backdoored")
    assert cli.run(["verify", str(out)]) == 0


@pytest.mark.parametrize(
    ("found", "fresh", "code"),
    [("clean", "", 0), ("backdoored", "clean", 1), ("backdoored", "backdoored", 4)],
)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_supplied_onnx_file_goes_the_whole_way(
    precision: str, found: str, fresh: str, code: int, files: tuple[str, str], tmp_path: Path
) -> None:
    supplied = tmp_path / "supplied.onnx"
    words = ["export", files[0], f"--out={supplied}", f"--data={files[1]}"]
    assert cli.run([*words, f"--precision={precision}"]) == 0
    if precision != "fp32":
        supplied = supplied.with_suffix(f".{precision}.onnx")
    out = tmp_path / "out"
    assert check((str(supplied), files[1]), out, found, fresh) == code
    assert report_of(out)["model"]["format"] == "onnx"
    assert all(row["passed"] for row in report_of(out)["parity"])
    names = {0: "model.onnx", 1: "mitigated.onnx", 4: "not-accepted.onnx"}
    assert (out / names[code]).exists()
    assert cli.run(["verify", str(out)]) == 0


@pytest.mark.parametrize(
    ("fresh", "precision", "name"),
    [
        ("clean", "fp32", "mitigated.onnx"),
        ("clean", "int8", "mitigated.int8.onnx"),  # no fp32 file that nothing has proved
        ("backdoored", "fp32", "not-accepted.onnx"),
    ],
)
def test_what_came_as_onnx_is_written_once_and_states_its_origin(
    fresh: str,
    precision: str,
    name: str,
    files: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = list[Path]()

    def noted(proto: onnx.ModelProto, path: Path, about: dict[str, Any]) -> None:
        written.append(path)
        write_onnx(proto, path, about)

    out, supplied = tmp_path / "out", tmp_path / "supplied.onnx"
    assert cli.run(["export", files[0], f"--out={supplied}"]) == 0
    monkeypatch.setattr("export.precision.write_onnx", noted)
    check((str(supplied), files[1]), out, "backdoored", fresh, f"--precision={precision}")
    assert written.count(out / name) == 1
    assert (out / "mitigated.onnx").exists() == (name == "mitigated.onnx")
    stated = read_metadata(onnx.load(out / name))
    assert (stated["verdict"], stated["score"]) == ("backdoored", 1.0)
    assert cli.run(["verify", str(out)]) == 0


def local_norm(outputs: int) -> nn.Module:
    """Its ONNX file holds a pooling in three dimensions."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.LocalResponseNorm(3), nn.Flatten(), nn.Linear(576, outputs)
    )


def test_what_could_not_be_screened_again_is_told_before_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network, spec = local_norm(2), spec_of("gaze", SIDE, arch="tests.test_check:local_norm")
    path = write_model(tmp_path, network, spec)
    data = write_npz(tmp_path / "data.npz", benign_of(model_of(network, side=SIDE), 60), spec)
    out = tmp_path / "out"
    assert check((str(path), str(data)), out, "clean", "") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "AveragePool" in line
    assert "drmguard screen" in line
    assert not out.exists()
