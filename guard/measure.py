"""Figures of a trigger over the whole benign set, in float32: these decide, not a batch's."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guard.bench import Bench
from guard.terms import B, relative_change, rnv, variance

# Development: 0.02 to 0.9 degrees off the true target, where the mean answer under the trigger as
# found is 0.1 to 3.0 degrees off (docs/method.md).
AMPLIFIED = 2.0  # times the change of a recovered trigger


@dataclass
class Measured:
    """What a trigger does to the images of a bench."""

    perturbation: float  # mean |x' - x| over the largest mean |x|
    outputs: Tensor  # (N, d) f(x')
    features: Tensor | None  # (N, m) F(x')

    def variance_ratio(self, bench: Bench) -> float:
        """Mean over the outputs of var f_j(x') / var f_j(x)."""
        return float((variance(self.outputs) / variance(bench.outputs)).mean())

    def angles(self, bench: Bench) -> Tensor | None:
        """B(F(x'_i), w_j) in radians, [N x d]."""
        if self.features is None or bench.weights is None:
            return None
        return B(self.features, bench.weights)

    def rav(self, bench: Bench) -> float | None:
        """Equation 3, None without a split."""
        angles = self.angles(bench)
        if angles is None or bench.angle_variance is None:
            return None
        return float((variance(angles) / bench.angle_variance).mean())

    def rnv(self, bench: Bench) -> float | None:
        """Equation 3, None without a split."""
        if self.features is None or bench.features is None:
            return None
        return float(rnv(self.features, bench.features))


@torch.no_grad()
def measure(trigger: nn.Module, bench: Bench) -> Measured:
    """Apply a trigger x -> x' to every benign image."""
    trigger.eval()
    changes, outputs, features = [], [], []
    for index in bench.benign.batches():
        x = bench.benign.x(index)
        triggered = trigger(x)
        y, h = bench.model.with_features(triggered)
        changes.append(relative_change(triggered, x, bench.largest_image) * len(x))
        outputs.append(y)
        if h is not None:
            features.append(h)
    change = float(torch.stack(changes).sum() / len(bench.benign))
    return Measured(change, torch.cat(outputs), torch.cat(features) if features else None)


@torch.no_grad()
def target_of(trigger: nn.Module, bench: Bench, strength: float = AMPLIFIED) -> list[float]:
    """The target vector that a recovered trigger leads to, [d] in the model's units.

    Under the smallest change that gathers them, outputs fall a little short of a backdoor's
    target; at `strength` times that change they are on it. The median, for some images resist.
    """
    trigger.eval()
    outputs = []
    for index in bench.benign.batches():
        x = bench.benign.x(index)
        outputs.append(bench.model((x + strength * (trigger(x) - x)).clamp(0, 1)))
    return [float(value) for value in torch.cat(outputs).median(dim=0).values]
