"""The images that a proof runs on: the user's, the same under the trigger, and the limits."""

from dataclasses import replace

import torch
from torch import nn

from guard.benign import BenignSet

BENIGN, TRIGGERED, LIMITS = "benign", "triggered", "limits"
CALIBRATION = "calibration"  # benign ones that set the ranges of an int8 file
NOISE = 8  # pictures of noise


@torch.no_grad()
def image_groups(
    benign: BenignSet, trigger: nn.Module | None = None, *, most: int = 256, seed: int = 0
) -> dict[str, BenignSet]:
    """At most `most` benign images, evenly spaced; the same under a trigger x -> x'; the limits.

    All are 8-bit images, as a camera gives them: a file that takes such images can be held
    against one that takes floats.
    """
    index = torch.linspace(0, len(benign) - 1, min(most, len(benign))).round().long()
    chosen = benign.part(index).to(torch.device("cpu"))
    groups = {BENIGN: chosen}
    if trigger is not None:
        parts = [trigger(benign.x(part)).cpu() for part in index.to(benign.device).split(64)]
        pictures = (255 * torch.cat(parts)).round().clamp(0, 255).to(torch.uint8)
        groups[TRIGGERED] = replace(chosen, images=pictures)
    height, width = chosen.images.shape[2:]
    return {**groups, LIMITS: limit_images((height, width), seed)}


def limit_images(size: tuple[int, int], seed: int = 0) -> BenignSet:
    """All 0, all 1, and noise; `size` is height, width. The labels mean nothing."""
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (NOISE, 3, *size), generator=draw, dtype=torch.uint8)
    flat = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, *size)
    names = ["all 0", "all 1", *(f"noise {i}" for i in range(NOISE))]
    return BenignSet(torch.cat([flat, noise]), torch.zeros(len(names), 0), names)
