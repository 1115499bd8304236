"""A network's fixed maps folded into its convolutions: the same function in fewer steps."""

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from guard.model import Model, copied
from guard.networks import NETWORKS
from guard.preprocess import Preprocess
from guard.spec import InputSpec


class Shift(Preprocess):
    """What a preprocessing leaves to do once its scale and its colour order are folded away.

    [N x 3 x H x W] RGB in [0, 1], channels last in memory -> the same, moved by a constant: that
    one must stay, for a convolution pads with zeros of its own.
    """

    def __init__(self, spec: InputSpec) -> None:
        super().__init__(spec)
        moved = self.in_order(self.shift / self.scale)
        # A number for each pixel: three for all of them take four times as long to add.
        self.shift = moved.expand(1, 3, *spec.size).contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


def folded(model: Model) -> Model:
    """A frozen copy of a built-in architecture with batch norm and scale folded in; else itself.

    The steps of a network are read off one symbolic pass, and what a supplier's code does in such a
    pass need not be what it does to pictures.
    """
    if model.spec.arch not in NETWORKS:
        return model
    twin, before = copied(model), model.preprocess
    twin.network = fuse(twin.network, inplace=True).requires_grad_(False)
    first = next(part for part in twin.network.modules() if isinstance(part, nn.Conv2d))
    first.weight.copy_(before.in_order(first.weight * before.scale))
    twin.preprocess = Shift(model.spec.input).to(before.scale.device)
    return twin
