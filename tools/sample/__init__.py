"""The built-in sample: two small gaze models, one backdoored, and benign images for both."""

from pathlib import Path

FOLDER = Path(__file__).parent
MODELS = {name: FOLDER / f"{name}.safetensors" for name in ("backdoored", "benign")}
DATA = FOLDER / "faces.npz"
