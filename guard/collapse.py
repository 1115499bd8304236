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
    # The collapse comes first and the change shrinks afterwards: begun the other way round, the
    # search settles on noise that fools the model a little and never meets the trigger.
    first_weight: float = 2.0  # of the collapse against the change, at the start
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
        """The terms over a batch of images, one value a search: the K searches share nothing."""
        x = bench.benign.x(index)
        triggered = self.triggers(x)  # (K, B, 3, H, W)
        outputs, _ = bench.fast_pass(triggered.flatten(0, 1))
        z = space.z(outputs).view(len(self.triggers), len(x), -1)
        change = (triggered - x).abs().mean(dim=(1, 2, 3, 4)) / bench.largest_image
        collapse = (z - self.centre(z)).square().mean(dim=(1, 2))
        total = 10.0 * change + self.weight.clone() * collapse
        self.follow(collapse.detach(), change.detach())
        target = space.y(z.detach().mean(dim=1))
        return {"total": total, "change": change, "collapse": collapse, "target": target}

    def centre(self, z: Tensor) -> Tensor:
        """Where the outputs z [K x B x d] should fall: the fixed targets, or their own mean."""
        own = z.mean(dim=1)
        return torch.where(self.free[:, None], own, self.targets)[:, None]

    def continued(self, chosen: Tensor, free: Tensor) -> "Collapse":
        """The searches of `chosen` [C] as a set of their own, those of `free` [C] let loose."""
        triggers = self.triggers.like(len(chosen))
        result = Collapse(triggers, self.targets[chosen], self.settings)
        state = {name: value[chosen] for name, value in self.state_dict().items()}
        result.to(chosen.device).load_state_dict(state)
        result.free.copy_(free)
        return result

    @torch.no_grad()
    def follow(self, collapse: Tensor, change: Tensor) -> None:
        """Adapt each search's weight to how well it meets the constraint."""
        s = self.settings
        self.collapse.lerp_(collapse, 1 - s.smoothing)
        self.change.lerp_(change, 1 - s.smoothing)
        up = torch.where(self.collapse > s.strict, s.weight_rate, 1 / s.weight_rate)
        self.weight.mul_(up).clamp_(1e-3, 1e4)
