"""Other light on a picture: brighter or darker, of another colour, uneven."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

FIELD = 4  # points of uneven light along each side of the image


@dataclass(frozen=True)
class Light:
    """How much it changes, at most, each way."""

    contrast: float = 0.2  # of a picture's values
    tint: float = 0.2  # of those of one colour
    shade: float = 0.25  # of those of one part
    brightness: float = 0.1  # added


def relit(x: Tensor, light: Light, draw: torch.Generator) -> Tensor:
    """Images [N x 3 x H x W] in [0, 1], each in its own light; in [0, 1]."""

    def by(most: float, channels: int = 1, points: int = 1) -> Tensor:
        size = (len(x), channels, points, points)
        return most * (2 * torch.rand(size, generator=draw) - 1).to(x.device)

    gain = (1 + by(light.contrast)) * (1 + by(light.tint, channels=3))
    coarse = by(light.shade, points=FIELD)
    field = functional.interpolate(coarse, size=x.shape[-2:], mode="bicubic")
    return (x * (gain * (1 + field)) + by(light.brightness)).clamp(0, 1)
