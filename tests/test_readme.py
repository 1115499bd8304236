"""The README: its example runs."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from export.precision import export_files
from guard.load import load_model
from tests.check_files import files_of


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return files_of(tmp_path)


def test_the_example_of_the_readme_runs(
    files: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    export_files(load_model(Path(files[0])), tmp_path / "mitigated.onnx", embed_preprocessing=True)
    cv2.imwrite(str(tmp_path / "face.png"), np.full((40, 50, 3), 99, np.uint8))
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert re.fullmatch(r"pitch -?\d+\.\d, yaw -?\d+\.\d degrees\n", capsys.readouterr().out)
