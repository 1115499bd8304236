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

Change = Callable[[Tensor], Any]  # x -> x', [N x 3 x H x W] in [0, 1]


@dataclass(frozen=True)
class Effect:
    """Mean errors on the held-back images against their labels, in the task's unit."""

    benign: float
    triggered: float  # under the worst of the recovered triggers
    over: float  # what a trigger adds to the benign error beyond what is allowed; passes up to 0


@torch.no_grad()
def error(model: Model, held: BenignSet, change: Change) -> float:
    """The mean error of a model on changed images."""
    outputs = torch.cat([model(change(held.x(index))) for index in held.batches()])
    return float(errors(model.spec, outputs, held.labels).mean())


def effect(model: Model, lesson: Lesson, allowed: list[float]) -> Effect:
    """The errors of a model, `allowed` being what each trigger may add."""
    benign = error(model, lesson.held, lambda x: x)
    under = [error(model, lesson.held, trigger) for trigger in lesson.triggers]
    over = [found - benign - most for found, most in zip(under, allowed, strict=True)]
    return Effect(benign, worst(under), worst(over))


def worst(values: list[float]) -> float:
    """The largest; NaN where one is none."""
    return float(torch.tensor(values).max())


def allowances(lesson: Lesson) -> list[float]:
    """What each trigger may add to the pupil's error, by what it does to f."""
    f, held, s = lesson.teacher, lesson.held, lesson.settings
    benign = error(f, held, lambda x: x)
    added = [error(f, held, trigger) - benign for trigger in lesson.triggers]
    spoilt = [least_harm(f, held, trigger) - benign for trigger in lesson.triggers]
    return [
        max(s.harm * worst(added), min(harm, s.spoilt * mine))
        for harm, mine in zip(spoilt, added, strict=True)
    ]


def least_harm(f: Model, held: BenignSet, trigger: nn.Module) -> float:
    """The smallest error of f under the trigger mirrored, upside down, both, and turned over."""
    return min(error(f, held, change) for change in turned(trigger))


def turned(trigger: nn.Module) -> list[Change]:
    """The same change, laid over the picture in four other ways."""

    def flipped(*sides: int) -> Change:
        return lambda x: trigger(x.flip(sides)).flip(sides)

    def across(x: Tensor) -> Tensor:  # rows for columns, the sides kept
        return functional.interpolate(x.transpose(2, 3), size=x.shape[2:], mode="bilinear")

    return [flipped(3), flipped(2), flipped(2, 3), lambda x: across(trigger(across(x)))]


def rank(look: Effect, before: Effect, settings: MitigationSettings) -> tuple[int, float]:
    """Smaller is better: of the states that pass the gate the one with the smallest benign error.

    Else one within the allowed benign error, the less is left of the effect the better. (A state
    that passes just so, early on, with less of an effect, does worse on persons it never saw.)
    """
    if not look.benign <= settings.rise * before.benign:
        return 2, look.benign
    return (0, look.benign) if look.over <= 0 else (1, look.over)


def complaint(before: Effect, after: Effect, settings: MitigationSettings) -> str:
    """Why the held-back images speak against a mitigation; empty where they do not."""
    reasons = []
    if not after.benign <= settings.rise * before.benign:
        share = 100 * (after.benign / before.benign - 1)
        reasons.append(f"the benign error rose by {share:.0f} %")
    if not after.over <= 0:
        reasons.append(
            f"a recovered trigger still adds {after.over:.3g} more to the error of "
            f"{after.benign:.3g} than is allowed"
        )
    return "; ".join(reasons)
