"""Is what was examined the supplier's ONNX file? Not on noise alone: on the user's pictures too."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from export.graph_check import check_pictures
from export.groups import BENIGN, TRIGGERED, image_groups
from guard.benign import BenignSet
from guard.model import Model

MOST = 32  # pictures, and as many under each trigger


def check_on(
    model: Model, path: Path, benign: BenignSet, triggers: Sequence[nn.Module] = ()
) -> None:
    """Hold a model against the ONNX file that it was read from, on a CPU in float32.

    On benign images, which set the tolerance, and on the same under each of `triggers`. Raises
    UnusableInput where onnxruntime gives others than the model.
    """
    groups = [image_groups(benign, trigger, most=MOST) for trigger in (None, *triggers)]
    pictures = [group.get(TRIGGERED, group[BENIGN]).images for group in groups]
    check_pictures(model, path, torch.cat(pictures), len(pictures[0]))
