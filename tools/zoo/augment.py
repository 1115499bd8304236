"""A batch of images from the stored bytes, shifted and brightened at random."""

import torch
from torch import Tensor

SHIFT = 1 / 16  # of the image side, at most, each way
CONTRAST = 0.2
BRIGHTNESS = 0.1


def gather(images: Tensor, index: Tensor, draw: torch.Generator, *, augment: bool) -> Tensor:
    """Images (N, H, W, 3) uint8 at `index` (B,) -> [B x 3 x H x W] in [0, 1], channels last.

    Shifts and brightness leave gaze and head pose as they are; a mirror image would not.
    """
    if not augment:
        return images[index].permute(0, 3, 1, 2) / 255.0
    height, width = images.shape[1:3]
    rows = _shifted(height, len(index), draw)
    columns = _shifted(width, len(index), draw)
    picked = images[index[:, None, None], rows[:, :, None], columns[:, None, :]]
    x = picked.permute(0, 3, 1, 2) / 255.0
    gain, offset = (_uniform((len(index), 1, 1, 1), draw) for _ in range(2))
    return (x * (1 + CONTRAST * gain) + BRIGHTNESS * offset).clamp(0, 1)


def _shifted(side: int, count: int, draw: torch.Generator) -> Tensor:
    """Rows (or columns) of `count` images, each moved by its own shift; edges repeat. (B, side)."""
    shift = (_uniform((count, 1), draw) * SHIFT * side).round().long()
    return (torch.arange(side, device=draw.device) + shift).clamp(0, side - 1)


def _uniform(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=draw, device=draw.device) * 2 - 1
