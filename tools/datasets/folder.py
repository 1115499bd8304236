"""Any labelled data of the contract's DATA form, as material for training.

GENKI-4K head pose is such a folder: labels.csv with filename, yaw_deg, pitch_deg, roll_deg.
"""

from pathlib import Path

import numpy as np

from guard.spec import OUTPUT_NAMES, InputSpec, ModelSpec
from tools.datasets.data import Labelled
from tools.datasets.reader import read

UNITS = {"gaze": "rad", "headpose": "deg"}  # of the labels and so of the models trained on them


def folder(path: Path, task: str, *, size: int) -> Labelled:
    """All images of a folder or an .npz at size x size. Raises UnusableInput."""
    units = UNITS[task]
    spec = ModelSpec("resnet18", task, OUTPUT_NAMES[task], units, InputSpec(size=(size, size)))
    benign = read(path, spec, limit=10**9).benign
    images = np.ascontiguousarray(benign.images.permute(0, 2, 3, 1).numpy())
    return Labelled(images, benign.labels.numpy(), task, units, None)
