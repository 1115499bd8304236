"""Spots: where a recovered trigger changes only a small part of the picture.

The attacker's patch is there, or near, but of other colours: a pattern that leads to the target is
coarse and much the same in every search. So patches of any colours are unlearnt there too.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.benign import BenignSet

BLUR = 1 / 13  # of the picture's height, over which the change is averaged
LEVEL = 0.3  # of the largest change, that still belongs to a spot
INSIDE = 0.55  # of all of the change must be in it
SMALL = 0.15  # of the picture: a larger part is no spot
IMAGES = 64  # that a spot is read from
SIDES = (0.5, 1.3)  # of a patch over the spot's
CELLS = 5  # of a patch along each side, at most


@dataclass(frozen=True)
class Spot:
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    @classmethod
    @torch.no_grad()
    def of(cls, trigger: nn.Module, benign: BenignSet) -> "Spot | None":
        """Where most of a trigger's change is; None where that is a large part of the picture."""
        x = benign.x(slice(0, IMAGES))
        change = (trigger(x) - x).abs().mean(dim=(0, 1))
        side = round(BLUR * change.shape[0]) | 1
        smooth = functional.avg_pool2d(change[None], side, 1, side // 2)[0]
        row, column = divmod(int(smooth.argmax()), change.shape[1])
        inside = smooth > LEVEL * smooth.max()
        top, bottom = run(inside[:, column].tolist(), row)
        left, right = run(inside[top:bottom].any(dim=0).tolist(), column)
        spot = cls(top, left, bottom - top, right - left)
        most = change[top:bottom, left:right].sum() > INSIDE * change.sum()
        return spot if most and spot.height * spot.width <= SMALL * change.numel() else None

    def near(self, size: tuple[int, int], shift: float, draw: torch.Generator) -> "Spot":
        """One like it by chance, at most `shift` of the picture's sides away, and within it."""
        factors = SIDES[0] + (SIDES[1] - SIDES[0]) * torch.rand(2, generator=draw)
        moves = shift * (2 * torch.rand(2, generator=draw) - 1)
        sides, starts = [], []
        for k, (start, side) in enumerate(((self.top, self.height), (self.left, self.width))):
            new = min(max(2, round(side * float(factors[k]))), size[k])
            at = start + (side - new) / 2 + size[k] * float(moves[k])
            sides.append(new)
            starts.append(min(max(0, round(at)), size[k] - new))
        return Spot(*starts, *sides)

    def painted(self, x: Tensor, cells: Tensor) -> Tensor:
        """Images [N x 3 x H x W] with cells [N or 1 x 3 x c x c] over this place."""
        fine = functional.interpolate(cells, size=(self.height, self.width)).to(x)
        beside = (self.left, x.shape[3] - self.left - self.width)
        edges = (*beside, self.top, x.shape[2] - self.top - self.height)
        inside = functional.pad(torch.ones_like(fine[:1, :1]), edges)
        return x * (1 - inside) + functional.pad(fine, edges)


def run(flags: list[bool], at: int) -> tuple[int, int]:
    """Where the unbroken row of flags about `at` begins and ends."""
    first = next((k + 1 for k in range(at, -1, -1) if not flags[k]), 0)
    last = next((k for k in range(at, len(flags)) if not flags[k]), len(flags))
    return min(first, at), max(last, at + 1)


class Repainted(nn.Module):
    """A trigger, but for a `share` of the images patches of colours by chance about its spot."""

    def __init__(
        self, trigger: nn.Module, spot: Spot, share: float, shift: float, draw: torch.Generator
    ) -> None:
        super().__init__()
        self.trigger, self.spot, self.share, self.shift = trigger, spot, share, shift
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        count = round(self.share * len(x))
        spot = self.spot.near((x.shape[2], x.shape[3]), self.shift, self.draw)
        side = int(torch.randint(1, CELLS + 1, (), generator=self.draw))
        cells = torch.rand(count, 3, side, side, generator=self.draw)
        return torch.cat([spot.painted(x[:count], cells), self.trigger(x[count:])])


class Paint(nn.Module):
    """A patch of one's own colours at a place: a trigger to be searched for."""

    def __init__(self, spot: Spot, draw: torch.Generator) -> None:
        super().__init__()
        self.spot = spot
        self.cells = nn.Parameter(torch.randn(1, 3, CELLS - 1, CELLS - 1, generator=draw))

    def forward(self, x: Tensor) -> Tensor:
        return self.spot.painted(x, torch.sigmoid(2 * self.cells))
