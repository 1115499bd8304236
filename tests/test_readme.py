"""The README: its example runs, and says what the model says."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from export.precision import export_files
from guard.spec import InputSpec
from tests.conftest import model_of, plain

ROOT = Path(__file__).resolve().parents[1]
BGR = InputSpec((24, 16), "bgr", (0.0, 255.0), (104.0, 117.0, 123.0), (50.0, 60.0, 70.0))


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("taken", [InputSpec((24, 24)), BGR], ids=["rgb", "bgr"])
def test_the_example_of_the_readme_answers_as_the_model(
    taken: InputSpec,
    embedded: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (name,) = re.findall(r'"(.*\.onnx)"', example)
    assert f"--out={Path(name).parent} " in (ROOT / "Makefile").read_text()
    model = model_of(plain(2).eval(), input=taken)
    export_files(model, tmp_path / name, embed_preprocessing=embedded)
    height, width = taken.size
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "face.png"), picture[..., ::-1])
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    x = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    pitch, yaw = model(x)[0].rad2deg().tolist()
    assert capsys.readouterr().out == f"pitch {pitch:.1f}, yaw {yaw:.1f} degrees\n"
