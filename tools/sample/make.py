"""Make the built-in sample anew: `python -m tools.sample.make [--work=DIR]`, a few minutes.

Both models are trained alike, by the zoo's plan beside this file, on rendered faces; the benign
images are of persons that neither model has seen.
"""

import json
import shutil
import tempfile
from pathlib import Path

import fire
import numpy as np

from guard.files import whole_file, write_json
from tools.sample import DATA, FOLDER, MODELS
from tools.zoo.train import train_zoo

IMAGES = 400  # with both models under 8 MB


def make(work: str | None = None, device: str = "auto") -> None:
    """Train the two models in the folder `work` (a temporary one without it) and copy them here."""
    with tempfile.TemporaryDirectory() as temporary:
        zoo = Path(work or temporary)
        train_zoo(FOLDER / "plan.csv", zoo, device=device)
        for name, path in MODELS.items():
            _copy(zoo / f"{name}-00", name, path)
        _copy_images(next((zoo / "data").glob("*.benign.npz")))


def _copy(source: Path, name: str, path: Path) -> None:
    shutil.copy(source / "model.safetensors", path)
    shutil.copy(source / "model.json", path.with_suffix(".json"))
    truth = json.loads((source / "truth.json").read_text())
    write_json(FOLDER / f"{name}.truth.json", truth)


def _copy_images(source: Path) -> None:
    with np.load(source) as archive, whole_file(DATA) as temporary:
        np.savez_compressed(
            temporary,
            images=archive["images"][:IMAGES],
            labels=archive["labels"][:IMAGES],
            columns=archive["columns"],
        )


if __name__ == "__main__":
    fire.Fire(make)
