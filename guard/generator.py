"""G_theta: the paper's generative trigger model, and its momentum reverse trigger (equation 7)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.benign import BenignSet
from guard.model import Model


class Generator(nn.Module):
    """G_theta: an encoder-decoder without skip connections. [N x 3 x H x W] -> the same, in (0, 1).

    3x3 convolutions, each followed by BatchNorm and ReLU; three 2x2 max-pools down, bilinear
    upsampling back; output tanh / 2 + 0.5 (A.10 points to Nguyen & Tran 2020 for it; the
    channels are those of the authors' later code).
    """

    def __init__(self, channels: tuple[int, int, int] = (32, 64, 128)) -> None:
        super().__init__()
        first, second, third = channels
        self.down = nn.ModuleList([_stage(3, first), _stage(first, second), _stage(second, third)])
        self.middle = _stage(third, third)
        self.up = nn.ModuleList(
            [_stage(third, second), _stage(second, first), _stage(first, first)]
        )
        self.last = nn.Conv2d(first, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        sizes = []
        for stage in self.down:
            x = stage(x)
            sizes.append(x.shape[-2:])
            x = functional.max_pool2d(x, 2)
        x = self.middle(x)
        for stage, size in zip(self.up, reversed(sizes), strict=True):
            x = stage(functional.interpolate(x, size=size, mode="bilinear", align_corners=False))
        return torch.tanh(self.last(x)) / 2 + 0.5


def _stage(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


ATTENTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    # What stands for f in |df/dx| where f is a vector: the paper leaves it open.
    "sum": lambda y: y.sum(dim=1)[None],  # one map of the outputs' sum, [1 x N]
    "each": lambda y: y.T,  # |df_j/dx| of each output, added up, [d x N]
}


def attention_map(model: Model, x: Tensor, attention: str, above: float) -> Tensor:
    """T(x) of A.1: sum over colours of |df/dx|, rescaled to [0, 1).

    [N x 3 x H x W] -> [N x 1 x H x W]. Divided by `above` (> 1) times the map's own maximum.
    """
    x = x.detach().requires_grad_(True)
    total = torch.zeros_like(x[:, :1])
    parts = ATTENTIONS[attention](model(x))
    for i, part in enumerate(parts):
        (slope,) = torch.autograd.grad(part.sum(), x, retain_graph=i + 1 < len(parts))
        total += slope.abs().sum(dim=1, keepdim=True)
    highest = total.amax(dim=(2, 3), keepdim=True).clamp_min(torch.finfo(total.dtype).tiny)
    return (total / (above * highest)).detach()


def attention_maps(model: Model, benign: BenignSet, attention: str, above: float) -> Tensor:
    """T(x_i) of the whole benign set, computed once: f and D_be are fixed. [N x 1 x H x W] half."""
    parts = [
        attention_map(model, benign.x(index), attention, above).half()
        for index in benign.batches(128)
    ]
    return torch.cat(parts)


def momentum_reverse_trigger(g: Tensor, x: Tensor, T: Tensor) -> Tensor:
    """Equation 7: x' = G(x) (1 - T(x)) + x T(x)."""
    return g * (1 - T) + x * T
