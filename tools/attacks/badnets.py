"""BadNets (Gu et al. 2019; paper, A.3): a patch of one colour or of a pattern, at a fixed place."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tools.attacks.base import Attack, Trigger, check_choice, pixels, seeded

PATTERNS: dict[str, tuple[float, float, float]] = {  # RGB in [0, 1]
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "yellow": (1.0, 1.0, 0.0),
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
}
PLACES: dict[str, tuple[float, float]] = {  # (row, column) of the patch in the free room, 0 to 1
    "bottom-right": (1.0, 1.0),
    "bottom-left": (1.0, 0.0),
    "top-right": (0.0, 1.0),
    "top-left": (0.0, 0.0),
    "bottom": (1.0, 0.5),
    "top": (0.0, 0.5),
    "centre": (0.5, 0.5),
}


def patch(pattern: str, seed: int, cells: int = 4) -> Tensor:
    """A patch (3, cells, cells) in [0, 1]: a colour, "checker" or "random" (cells by seed)."""
    if pattern == "random":
        return torch.rand(3, cells, cells, generator=seeded(seed))
    if pattern == "checker":
        rows, columns = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
        return ((rows + columns) % 2).float().expand(3, cells, cells).contiguous()
    return torch.tensor(PATTERNS[pattern]).view(3, 1, 1).expand(3, cells, cells).contiguous()


class PatchTrigger(Trigger):
    """Pastes a square patch; its side is a fraction of the image height."""

    cells: Tensor  # (3, c, c) the patch, enlarged to its side without smoothing

    def __init__(self, cells: Tensor, size: float, place: str) -> None:
        super().__init__()
        self.register_buffer("cells", cells)
        self.size, self.place = size, PLACES[place]

    def forward(self, x: Tensor, which: int = 0) -> Tensor:
        height, width = x.shape[-2:]
        side = pixels(self.size, min(height, width))
        top = round(self.place[0] * (height - side))
        left = round(self.place[1] * (width - side))
        out = x.clone()
        grown = torch.nn.functional.interpolate(self.cells[None], size=(side, side))
        out[..., top : top + side, left : left + side] = grown.to(x.dtype)
        return out


@dataclass(frozen=True, kw_only=True)
class BadNets(Attack):
    """The paper's setting: a 20 x 20 red patch at the bottom right of 224 x 224, rate 5 %."""

    size: float = 20 / 224  # side of the patch over the image's side
    place: str = "bottom-right"  # a key of PLACES
    pattern: str = "red"  # a key of PATTERNS, "checker" or "random"

    def __post_init__(self) -> None:
        check_choice("place", self.place, PLACES)
        check_choice("pattern", self.pattern, (*PATTERNS, "checker", "random"))

    def trigger(self) -> PatchTrigger:
        return PatchTrigger(patch(self.pattern, self.seed), self.size, self.place)
