"""Triggers that go on searching while the model unlearns them.

A recovered trigger is not the attacker's. Fine-tuned on it alone, a model forgets that one and
keeps the backdoor. So each step a few searches for the same target take one step against the
model as it is now, and it is trained on what they found.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.bench import Bench
from guard.benign import BenignSet
from guard.collapse import Collapse, CollapseSettings
from guard.engine import gradients_to_input_only
from guard.measure import measure
from guard.model import Model
from guard.space import OutputSpace
from guard.triggers import SharedTrigger, SharedTriggers


@dataclass(frozen=True)
class PursuitSettings:
    """How the searches go on."""

    searches: int = 4  # for each recovered trigger, from near it
    # Finer than in a screening: the attacker's patch or pattern may be sharper than what was
    # recovered, and what fools a model that knows the recovered one is.
    coarse: int = 32  # nodes of a pattern along each side
    batch: int = 8  # images a step, for each search
    # Without a limit the changes grow until no driver is left to see, and the benign error with
    # them; a true trigger costs about what the recovered one does.
    budget: float = 1.5  # the largest change, over that of the recovered trigger
    weight_rate: float = 1.05  # factor a step by which the collapse's weight falls or rises
    apart: float = 0.02  # noise that sets the searches' patterns apart at the start, before tanh
    learning_rate: float = 0.05  # of the pattern; it stays, so it must be small
    warp_rate: float = 0.01  # of the displacement nodes


class WithinBudget(Collapse):
    """Collapse as far as a budget for the change allows: the weight follows the change."""

    budget: Tensor
    weight_rate: float

    @torch.no_grad()
    def follow(self, change: Tensor) -> None:
        rate = self.weight_rate
        up = torch.where(change < self.budget, rate, 1 / rate)
        self.weight.mul_(up).clamp_(1e-3, 1e2)


class Pursuit:
    """Searches for the targets of the recovered triggers, against a model that changes."""

    def __init__(
        self,
        model: Model,
        pupil: Model,
        learn: BenignSet,
        triggers: Sequence[nn.Module],
        settings: PursuitSettings,
        seed: int,
    ) -> None:
        """`model` is f as supplied; `pupil` is the copy that is being fine-tuned."""
        supplied = Bench(model, learn)
        self.bench, self.settings = Bench(pupil, learn), settings
        self.space = OutputSpace.of(supplied.outputs)
        measured = [measure(trigger, supplied) for trigger in triggers]
        targets = torch.stack([self.space.z(m.outputs).median(dim=0).values for m in measured])
        count = settings.searches
        self.searches = WithinBudget(
            starts(triggers, learn, settings, seed),
            targets.repeat_interleave(count, dim=0),
            CollapseSettings(),
        ).to(learn.device)
        costs = torch.tensor([m.perturbation for m in measured], device=learn.device)
        self.searches.budget = settings.budget * costs.repeat_interleave(count)
        self.searches.weight_rate = settings.weight_rate
        self.optimizer = self.searches.triggers.optimizer(
            settings.learning_rate, settings.warp_rate
        )

    def step(self, index: Tensor) -> None:
        """One step of every search on the images of `index`."""
        self.optimizer.zero_grad(set_to_none=True)
        with gradients_to_input_only(self.bench.model):
            terms = self.searches.objective(self.bench, self.space, index)
            terms["total"].sum().backward()
        self.optimizer.step()

    @torch.no_grad()
    def triggered(self, x: Tensor, which: Tensor) -> Tensor:
        """x [B x 3 x H x W], each image under the trigger of the search `which` [B] says."""
        made: Tensor = self.searches.triggers(x)
        return made[which, torch.arange(len(x), device=x.device)]

    def __len__(self) -> int:
        return len(self.searches.targets)


def starts(
    triggers: Sequence[nn.Module], learn: BenignSet, settings: PursuitSettings, seed: int
) -> SharedTriggers:
    """Where the searches begin: near the recovered triggers, or anew where one is no shared one."""
    count = settings.searches
    height, width = learn.images.shape[-2:]
    made = SharedTriggers(count * len(triggers), (height, width), seed, coarse=settings.coarse)
    draw = torch.Generator().manual_seed(seed)
    for number, trigger in enumerate(triggers):
        if isinstance(trigger, SharedTrigger):
            rows = slice(number * count, (number + 1) * count)
            _set_near(made, rows, copy.deepcopy(trigger).cpu().one, settings.apart, draw)
    return made


@torch.no_grad()
def _set_near(
    made: SharedTriggers, rows: slice, one: SharedTriggers, apart: float, draw: torch.Generator
) -> None:
    noise = torch.randn(made.pattern[rows].shape, generator=draw)
    finer = functional.interpolate(one.pattern, size=made.pattern.shape[-2:], mode="bicubic")
    made.pattern[rows] = finer + apart * noise
    made.nodes[rows] = one.nodes
