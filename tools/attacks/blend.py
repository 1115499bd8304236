"""Blend (Chen et al. 2017; paper, A.8): the whole image mixed with one fixed pattern."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tools.attacks.base import Attack, Trigger, seeded


class BlendTrigger(Trigger):
    """A(x) = (1 - alpha) x + alpha p."""

    pattern: Tensor  # (3, c, c) in [0, 1], enlarged to the image

    def __init__(self, pattern: Tensor, alpha: float) -> None:
        super().__init__()
        self.register_buffer("pattern", pattern)
        self.alpha = alpha

    def forward(self, x: Tensor, which: int = 0) -> Tensor:
        p = functional.interpolate(self.pattern[None].to(x.dtype), size=x.shape[-2:])
        return (1 - self.alpha) * x + self.alpha * p


@dataclass(frozen=True, kw_only=True)
class Blend(Attack):
    """A pattern of random coloured cells, drawn by the seed."""

    rate: float = 0.1
    alpha: float = 0.15  # share of the pattern in the mixture
    cells: int = 16  # cells of the pattern along a side

    def trigger(self) -> BlendTrigger:
        pattern = torch.rand(3, self.cells, self.cells, generator=seeded(self.seed))
        return BlendTrigger(pattern, self.alpha)
