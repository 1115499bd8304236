"""`drmguard parity` from end to end: the proof that is written, and the exit code."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from export.groups import BENIGN, LIMITS, TRIGGERED
from export.half import HALF
from export.session import CPU
from guard.trigger_file import save_triggers
from tests.conftest import spec_of, stirred, write_model, write_npz
from tests.parity_files import (
    ARCH,
    IMAGE,
    benign,
    hard_batch,
    nan_weight,
    network,
    one_weight,
    second_input,
    static_batch,
    tamper,
)
from tools import cli


@pytest.fixture
def given(tmp_path: Path, exported: dict[str, Path]) -> list[str]:
    """MODEL FILE.onnx DATA --out=DIR."""
    spec = spec_of(arch=ARCH, input=IMAGE)
    path = write_model(tmp_path, network(), spec)
    data = write_npz(tmp_path / "data.npz", benign(), spec)
    return [str(path), str(exported["fp32"]), str(data), f"--out={tmp_path / 'out'}"]


def test_the_command_writes_the_proof(given: list[str], tmp_path: Path) -> None:
    trigger = stirred(1, (16, 16), seed=4).select(0)
    save_triggers([trigger], tmp_path / "trigger.safetensors", "of the screened model")
    assert cli.run(["parity", *given, f"--trigger={tmp_path / 'trigger.safetensors'}"]) == 0
    written = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert written["passed"] is True
    assert len(written["rows"]) == 12
    fixed = {"file", "precision", "provider", "batch", "max_abs", "max_task_error"}
    assert all(fixed | {"tolerance", "passed"} <= set(row) for row in written["rows"])
    assert written["tf32"] == {"torch": False, "onnxruntime": False}
    assert written["providers"]["run"] == [CPU]
    assert written["proofs"][0]["images"] == {BENIGN: 40, TRIGGERED: 40, LIMITS: 10}
    assert written["proofs"][0]["noise"][BENIGN] > 0
    assert {row["batch"] for row in written["latency"]} == {1, 8}
    assert written["model"]["sha256"]
    assert written["trigger"]["model_sha256"] == "of the screened model"
    assert len(written["data"]["manifest_sha256"]) == 64
    assert written["environment"]["packages"]["torch"]
    (worst,) = written["worst"]
    assert (tmp_path / "out" / worst["picture"]).is_file()
    assert worst["index"] >= 0


def test_the_command_overwrites_only_when_told(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out" / "parity.json"
    path.parent.mkdir()
    path.write_text("mine")
    assert cli.run(["parity", *given]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert cli.run(["parity", *given, "--overwrite"]) == 0
    assert json.loads(path.read_text())["passed"]


def test_a_report_keeps_its_own_proof(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "out" / "report.json"
    report.parent.mkdir()
    report.write_text("{}")
    assert cli.run(["parity", *given, "--overwrite"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds a report" in line
    assert "another --out" in line
    assert list(report.parent.iterdir()) == [report]


def test_a_trigger_for_other_images_is_refused(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_triggers([stirred(1, (8, 8), seed=4).select(0)], tmp_path / "trigger.safetensors")
    assert cli.run(["parity", *given, f"--trigger={tmp_path / 'trigger.safetensors'}"]) == 2
    assert "another size" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_file_of_a_fixed_batch_is_proved_in_that(
    given: list[str],
    exported: dict[str, Path],
    precision: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given[1] = str(tamper(exported[precision], tmp_path / "fixed.onnx", static_batch))
    assert cli.run(["parity", *given]) == 0
    assert "in batches of 1 alone" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out" / "parity.json").read_text())["rows"]
    assert {(row["batch"], row["batch_fixed"]) for row in rows} == {(1, True)}
    assert {row["provider"] for row in rows} == {CPU, *([HALF] if precision == "fp16" else [])}


@pytest.mark.parametrize(
    ("change", "code"), [(one_weight, 4), (nan_weight, 4), (hard_batch, 4), (second_input, 2)]
)
def test_the_command_s_exit_codes(
    given: list[str],
    tmp_path: Path,
    change: Callable[[onnx.ModelProto], None],
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given[1] = str(tamper(Path(given[1]), tmp_path / "bad.onnx", change))
    assert cli.run(["parity", *given]) == code
    heard = capsys.readouterr()
    assert "bad.onnx" in (heard.err if code == 2 else heard.out)
    written = tmp_path / "out" / "parity.json"
    assert written.exists() is (code == 4)
    if code == 4:
        assert json.loads(written.read_text())["passed"] is False
