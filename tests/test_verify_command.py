"""`drmguard verify`: a folder as it was written passes, and what was changed is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from export.half import HALF
from export.precision import to_fp16
from tests.check_files import check, files_of, quicken
from tools import cli
from tools.manifest import write_manifest


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return files_of(tmp_path)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


def spoil_weights(out: Path) -> None:
    proto = onnx.load(out / "model.onnx")
    weight = next(w for w in proto.graph.initializer if len(w.dims) == 4)
    values = onnx.numpy_helper.to_array(weight) * 1.001
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(proto, out / "model.onnx")


def spoil_report(out: Path) -> None:
    path = out / "report.json"
    path.write_text(path.read_text().replace('"clean"', '"backdoored"'))


def list_again(out: Path) -> None:
    """As one who covers his traces: the manifest fits what is there."""
    names = json.loads((out / "manifest.json").read_text())["files"]
    write_manifest(out, [out / name for name in names])


@pytest.fixture
def checked(files: tuple[str, str], tmp_path: Path) -> Path:
    assert check(files, tmp_path / "out", "clean", "") == 0
    return tmp_path / "out"


def test_a_folder_as_it_was_written_is_verified_anywhere(checked: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "copy"
    shutil.copytree(checked, elsewhere)
    shutil.rmtree(checked)
    assert cli.run(["verify", str(elsewhere)]) == 0


def test_half_floats_are_proved_again(files: tuple[str, str], tmp_path: Path) -> None:
    assert check(files, tmp_path / "out", "clean", "", "--precision=fp16") == 0
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["parity"]
    assert HALF in {row["provider"] for row in rows}
    assert cli.run(["verify", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("covered", [False, True])
@pytest.mark.parametrize("spoil", [spoil_weights, spoil_report])
def test_what_was_changed_is_named(
    spoil: Callable[[Path], None], covered: bool, checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(checked)
    if covered:
        list_again(checked)
    assert cli.run(["verify", str(checked)]) == 4
    assert "differs: " in capsys.readouterr().out


def test_a_missing_file_is_named(checked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checked / "parity.json").unlink()
    assert cli.run(["verify", str(checked)]) == 4
    assert "parity.json is missing" in capsys.readouterr().out


def test_a_file_of_another_precision_than_was_proved_is_named(
    checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A looser one, within its own tolerance; it says of itself what it is now."""
    proto = onnx.load(checked / "model.onnx")
    (entry,) = proto.metadata_props
    entry.value = json.dumps({**json.loads(entry.value), "precision": "fp16"})
    onnx.save(to_fp16(proto), checked / "model.onnx")
    report = json.loads((checked / "report.json").read_text())
    (checked / "bom.json").unlink()
    names = set(json.loads((checked / "manifest.json").read_text())["files"]) - {"bom.json"}
    write_manifest(checked, [checked / name for name in names])
    assert report["parity"][0]["precision"] == "fp32"
    assert cli.run(["verify", str(checked)]) == 4
    assert "model.onnx was proved as fp32 and is fp16 now" in capsys.readouterr().out


def without(out: Path, *names: str) -> None:
    """Take files away and from the manifest, as one who covers his traces."""
    for name in names:
        (out / name).unlink()
    left = set(json.loads((out / "manifest.json").read_text())["files"]) - set(names)
    write_manifest(out, [out / name for name in left])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["parity-images.npz"], "parity can't be run again"),
        (["model.onnx"], "report.json says that model.onnx was proved"),
        (["generator.onnx"], "report.json says that generator.onnx was proved"),
        (["parity-images.npz", "model.onnx", "bom.json"], "parity can't be run again"),
    ],
    ids=str,
)
def test_a_proof_that_is_gone_is_missed(
    names: list[str], said: str, checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without(checked, *names)
    assert cli.run(["verify", str(checked)]) == 4
    assert said in capsys.readouterr().out


def test_a_model_that_the_report_does_not_name_needs_its_proof_too(
    checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = json.loads((checked / "report.json").read_text())
    del report["parity"]
    (checked / "report.json").write_text(json.dumps(report))
    without(checked, "parity-images.npz")
    assert cli.run(["verify", str(checked)]) == 4
    assert "parity can't be run again" in capsys.readouterr().out


def test_rows_of_parity_that_name_no_file_are_one_line(
    checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = json.loads((checked / "report.json").read_text())
    (checked / "report.json").write_text(json.dumps({**report, "parity": [3]}))
    list_again(checked)
    capsys.readouterr()
    assert cli.run(["verify", str(checked)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_folder_without_a_report_can_not_be_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["verify", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
