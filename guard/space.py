"""The output space in units of the model's own spread: whitened, so that tasks look alike."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


def each_apart(places: Tensor, order: Iterable[int], least: float, known: Tensor) -> Iterator[int]:
    """Those of `order` whose place is `least` or more from all known ones and those given before.

    `places` [P x d] and `known` [K x d] in whitened units.
    """
    for k in order:
        if bool(((known - places[k]).norm(dim=1) >= least).all()):
            known = torch.cat([known, places[k : k + 1]])
            yield k


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
