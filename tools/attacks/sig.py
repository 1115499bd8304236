"""SIG (Barni et al. 2019; paper, A.8): a horizontal sinusoid added to the image."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tools.attacks.base import Attack, Trigger


class SinusoidTrigger(Trigger):
    """A(x) = clip(x + v), v[i, j] = delta sin(2 pi j f / W): the paper's equation 2 of SIG."""

    def __init__(self, delta: float, frequency: float) -> None:
        super().__init__()
        self.delta, self.frequency = delta, frequency

    def forward(self, x: Tensor, which: int = 0) -> Tensor:
        width = x.shape[-1]
        column = torch.arange(width, device=x.device, dtype=x.dtype)
        v = self.delta * torch.sin(2 * math.pi * self.frequency * column / width)
        return (x + v).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class Sig(Attack):
    """Delta of 30/255 to 40/255 in the original; poisoned images take the target as label."""

    rate: float = 0.1
    delta: float = 0.12  # amplitude, images in [0, 1]
    frequency: float = 6.0  # f, periods across the image

    def trigger(self) -> SinusoidTrigger:
        return SinusoidTrigger(self.delta, self.frequency)
