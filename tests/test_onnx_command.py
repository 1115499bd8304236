"""ONNX files as MODEL: `drmguard inspect` and `drmguard screen` on them."""

import functools
import json
import math
from pathlib import Path

import pytest

from export.onnx_in import load_onnx
from guard.screen import Settings
from tests.conftest import benign_of, short_search, write_npz
from tests.onnx_files import SPEC, as_int8, changed, set_node, small, write
from tools import cli


def test_inspect_prints_what_a_file_takes_and_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(small(), tmp_path)
    assert cli.run(["inspect", str(path)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["format"] == "onnx"
    assert facts["sidecar_sha256"] is None
    assert facts["split"] == {"layer": "fc", "features": 16, "reason": ""}
    assert facts["onnx"] == {
        "opset": 18,
        "producer": "by hand",
        "input_name": "input",
        "output_name": "output",
        "batch": "symbolic",
        "embedded_preprocessing": False,
    }


def test_inspect_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(changed(set_node(2, op_type="Sinh")), tmp_path)
    assert cli.run(["inspect", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_screen_takes_an_onnx_file_and_resumes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = short_search(2)
    short = functools.partialmethod(Settings.__init__, calibrated=settings)
    monkeypatch.setattr(Settings, "__init__", short)
    monkeypatch.setattr("tools.report.plotting.DPI", 30)
    path = write(small() if kind == "float32" else as_int8(small(), tmp_path), tmp_path)
    data = write_npz(tmp_path / "data.npz", benign_of(load_onnx(path), 60), SPEC)
    words = ["screen", str(path), str(data), f"--out={tmp_path / 'out'}", "--quiet"]
    code = cli.run([*words, "--device=cpu"])
    assert code in (0, 1, 3)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["model"]["format"] == "onnx"
    assert report["model"]["split"]["layer"] is not None
    assert math.isfinite(report["score"])
    assert cli.run([*words, "--device=cpu", "--resume"]) == code
