"""Disturbances: changes of a picture that carry no backdoor, so no answer should move under them.

A recovered trigger is rarely the attacker's own. A model that has learnt to answer as before under
patterns and stripes of any kind minds the attacker's less too.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

GRAIN = (3, 24)  # points of a pattern along each side of the image, from smooth to fine
WAVES = (1.0, 14.0)  # of stripes across the image


def disturbed(x: Tensor, pattern: float, stripes: float, draw: torch.Generator) -> Tensor:
    """Images [N x 3 x H x W] in [0, 1] -> half of them under a pattern, the others under stripes.

    Each has its own, of a strength by chance up to `pattern` (its share of the mixture) or up to
    `stripes` (amplitude); in [0, 1].
    """
    half = len(x) // 2
    parts = [under_pattern(x[:half], pattern, draw), under_stripes(x[half:], stripes, draw)]
    return torch.cat(parts)


def under_pattern(x: Tensor, most: float, draw: torch.Generator) -> Tensor:
    """(1 - a) x + a p, with p of random colours, as flat cells or flowing into each other."""
    grain = int(torch.randint(GRAIN[0], GRAIN[1] + 1, (), generator=draw))
    cells = torch.rand(len(x), 3, grain, grain, generator=draw).to(x.device)
    mode = ("nearest", "bicubic")[int(torch.randint(2, (), generator=draw))]
    p = functional.interpolate(cells, size=x.shape[-2:], mode=mode).clamp(0, 1)
    a = each(x, (0.0, most), draw)
    return (1 - a) * x + a * p


def under_stripes(x: Tensor, most: float, draw: torch.Generator) -> Tensor:
    """x + a sin, waves in any direction, the same in all colours."""
    waves, angle = each(x, WAVES, draw), each(x, (0.0, math.pi), draw)
    phase, a = each(x, (0.0, 2 * math.pi), draw), each(x, (0.0, most), draw)
    height, width = x.shape[-2:]
    rows = torch.arange(height, device=x.device)[:, None] / height
    columns = torch.arange(width, device=x.device)[None] / width
    along = columns * angle.cos() + rows * angle.sin()
    return (x + a * torch.sin(2 * math.pi * waves * along + phase)).clamp(0, 1)


def each(x: Tensor, limits: tuple[float, float], draw: torch.Generator) -> Tensor:
    """A number by chance within `limits` for each image, (N, 1, 1, 1)."""
    low, high = limits
    return low + (high - low) * torch.rand(len(x), 1, 1, 1, generator=draw).to(x.device)
