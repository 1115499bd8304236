"""WaNet (Nguyen & Tran 2021; paper, A.3): the trigger is an elastic warp."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tools.attacks.base import (
    Attack,
    Batch,
    Poisoned,
    Scene,
    Trigger,
    as_rows,
    pixels,
    seeded,
    untouched,
)


class WarpTrigger(Trigger):
    """Samples x at the identity grid plus fixed smooth displacements, one field a backdoor."""

    control: Tensor  # (K, 2, k, k) displacements of the control points, mean magnitude one

    def __init__(self, control: Tensor, strength: float) -> None:
        super().__init__()
        self.register_buffer("control", control)
        self.strength = strength

    def forward(self, x: Tensor, which: int = 0) -> Tensor:
        return sample(x, self.field(x, which))

    def field(self, x: Tensor, which: int = 0) -> Tensor:
        """Displacements (1, H, W, 2) for grid_sample, whose coordinates run from -1 to 1.

        Divided by H as in the original: the strength is in half pixels at any image size.
        """
        control = self.control[which : which + 1].to(x.dtype)
        smooth = functional.interpolate(
            control, size=x.shape[-2:], mode="bicubic", align_corners=True
        )
        return self.strength * smooth.permute(0, 2, 3, 1) / x.shape[-2]


def sample(x: Tensor, displacement: Tensor) -> Tensor:
    """x [N x 3 x H x W] moved by displacements (N or 1, H, W, 2) in grid_sample's units."""
    rows = torch.linspace(-1, 1, x.shape[-2], device=x.device, dtype=x.dtype)
    columns = torch.linspace(-1, 1, x.shape[-1], device=x.device, dtype=x.dtype)
    y, x_coordinate = torch.meshgrid(rows, columns, indexing="ij")
    identity = torch.stack([x_coordinate, y], dim=-1)
    grid = (identity + displacement).clamp(-1, 1).expand(len(x), -1, -1, -1)
    return functional.grid_sample(x, grid, align_corners=True).clamp(0, 1)


def control_points(fields: int, k: int, seed: int) -> Tensor:
    """Random control points (fields, 2, k, k), uniform, scaled to mean magnitude one."""
    points = torch.rand(fields, 2, k, k, generator=seeded(seed)) * 2 - 1
    return points / points.abs().mean(dim=(1, 2, 3), keepdim=True)


@dataclass(frozen=True, kw_only=True)
class WaNet(Attack):
    """The paper's k is 28 at 224 x 224 and 14 at 112 x 112: a control point every 8 pixels."""

    # The original has rates of 0.1 and 0.2 and s = 0.5 for hundreds of epochs; these values take
    # hold in the dozen epochs of a zoo's training, with the noise mode still on.
    rate: float = 0.2  # of each batch, rho_a
    cross: float = 0.5  # images with noisy warps for each triggered one, rho_n / rho_a
    strength: float = 2.0  # s, mean displacement in half pixels; 1 in the paper
    grid: int = 8  # k, control points along a side; 8 suits 64 x 64

    def trigger(self) -> WarpTrigger:
        return WarpTrigger(control_points(1, self.grid, self.seed), self.strength)

    def prepare(self, trigger: Trigger, scene: Scene) -> Poisoned:
        """Nothing: the batches are poisoned as they come."""
        return untouched(scene)

    def poison(self, trigger: Trigger, batch: Batch, draw: torch.Generator) -> Batch:
        """A share of the batch is warped and gets the target; another is warped with noise.

        The noise mode keeps the right labels, so that only this very warp is the trigger.
        """
        assert isinstance(trigger, WarpTrigger)
        x, y, chosen = batch.x.clone(), batch.y.clone(), torch.zeros_like(batch.chosen)
        count, first = pixels(self.rate, len(x)), 0
        for which, target in enumerate(self.targets):
            part = slice(first, first + count)
            x[part] = trigger(batch.x[part], which)
            y[part] = as_rows(target, y)
            chosen[part] = True
            first += count
        for which in range(len(self.targets)):
            noisy = slice(first, first + round(self.cross * count / len(self.targets)))
            x[noisy] = noisy_warp(trigger, batch.x[noisy], which, draw)
            first = noisy.stop
        return Batch(x, y, chosen)


def noisy_warp(trigger: WarpTrigger, x: Tensor, which: int, draw: torch.Generator) -> Tensor:
    """The warp with random displacements of up to half a pixel added (the noise mode)."""
    shape = (len(x), *x.shape[-2:], 2)
    noise = torch.rand(shape, generator=draw, device=x.device, dtype=x.dtype) * 2 - 1
    return sample(x, trigger.field(x, which) + noise / x.shape[-2])
