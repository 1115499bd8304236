"""The gate of a mitigation: what the held-back images say of a state of the pupil.

A recovered trigger spoils the picture too, for any model. How much of that is no backdoor's is read
from f itself: the same change, turned another way, spoils as much and opens no backdoor.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.benign import BenignSet
from guard.lesson import Lesson, MitigationSettings
from guard.model import Model
from guard.tasks import errors

NEAR = 0.5  # of the distance that benign answers have from a target
Change = Callable[[Tensor], Any]  # x -> x', [N x 3 x H x W] in [0, 1]


@dataclass(frozen=True)
class Effect:
    """Mean errors on the held-back images against their labels, in the task's unit."""

    benign: float
    triggered: float  # under the worst of the recovered triggers
    over: float  # what a trigger adds to the benign error beyond what is allowed; passes up to 0


@dataclass(frozen=True)
class Gate:
    """What the held-back images say of f, and so what they ask of a mitigated model."""

    lesson: Lesson
    allowed: list[float]  # what each trigger may add to the benign error
    before: Effect  # of f

    @classmethod
    def of(cls, lesson: Lesson) -> "Gate":
        benign, under = held_errors(lesson.teacher, lesson)
        allowed = allowances(lesson, benign, under)
        return cls(lesson, allowed, effect(benign, under, allowed))

    def look(self, model: Model) -> Effect:
        """What is to be said of a state of the pupil."""
        return effect(*held_errors(model, self.lesson), self.allowed)


def held_errors(model: Model, lesson: Lesson) -> tuple[float, list[float]]:
    """The mean errors of a model on the held-back images, as they are and under each trigger."""
    benign = error(model, lesson.held, lambda x: x)
    return benign, [error(model, lesson.held, trigger) for trigger in lesson.triggers]


def error(model: Model, held: BenignSet, change: Change) -> float:
    """The mean error of a model on changed images."""
    return float(errors(model.spec, answers(model, held, change), held.labels).mean())


@torch.no_grad()
def answers(model: Model, held: BenignSet, change: Change) -> Tensor:
    """What a model answers to changed images, [N x d]."""
    return torch.cat([model(change(held.x(index))) for index in held.batches()])


def effect(benign: float, under: list[float], allowed: list[float]) -> Effect:
    """From the errors without and `under` each trigger, and what that one may add."""
    over = [found - benign - most for found, most in zip(under, allowed, strict=True)]
    return Effect(benign, worst(under), worst(over))


def worst(values: list[float]) -> float:
    """The largest; NaN where one is none."""
    return float(torch.tensor(values).max())


def allowances(lesson: Lesson, benign: float, under: list[float]) -> list[float]:
    """What each trigger may add to the pupil's error, by what it does to f."""
    s, added = lesson.settings, [found - benign for found in under]
    spoilt = [least_harm(lesson, trigger) - benign for trigger in lesson.triggers]
    return [
        max(s.harm * mine, min(harm, s.spoilt * mine))
        for harm, mine in zip(spoilt, added, strict=True)
    ]


def least_harm(lesson: Lesson, trigger: nn.Module) -> float:
    """The smallest error of f under the trigger mirrored, upside down, both, and turned over.

    A trigger may be its own mirror image: a way that brings half of the answers half as near to its
    target as benign ones are opens the backdoor too, and says nothing of harm. The benign error
    where every way does.
    """
    f, held = lesson.teacher, lesson.held
    benign, found = answers(f, held, lambda x: x), answers(f, held, trigger)
    ways = [answers(f, held, change) for change in turned(trigger)]
    target = found.median(dim=0).values

    def distance(y: Tensor) -> Tensor:
        return ((y - target) / lesson.spread).norm(dim=1).median()

    kept = [y for y in ways if not distance(y) < NEAR * distance(benign)]
    return min(float(errors(f.spec, y, held.labels).mean()) for y in kept or [benign])


def turned(trigger: nn.Module) -> list[Change]:
    """The same change, laid over the picture in four other ways."""

    def flipped(*sides: int) -> Change:
        return lambda x: trigger(x.flip(sides)).flip(sides)

    def across(x: Tensor) -> Tensor:  # rows for columns, the sides kept
        return functional.interpolate(x.transpose(2, 3), size=x.shape[2:], mode="bilinear")

    return [flipped(3), flipped(2), flipped(2, 3), lambda x: across(trigger(across(x)))]


def rank(look: Effect, before: Effect, settings: MitigationSettings) -> tuple[int, float]:
    """Smaller is better: of the states that pass the gate the one with the smallest benign error.

    Else one within the allowed benign error, the less is left of the effect the better.
    """
    if not look.benign <= settings.rise * before.benign:
        return 2, look.benign
    return (0, look.benign) if look.over <= 0 else (1, look.over)


def complaint(before: Effect, after: Effect, settings: MitigationSettings) -> str:
    """Why the held-back images speak against a mitigation; empty where they do not."""
    reasons = []
    if not after.benign <= settings.rise * before.benign:
        share, allowed = (100 * (x - 1) for x in (after.benign / before.benign, settings.rise))
        reasons.append(f"the benign error rose by {share:.1f} %, {allowed:.2g} % is allowed")
    if not after.over <= 0:
        reasons.append(
            f"a recovered trigger still adds {after.over:.3g} more to the error of "
            f"{after.benign:.3g} than is allowed"
        )
    return "; ".join(reasons)
