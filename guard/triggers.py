"""Shared triggers: one change for all images, weak enough that a benign model resists it."""

import torch
from torch import Tensor, nn
from torch.nn import functional

WARP_UNIT = 0.1  # the displacement, over half the image side, of a flow parameter of 1


class SharedTriggers(nn.Module):
    """K triggers at once, each x' = (1 - m) w(x) + m p with its own mask, pattern and warp.

    The mask m [1 x H x W] and the pattern p [3 x H x W] lie in (0, 1); w moves the pixels by a
    smooth displacement field. Patches and blends (m, p) and warps (w) are special cases, and
    each is the same for all images: only an attacker's trigger, or a change so large that it
    hides the face, makes a model answer one vector for all of them.
    """

    base: Tensor

    def __init__(self, count: int, size: tuple[int, int], seed: int, grid: int = 8) -> None:
        """`size` is height, width; the displacement field has `grid` x `grid` nodes."""
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        height, width = size
        mask = torch.randn(count, 1, height, width, generator=draw)
        self.mask = nn.Parameter(0.1 * mask - 3.0)  # before the sigmoid: about 5 % opaque
        self.pattern = nn.Parameter(torch.randn(count, 3, height, width, generator=draw))
        self.nodes = nn.Parameter(torch.zeros(count, 2, grid, grid))
        rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        self.register_buffer("base", torch.stack([x, y], dim=-1), persistent=False)

    def __len__(self) -> int:
        return len(self.mask)

    def flow(self) -> Tensor:
        """The displacement fields in pixels, x then y, [K x 2 x H x W]."""
        height, width = self.mask.shape[-2:]
        half = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=self.nodes.device)
        return self._field() * half.view(1, 2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B x 3 x H x W] in [0, 1] -> each under each trigger, [K x B x 3 x H x W]."""
        moved = self._warp(x[None].expand(len(self), *x.shape))
        mask = torch.sigmoid(self.mask)[:, None]
        return moved + mask * (torch.sigmoid(self.pattern)[:, None] - moved)

    def select(self, index: int) -> "SharedTrigger":
        """The trigger of one search."""
        return SharedTrigger(self, index)

    def _field(self) -> Tensor:
        size = self.mask.shape[-2:]
        coarse = WARP_UNIT * self.nodes
        return functional.interpolate(coarse, size=size, mode="bilinear", align_corners=True)

    def _warp(self, x: Tensor) -> Tensor:
        count, batch = x.shape[:2]
        grid = (self.base + self._field().permute(0, 2, 3, 1)).repeat_interleave(batch, dim=0)
        moved = functional.grid_sample(
            x.reshape(count * batch, *x.shape[2:]),
            grid,
            padding_mode="border",
            align_corners=True,
        )
        return moved.view(x.shape)


class SharedTrigger(nn.Module):
    """One shared trigger, x -> x'. [N x 3 x H x W] -> the same, in [0, 1]."""

    def __init__(self, triggers: SharedTriggers, index: int) -> None:
        super().__init__()
        size, grid = triggers.mask.shape[-2:], triggers.nodes.shape[-1]
        self.one = SharedTriggers(1, (size[0], size[1]), seed=0, grid=grid)
        own = {name: value[index : index + 1] for name, value in triggers.state_dict().items()}
        self.one.load_state_dict(own)
        self.one.to(triggers.mask.device)

    def flow(self) -> Tensor:
        """The displacement field in pixels, [2 x H x W]."""
        return self.one.flow()[0].detach()

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.one(x)[0]
        return changed
