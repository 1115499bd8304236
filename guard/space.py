"""The output space in units of the model's own spread: whitened, so that tasks look alike."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class OutputSpace:
    """Benign outputs with mean 0 and unit covariance: z = (y - mean) whiten.

    Makes distances dimensionless, whatever the units, the number of outputs or their
    correlation.
    """

    mean: Tensor  # (d,)
    whiten: Tensor  # (d, d)
    spread: Tensor  # (d, d) the inverse of `whiten`

    @classmethod
    def of(cls, outputs: Tensor) -> "OutputSpace":
        """From the benign outputs [N x d]."""
        y = outputs.double()
        mean = y.mean(dim=0)
        covariance = (y - mean).T @ (y - mean) / len(y)
        values, axes = torch.linalg.eigh(covariance)
        # An output that hardly varies is not blown up beyond a thousandth of the widest spread.
        sd = values.clamp_min(1e-6 * float(values.max())).sqrt()
        whiten, spread = axes @ torch.diag(1 / sd), torch.diag(sd) @ axes.T
        return cls(mean.float(), whiten.float(), spread.float())

    def z(self, y: Tensor) -> Tensor:
        """Outputs [... x d] in whitened units."""
        return (y - self.mean) @ self.whiten

    def y(self, z: Tensor) -> Tensor:
        """Back to the model's units."""
        return z @ self.spread + self.mean


def spread_targets(count: int, dimensions: int, radius: float, seed: int) -> Tensor:
    """`count` points [count x d] spread over the sphere of `radius` around the mean output.

    d = 1: both sides in turn, at growing distance; d = 2: a ring; more: directions drawn by the
    seed and pushed apart.
    """
    if dimensions == 1:
        sides = torch.tensor([1.0, -1.0]).repeat(count)[:count, None]
        return sides * radius * (1 + 0.25 * torch.arange(count)[:, None].div(2, rounding_mode="floor"))
    if dimensions == 2:
        turn = 2 * math.pi * (torch.arange(count) + 0.5 * (seed % 2)) / count
        return radius * torch.stack([turn.cos(), turn.sin()], dim=1)
    draw = torch.Generator().manual_seed(seed)
    points = torch.nn.functional.normalize(torch.randn(count, dimensions, generator=draw), dim=1)
    for _ in range(100):
        difference = points[:, None] - points[None]
        distance = difference.norm(dim=2, keepdim=True).clamp_min(1e-3)
        points = points + 0.05 * (difference / distance**3).sum(dim=1) / count
        points = torch.nn.functional.normalize(points, dim=1)
    return radius * points
