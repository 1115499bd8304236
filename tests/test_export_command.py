"""`drmguard export` from end to end: what is written, what is refused, and the exit code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from export.metadata import read_metadata
from export.precision import export_files
from guard.files import sha256
from guard.model import Model
from tests.conftest import benign_of, model_of, plain, spec_of, write_model, write_npz
from tests.export_files import ARCH, model, small
from tools import cli


@pytest.fixture
def given(tmp_path: Path) -> tuple[str, str]:
    """MODEL and DATA."""
    path = write_model(tmp_path, small(2), spec_of(arch=ARCH))
    return str(path), str(write_npz(tmp_path / "data.npz", benign_of(model(), 40), spec_of()))


def test_the_command_writes_each_precision(given: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["export", given[0], f"--out={out / 'm.onnx'}", "--precision=fp32,fp16,int8"]
    assert cli.run([*words, f"--data={given[1]}", "--embed-preprocessing", "--opset=20"]) == 0
    names = {path.name: onnx.load(path) for path in out.iterdir()}
    assert set(names) == {"m.onnx", "m.fp16.onnx", "m.int8.onnx"}
    for proto in names.values():
        assert proto.opset_import[0].version == 20
        stated = read_metadata(proto)
        assert stated["source_sha256"] == sha256(Path(given[0]))
        assert stated["input"]["embedded"] is True
        assert len(stated["data_manifest_sha256"]) == 64


def test_the_command_overwrites_only_when_told(
    given: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.onnx"
    out.write_text("mine")
    assert cli.run(["export", given[0], f"--out={out}"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert cli.run(["export", given[0], f"--out={out}", "--overwrite"]) == 0
    onnx.checker.check_model(out)


@pytest.mark.parametrize(("precision", "code"), [("fp32", 0), ("int8", 2)])
def test_one_image_is_enough_where_nothing_is_calibrated(
    precision: str, code: int, given: tuple[str, str], tmp_path: Path
) -> None:
    words = ["export", given[0], f"--out={tmp_path / 'm.onnx'}", f"--data={given[1]}"]
    assert cli.run([*words, "--images=1", f"--precision={precision}"]) == code


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--precision=int8"], "--data"),
        (["--precision=int4"], "int4"),
        (["--precision=fp32,"], "nothing"),
        (["--opset=new"], "whole number"),
        (["--out=model.safetensors"], ".onnx"),
        (["--embed-preprocessing=yes"], "takes no value"),
    ],
)
def test_wrong_words_are_one_line_and_no_file(
    given: tuple[str, str],
    tmp_path: Path,
    words: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert cli.run(["export", given[0], f"--out={out / 'm.onnx'}", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line
    assert list(out.glob("*")) == []


def other_weights(write: Callable[..., list[Path]]) -> Callable[..., list[Path]]:
    """An exporter that writes another model than it was given."""

    def wrong(given: Model, *words: Any, **more: Any) -> list[Path]:
        torch.manual_seed(9)
        return write(model_of(plain(2)), *words, **more)

    return wrong


def test_a_file_that_computes_something_else_is_not_left_behind(
    given: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tools.exporting.export_files", other_weights(export_files))
    out = tmp_path / "out"
    assert cli.run(["export", given[0], f"--out={out / 'm.onnx'}"]) == 4
    assert "missed" in capsys.readouterr().out
    assert list(out.iterdir()) == []
