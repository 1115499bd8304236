"""Shared triggers: one change for all images, weak enough that a benign model resists it."""

import torch
from torch import Tensor, nn
from torch.nn import functional

WARP_UNIT = 0.1  # the displacement, over half the image side, of a small flow parameter, a unit
WARP_LIMIT = 0.2  # the largest: a face can't be warped into another pose
AMPLITUDE = 1.0  # the largest value that a pattern adds to a colour: enough to hide what is there


class SharedTriggers(nn.Module):
    """K triggers at once, each x' = w(x) + p with its own pattern and warp, held in [0, 1].

    The pattern p [3 x H x W] is drawn on a coarse grid and enlarged; w moves the pixels by a
    smooth displacement field. Patches, blends, sinusoids and warps are within reach, fine noise
    is not: a benign model falls for that at a tenth of the cost, which would hide a backdoor.
    """

    base: Tensor

    def __init__(
        self,
        count: int,
        size: tuple[int, int],
        seed: int,
        grid: int = 8,
        coarse: int = 16,
        amplitude: float = AMPLITUDE,
    ) -> None:
        """`size` is height, width; warps have `grid` x `grid` nodes, patterns `coarse` x `coarse`.

        Both grids span the image whatever its size: no setting depends on the pixels.
        """
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.size, self.amplitude = size, amplitude
        height, width = size
        pattern = torch.randn(count, 3, coarse, coarse, generator=draw)
        self.pattern = nn.Parameter(0.1 * pattern)  # before tanh
        self.nodes = nn.Parameter(torch.zeros(count, 2, grid, grid))
        rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        self.register_buffer("base", torch.stack([x, y], dim=-1), persistent=False)
        self.enlarge_pattern = Enlarged(coarse, size, "bicubic", corners=False)
        self.enlarge_nodes = Enlarged(grid, size, "bilinear", corners=True)

    def __len__(self) -> int:
        return len(self.pattern)

    def flow(self) -> Tensor:
        """The displacement fields in pixels, x then y, [K x 2 x H x W]."""
        height, width = self.size
        half = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=self.nodes.device)
        return self._displacement() * half.view(1, 2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B x 3 x H x W] in [0, 1] -> each under each trigger, [K x B x 3 x H x W]."""
        # As clamp(0, 1), which takes four operations in the backward pass.
        return functional.hardtanh(self._warp(x) + self.added()[:, None], 0.0, 1.0)

    def added(self) -> Tensor:
        """The patterns p, [K x 3 x H x W], within +-amplitude."""
        return self.amplitude * torch.tanh(self.enlarge_pattern(self.pattern))

    def like(self, count: int, seed: int = 0, coarse: int | None = None) -> "SharedTriggers":
        """`count` new triggers of the same form, with patterns as coarse unless `coarse` says."""
        grid, coarse = self.nodes.shape[-1], coarse or self.pattern.shape[-1]
        made = SharedTriggers(count, self.size, seed, grid, coarse, self.amplitude)
        return made.to(self.nodes.device)

    def part(self, chosen: list[int]) -> "SharedTriggers":
        """Copies of the triggers of `chosen`."""
        made = self.like(len(chosen))
        made.load_state_dict({name: value[chosen] for name, value in self.state_dict().items()})
        return made

    @torch.no_grad()
    def only_warp(self, deviation: float, seed: int) -> None:
        """Begin anew: nothing is added, and random displacements of that standard deviation."""
        draw = torch.Generator().manual_seed(seed)
        self.pattern.zero_()
        self.nodes.copy_(deviation * torch.randn(self.nodes.shape, generator=draw))

    def drawn_on(self, coarse: int) -> "SharedTriggers":
        """The same triggers, as far as patterns of `coarse` x `coarse` points can hold them."""
        made = self.like(len(self), coarse=coarse)
        with torch.no_grad():
            points = functional.interpolate(self.pattern.tanh(), size=(coarse, coarse), mode="area")
            made.pattern.copy_(torch.atanh(points.clamp(-0.999, 0.999)))
            made.nodes.copy_(self.nodes)
        return made

    def optimizer(self, pattern_rate: float, warp_rate: float) -> torch.optim.Optimizer:
        """Adam with a learning rate for the patterns and one for the warps."""
        groups = [
            {"params": [self.pattern], "lr": pattern_rate},
            {"params": [self.nodes], "lr": warp_rate},
        ]
        return torch.optim.Adam(groups, betas=(0.8, 0.95))

    def select(self, index: int) -> "SharedTrigger":
        """The trigger of one search."""
        return SharedTrigger(self, index)

    def _displacement(self) -> Tensor:
        # A NaN, from a model whose gradients are none, ends grid_sample's backward pass in a crash.
        nodes = self.nodes.nan_to_num(nan=0.0)
        return self.enlarge_nodes(WARP_LIMIT * torch.tanh(WARP_UNIT / WARP_LIMIT * nodes))

    def _warp(self, x: Tensor) -> Tensor:
        # All images as channels of one: a trigger moves their pixels alike.
        stack = x.reshape(1, -1, *self.size).expand(len(self), -1, -1, -1)
        moved = functional.grid_sample(
            stack,
            self.base + self._displacement().permute(0, 2, 3, 1),
            padding_mode="border",
            align_corners=True,
        )
        return moved.view(len(self), *x.shape)


class Enlarged(nn.Module):
    """Values on a coarse grid enlarged to an image: [... x n x n] -> [... x H x W].

    Interpolation is linear in the values: a product for the rows and one for the columns, which
    take a thirtieth of the time of torch's bicubic there and back on a CPU.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, points: int, size: tuple[int, int], mode: str, *, corners: bool) -> None:
        """`mode` and `corners` as `mode` and `align_corners` of torch's interpolate."""
        super().__init__()
        for name, side in zip(("rows", "columns"), size, strict=True):
            unit = torch.eye(points)[None, None]
            weights = functional.interpolate(
                unit, size=(side, points), mode=mode, align_corners=corners
            )
            self.register_buffer(name, weights[0, 0], persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        fine: Tensor = self.rows @ values @ self.columns.T
        return fine


class SharedTrigger(nn.Module):
    """One shared trigger, x -> x'. [N x 3 x H x W] -> the same, in [0, 1]."""

    def __init__(self, triggers: SharedTriggers, index: int) -> None:
        super().__init__()
        self.one = triggers.part([index])

    def flow(self) -> Tensor:
        """The displacement field in pixels, [2 x H x W]."""
        return self.one.flow()[0].detach()

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.one(x)[0]
        return changed
