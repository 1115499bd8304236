"""The calibrated objective: cheapest change under which all outputs fall onto one vector."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guard.bench import Bench
from guard.space import OutputSpace
from guard.triggers import SharedTriggers


@dataclass(frozen=True)
class CollapseSettings:
    """A strict collapse: the weight of the constraint follows how well it is met."""

    strict: float = 0.01  # wanted mean squared distance to the target, benign spread = 1
    first_weight: float = 0.3  # of the collapse against the change, at the start
    weight_rate: float = 1.03  # factor a step by which the weight rises or falls
    smoothing: float = 0.9  # of the collapse that the weight follows, over steps


class Collapse(nn.Module):
    """K searches side by side: each has a trigger and a target, fixed or free.

    A fixed target pulls the outputs to itself; a free one is wherever their mean is (the
    variance of equation 5, in whitened units, so that no weight depends on the task).
    """

    targets: Tensor
    free: Tensor
    weight: Tensor
    collapse: Tensor
    change: Tensor

    def __init__(
        self, triggers: SharedTriggers, targets: Tensor, settings: CollapseSettings
    ) -> None:
        """`targets` [K x d] in whitened units."""
        super().__init__()
        count = len(targets)
        self.triggers, self.settings = triggers, settings
        self.register_buffer("targets", targets.clone())
        self.register_buffer("free", torch.zeros(count, dtype=torch.bool))
        self.register_buffer("weight", torch.full((count,), settings.first_weight))
        self.register_buffer("collapse", torch.ones(count))
        self.register_buffer("change", torch.ones(count))

    def objective(self, bench: Bench, space: OutputSpace, index: Tensor) -> dict[str, Tensor]:
        """The terms over a batch of images; "total" adds up the K searches, which share nothing."""
        x = bench.benign.x(index)
        triggered = self.triggers(x)  # (K, B, 3, H, W)
        flat = triggered.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        z = space.z(bench.model(flat).float()).view(len(self.triggers), len(x), -1)
        change = (triggered - x).abs().mean(dim=(1, 2, 3, 4)) / bench.largest_image
        collapse = (z - self.centre(z)).square().mean(dim=(1, 2))
        total = (10.0 * change + self.weight.clone() * collapse).sum()
        self._follow(collapse.detach(), change.detach())
        return {"total": total, "change": change.mean(), "collapse": collapse.mean()}

    def centre(self, z: Tensor) -> Tensor:
        """Where the outputs z [K x B x d] should fall: the fixed targets, or their own mean."""
        own = z.mean(dim=1)
        return torch.where(self.free[:, None], own, self.targets)[:, None]

    @torch.no_grad()
    def _follow(self, collapse: Tensor, change: Tensor) -> None:
        s = self.settings
        self.collapse.lerp_(collapse, 1 - s.smoothing)
        self.change.lerp_(change, 1 - s.smoothing)
        up = torch.where(self.collapse > s.strict, s.weight_rate, 1 / s.weight_rate)
        self.weight.mul_(up).clamp_(1e-3, 1e4)
