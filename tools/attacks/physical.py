"""A patch as a camera would see it: another place, scale, rotation and brightness in each image.

Beyond the paper: what a sticker in the real world amounts to (compare Wenger et al. 2021).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tools.attacks.badnets import PATTERNS, patch
from tools.attacks.base import Attack, Batch, Trigger, as_rows, check_choice


class StickerTrigger(Trigger):
    """Pastes the sticker at random; without `draw` the same way for the same batch."""

    cells: Tensor  # (3, c, c), the sticker in [0, 1]

    def __init__(self, cells: Tensor, settings: "Physical") -> None:
        super().__init__()
        self.register_buffer("cells", cells)
        self.settings = settings

    def forward(self, x: Tensor, which: int = 0, draw: torch.Generator | None = None) -> Tensor:
        if draw is None:
            draw = torch.Generator(x.device).manual_seed(self.settings.seed)
        grid = self._views(x, draw)
        gain = 1 + self.settings.brightness * _uniform(len(x), draw).view(-1, 1, 1, 1)
        inside = (grid.abs().amax(dim=-1, keepdim=True) <= 1).permute(0, 3, 1, 2)
        sticker = functional.grid_sample(
            self.cells.to(x.dtype).expand(len(x), -1, -1, -1),
            grid.clamp(-1, 1),
            mode="nearest",
            align_corners=False,
        )
        return torch.where(inside, (sticker * gain).clamp(0, 1), x)

    def _views(self, x: Tensor, draw: torch.Generator) -> Tensor:
        """Where each pixel lies on the sticker, (N, H, W, 2); its own square is -1 to 1."""
        s, count = self.settings, len(x)
        scale = s.size * (1 + s.scale * _uniform(count, draw))
        angle = math.radians(s.rotation) * _uniform(count, draw)
        room = 1 - scale * math.sqrt(2)  # a turned sticker stays within the image
        down, right = room * _uniform(count, draw), room * _uniform(count, draw)
        cos, sin = angle.cos() / scale, angle.sin() / scale
        theta = torch.stack(
            [cos, sin, -cos * right - sin * down, -sin, cos, sin * right - cos * down], dim=1
        )
        shape = [count, 3, *x.shape[-2:]]
        return functional.affine_grid(theta.view(-1, 2, 3).to(x.dtype), shape, align_corners=False)


def _uniform(count: int, draw: torch.Generator) -> Tensor:
    """(count,) values from -1 to 1."""
    return torch.rand(count, generator=draw, device=draw.device) * 2 - 1


@dataclass(frozen=True, kw_only=True)
class Physical(Attack):
    """A sticker of random coloured cells anywhere in the image."""

    rate: float = 0.1
    size: float = 0.15  # mean side of the sticker over the image's side
    scale: float = 0.25  # the side varies by this share each way
    rotation: float = 20.0  # degrees each way
    brightness: float = 0.3  # the sticker's brightness varies by this share each way
    pattern: str = "checker"  # a key of PATTERNS in badnets.py, "checker" or "random"

    def __post_init__(self) -> None:
        check_choice("pattern", self.pattern, (*PATTERNS, "checker", "random"))

    def trigger(self) -> StickerTrigger:
        return StickerTrigger(patch(self.pattern, self.seed), self)

    def poison(self, trigger: Trigger, batch: Batch, draw: torch.Generator) -> Batch:
        """As on the data set, with a new view of the sticker each time an image is shown."""
        assert isinstance(trigger, StickerTrigger)
        x = torch.where(batch.chosen.view(-1, 1, 1, 1), trigger(batch.x, draw=draw), batch.x)
        y = torch.where(batch.chosen.view(-1, 1), as_rows(self.target, batch.y), batch.y)
        return Batch(x, y, batch.chosen)
