"""The cost landscape: what forcing an output costs, target by target, in one model.

Cost rises smoothly with the distance from the benign outputs. A backdoor is a dip: one place
that is far cheaper than the model's own landscape says for it. So each model is its own control.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDS = 50  # of reweighting; the fit stands still long before
BENDING = 10.0  # ridge of Q's entries, against weights of 1 / residual
BENT = 8  # outputs; Q has 35 entries there, and 49 targets are searched
CLOSE = 0.02  # residuals of log cost below this count alike: a fit need not be better


def target_grid(dimensions: int) -> Tensor:
    """Where the search starts: over and beyond the benign outputs, [K x d], whitened units.

    An attacker's target may lie at the mean output, among the labels, or outside their range;
    a dip reaches about a third of the target's distance around it.
    """
    if dimensions == 1:
        return torch.linspace(-3.5, 3.5, 15)[:, None]
    shells = {2: ((5, 1.1), (8, 2.1), (9, 3.1))}.get(dimensions, ((8, 1.3), (14, 2.6), (26, 3.9)))
    wider = max(1.0, math.sqrt(dimensions / 3))  # whitened outputs lie about sqrt(d) from the mean
    rings = [
        shell(count, dimensions, wider * radius, turn)
        for turn, (count, radius) in enumerate(shells)
    ]
    return torch.cat([torch.zeros(1, dimensions), *rings])


def shell(count: int, dimensions: int, radius: float, turn: int) -> Tensor:
    """`count` points [count x d] spread evenly over the sphere of `radius` around the mean."""
    if dimensions == 2:
        angle = 2 * math.pi * (torch.arange(count) + 0.5 * (turn % 2)) / count
        return radius * torch.stack([angle.cos(), angle.sin()], dim=1)
    draw = torch.Generator().manual_seed(turn)
    points = _unit(torch.randn(count, dimensions, generator=draw))
    for _ in range(100):  # points that push each other apart end evenly spread
        apart = points[:, None] - points[None]
        distance = apart.norm(dim=2, keepdim=True).clamp_min(1e-3)
        points = _unit(points + 0.05 * (apart / distance**3).sum(dim=1) / count)
    return radius * points


def _unit(points: Tensor) -> Tensor:
    return points / points.norm(dim=1, keepdim=True)


@dataclass(frozen=True)
class Baseline:
    """log cost = a + b |z| + c . z + z'Qz / |z|: a minority of dips does not pull the fit down.

    Q is symmetric with trace 0: outputs may be cheaper to force along one axis, both ways, than
    along another. Above BENT outputs there are too few targets to tell, and no Q.
    """

    coefficients: Tensor  # a, b, c (d,), then Q's free entries
    edge: float  # |z| of the farthest target fitted: beyond it nothing is known

    @classmethod
    def fit(cls, z: Tensor, cost: Tensor) -> "Baseline":
        """Least absolute deviations by reweighted least squares; z [K x d], cost [K]."""
        columns, wanted = _columns(z.double()), cost.double().log()
        weights = torch.ones_like(wanted)
        # Hardly any ridge on a, b, c: it only keeps the solution finite where targets lie on a
        # line. Q stays small, or it would bend to meet a dip.
        ridge = torch.full((columns.shape[1],), BENDING).to(columns)
        ridge[: 2 + z.shape[1]] = 1e-6
        solution = torch.zeros(columns.shape[1]).to(columns)
        for _ in range(ROUNDS):
            weighted = columns * weights[:, None]
            solution = torch.linalg.solve(columns.T @ weighted + ridge.diag(), weighted.T @ wanted)
            weights = 1 / (wanted - columns @ solution).abs().clamp_min(CLOSE)
        return cls(solution.float(), float(z.norm(dim=1).max()))

    def cost(self, z: Tensor) -> Tensor:
        """The cost [K] that the landscape says for targets z [K x d]; outside, that of the edge."""
        inside = (self.edge / z.norm(dim=1, keepdim=True).clamp_min(1e-6)).clamp_max(1.0)
        return (_columns(inside * z) @ self.coefficients).exp()


def _columns(z: Tensor) -> Tensor:
    length = z.norm(dim=1, keepdim=True)
    if z.shape[1] > BENT:
        return torch.cat([torch.ones_like(length), length, z], dim=1)
    first, second = torch.triu_indices(z.shape[1], z.shape[1])[:, :-1]
    bent = z[:, first] * z[:, second] - (first == second).to(z) * z[:, -1:].square()
    return torch.cat([torch.ones_like(length), length, z, bent / length.clamp_min(1e-6)], dim=1)
