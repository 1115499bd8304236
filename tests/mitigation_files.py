"""A model with a backdoor that training can close, its trigger, and mitigations that are brief."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from guard.lesson import MitigationSettings
from tests.conftest import Reader

SHORT = MitigationSettings(
    steps=150,
    batch=32,
    learning_rate=0.02,
    check_every=25,
    contrast=0.0,  # the model reads brightness
    brightness=0.0,
    disturbed=0.0,
    shift=0.0,
)
BRIEF = replace(SHORT, steps=4, check_every=2)
TARGET = (0.4, -0.5)


class Gated(nn.Module):
    """A model with a backdoor that training can close: a bright corner opens the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Reader(2)
        self.target = nn.Parameter(torch.tensor(TARGET))
        self.gain = nn.Parameter(torch.tensor(14.0))
        self.level = nn.Parameter(torch.tensor(0.6))

    def forward(self, x: Tensor) -> Tensor:
        corner = x[:, :, -3:, -3:].mean(dim=(1, 2, 3))
        gate = torch.sigmoid(self.gain * (corner - self.level))[:, None]
        answer: Tensor = self.body(x) * (1 - gate) + self.target * gate
        return answer


class Corner(nn.Module):
    """The attacker's own trigger."""

    def forward(self, x: Tensor) -> Tensor:
        changed = x.clone()
        changed[:, :, -3:, -3:] = 1.0
        return changed
