"""The calibrated objective: cheapest change under which all outputs fall onto one vector."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guard.bench import Bench
from guard.landscape import Baseline
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
    """K searches side by side: under each one's trigger all outputs fall onto one vector.

    Which vector is free within `reach` of the search's target. A dip can be so narrow that a
    target beside it shows nothing of it: within reach of one, the search slides into it.
    (The variance of equation 5, in whitened units, so that no weight depends on the task.)
    """

    targets: Tensor
    places: Tensor
    weight: Tensor
    collapse: Tensor
    change: Tensor

    def __init__(
        self,
        triggers: SharedTriggers,
        targets: Tensor,
        settings: CollapseSettings,
        reach: float = 0.0,
        landscape: Baseline | None = None,
    ) -> None:
        """`targets` [K x d] and `reach` in whitened units.

        With a `landscape` a change counts by what is usual where the outputs fall: else every
        search would drift to the cheap outputs near the mean, past the dips.
        """
        super().__init__()
        count = len(targets)
        self.triggers, self.settings = triggers, settings
        self.reach, self.landscape = reach, landscape
        self.register_buffer("targets", targets.clone())
        self.register_buffer("places", targets.clone())  # where the outputs fall, smoothed
        self.register_buffer("weight", torch.full((count,), settings.first_weight))
        self.register_buffer("collapse", torch.ones(count))
        self.register_buffer("change", torch.ones(count))

    def objective(self, bench: Bench, space: OutputSpace, index: Tensor) -> dict[str, Tensor]:
        """The terms over a batch of images, one value a search: the K searches share nothing."""
        x = bench.benign.x(index)
        triggered = self.triggers(x)  # (K, B, 3, H, W)
        outputs, _ = bench.fast_pass(triggered.flatten(0, 1))
        z = space.z(outputs).view(len(self.triggers), len(x), -1)
        place = z.mean(dim=1)
        change = mean_size(triggered - x) / bench.largest_image
        collapse = spread(z) + self.off(place)
        total = 10.0 * change / self.usual(place) + self.weight.clone() * collapse
        seen = ((self.collapse, collapse), (self.change, change), (self.places, place))
        for smooth, now in seen:
            smooth.lerp_(now.detach(), 1 - self.settings.smoothing)
        self.follow()
        target = space.y(place.detach())
        return {"total": total, "change": change, "collapse": collapse, "target": target}

    def off(self, place: Tensor) -> Tensor:
        """How far outside the reach of the targets the outputs fall, squared, an output; (K,)."""
        squared = (place - self.targets).square().sum(dim=1)
        distance = (squared + 1e-9).sqrt()  # at 0 a root has no slope
        return (distance - self.reach).clamp_min(0).square() / place.shape[1]

    def usual(self, place: Tensor) -> Tensor:
        """What the landscape says for a place over what it says for the target, (K,)."""
        if self.landscape is None:
            return torch.ones(len(place), device=place.device)
        return self.landscape.cost(place) / self.landscape.cost(self.targets)

    def continued(self, chosen: Tensor, reach: float, landscape: Baseline) -> "Collapse":
        """The searches of `chosen` [C] as a set of their own, from where their outputs fall."""
        triggers = self.triggers.like(len(chosen))
        state = {name: value[chosen] for name, value in self.state_dict().items()}
        state["targets"] = state["places"].clone()
        result = Collapse(triggers, state["targets"], self.settings, reach, landscape)
        result.to(chosen.device).load_state_dict(state)
        return result

    @torch.no_grad()
    def follow(self) -> None:
        """Adapt each search's weight to how well it meets the constraint."""
        s = self.settings
        up = torch.where(self.collapse > s.strict, s.weight_rate, 1 / s.weight_rate)
        self.weight.mul_(up).clamp_(1e-3, 1e4)


def mean_size(changes: Tensor) -> Tensor:
    """The mean |change| of each search's images, [K x B x 3 x H x W] -> (K,)."""
    # In one pass, where abs and mean take two, and two more in the backward one.
    total: Tensor = torch.linalg.vector_norm(changes, 1, dim=(1, 2, 3, 4))
    return total / changes[0].numel()


def spread(z: Tensor) -> Tensor:
    """The variance of outputs z [K x B x d] over the images, a mean over the outputs; (K,)."""
    # A few images lie closer to their own mean than to that of all, by B / (B - 1).
    return z.var(dim=1, correction=min(1, z.shape[1] - 1)).mean(dim=1)
