"""A picture of what the triggers do: benign images, triggered images, the difference."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from guard.files import whole_file
from tools.attacks.base import Trigger

COLUMNS = 8  # images, taken evenly from those given
LEAST_SIDE = 128  # small images are enlarged to this side
GAIN = 3  # the difference is shown as grey plus so many times itself


@torch.no_grad()
def write_sheet(path: Path, x: Tensor, trigger: Trigger | None, backdoors: int) -> None:
    """A row of benign images of x [N x 3 x H x W] in [0, 1], then two rows for each backdoor."""
    x = x[:: max(1, len(x) // COLUMNS)][:COLUMNS]
    rows = [x]
    for triggered in [trigger(x, i) for i in range(backdoors)] if trigger else []:
        rows += [triggered, (0.5 + GAIN * (triggered - x)).clamp(0, 1)]
    picture = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    pixels = (picture.nan_to_num().cpu().permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    factor = max(1, LEAST_SIDE // x.shape[-1])
    pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    with whole_file(path) as temporary:
        cv2.imwrite(str(temporary), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
