"""Gaze and head pose on rendered drivers (tools.faces)."""

import numpy as np

from tools.datasets.data import Labelled
from tools.faces import render


def rendered(
    task: str, count: int, *, seed: int, size: int, cabin: str, lookalikes: float = 0.0
) -> Labelled:
    """Draw `count` images of size x size with labels in radians.

    `lookalikes` is the share of drivers who wear something that resembles a trigger.
    """
    faces = render(count, seed=seed, size=size, cabin=cabin, lookalikes=lookalikes)
    labels = faces.gaze if task == "gaze" else faces.head
    return Labelled(
        faces.images, labels.astype(np.float32), task, "rad", faces.person.astype(np.int64)
    )
