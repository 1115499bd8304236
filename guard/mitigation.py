"""Mitigation (section 3.4): fine-tune the backdoor away without losing what f can do.

f is trained on D_be and on triggered images with their right answers. A part of D_be is held
back: it decides when to stop and whether the result is accepted.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from guard.benign import BenignSet
from guard.engine import Progress, Silent
from guard.finding import Finding
from guard.gate import Effect, Gate, complaint, rank
from guard.lesson import Lesson, MitigationSettings, loss_of, make_lesson
from guard.model import Model, copied
from guard.pursuit import Pursuit, fainter
from guard.spots import Repainted, Spot

UNKNOWN = Effect(math.inf, math.inf, math.inf)  # of a copy that has forgotten: any state is better
SHOWN = 20  # steps between two updates of the progress display


@dataclass
class Mitigated:
    """A fine-tuned model and what the held-back images say of it."""

    model: Model
    triggers: list[nn.Module]  # what was unlearnt
    before: Effect
    after: Effect
    accepted: bool
    reason: str
    curve: list[tuple[int, Effect]]  # by step
    held: int  # images that were held back
    persons: int  # who are on these and on no others; 0: persons are not told apart
    rescreens: list[Finding] = field(default_factory=list)  # one a round


def mitigate_until_clean(
    model: Model,
    benign: BenignSet,
    triggers: Sequence[nn.Module],
    rescreen: Callable[[Model, int], Finding],
    settings: MitigationSettings,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Mitigated:
    """Mitigate, screen afresh (`rescreen` takes the model and the round), and go on if need be.

    What alarms the fresh screening, even if its restart disagrees, is unlearnt together with the
    earlier triggers in the next round. Accepted is only a model that one calls clean.
    """
    known, attempts = list(triggers), list[Mitigated]()
    doubted: list[nn.Module] = []
    for number in range(settings.rounds):
        result = mitigate(
            model, benign, known, settings, doubted=doubted, seed=seed, progress=progress
        )
        found = rescreen(result.model, number)
        result.rescreens = [*(attempts[-1].rescreens if attempts else ()), found]
        attempts.append(result)
        if found.verdict == "backdoored":
            known += found.triggers
        elif found.contradicted:
            doubted += found.triggers
        else:
            break
    return result if found.verdict == "clean" else refused(attempts, settings)


def refused(attempts: Sequence[Mitigated], settings: MitigationSettings) -> Mitigated:
    """The best of the attempts, none of which a fresh screening calls clean."""

    def worth(one: Mitigated) -> tuple[bool, tuple[int, float]]:
        return one.rescreens[-1].verdict == "backdoored", rank(one.after, one.before, settings)

    best = min(attempts, key=worth)
    why = f"a fresh screening of the mitigated model says {best.rescreens[-1].verdict}"
    best.reason = why if best.accepted else f"{best.reason}; {why}"
    best.accepted = False
    return best


def mitigate(
    model: Model,
    benign: BenignSet,
    triggers: Sequence[nn.Module],
    settings: MitigationSettings,
    *,
    doubted: Sequence[nn.Module] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> Mitigated:
    """Unlearn `triggers`, by which the result is judged, and `doubted`; `model` stays as it is.

    The held-back images judge the state that a fine-tuning ends in. Where the gate refuses it, the
    fine-tuning goes on from the best one so far.
    """
    lesson = fainter(make_lesson(model, benign, triggers, settings, seed, doubted))
    gate = Gate.of(lesson)
    pupil = forgetful_copy(model, settings.forget, seed)
    curve, best = [(0, gate.before)], UNKNOWN
    for course in (lesson, *[lesson.extended()] * settings.extensions):
        best = train(pupil, course, gate, curve, best, progress or Silent())
        reason = complaint(gate.before, best, settings)
        if not reason:
            break
    learns(pupil, False)
    return Mitigated(
        pupil,
        [*lesson.triggers, *doubted],
        gate.before,
        best,
        not reason,
        reason or "accepted",
        curve,
        len(lesson.held),
        len(set(lesson.held.persons) - set(lesson.learn.persons)),
    )


def train(
    pupil: Model,
    lesson: Lesson,
    gate: Gate,
    curve: list[tuple[int, Effect]],
    best: Effect,
    progress: Progress,
) -> Effect:
    """Fine-tune; the looks join `curve`. Gives the last one, or `best` where that was better.

    `best` is what was seen of the state that it starts from, which then comes back. A look on the
    way is no candidate: the learning rate has not run out, and the luckiest of a dozen looks at few
    images flatters.
    """
    began, before, settings = curve[-1][0], gate.before, lesson.settings
    weights = copy.deepcopy(pupil.network.state_dict())
    for step in fine_tune(pupil, lesson, progress):
        curve.append((began + step, gate.look(pupil)))
    last = curve[-1][1]
    if rank(last, before, settings) < rank(best, before, settings):
        return last
    pupil.network.load_state_dict(weights)
    return best


def forgetful_copy(model: Model, share: float, seed: int) -> Model:
    """A copy whose weights are trained; the last `share` of its layers have forgotten theirs.

    The entries of their weights are shuffled: of the same size as before, with nothing learnt.
    That takes no knowledge of the architecture, so an ONNX graph's layers can forget too.
    """
    pupil = copied(model).eval()
    learns(pupil, True)
    weights = [p for p in pupil.network.parameters() if p.ndim > 1]
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in weights[len(weights) - round(share * len(weights)) :]:
            order = torch.randperm(weight.numel(), generator=draw).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
    return pupil


def learns(pupil: Model, on: bool) -> None:
    """Train its weights or not, one by one: TorchScript has no word for all of them."""
    for weight in pupil.network.parameters():
        weight.requires_grad_(on)


def learn_statistics(pupil: Model, on: bool) -> None:
    """Batch norm in its training mode or not, the rest as it is.

    Layers that learn anew need new statistics. They are those of the lesson's batches, triggered
    images included; dropout stays off.
    """
    for module in pupil.network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(on)


def repainted(lesson: Lesson) -> list[nn.Module]:
    """What is unlearnt: the triggers, those in a spot with patches of other colours there."""
    s, given = lesson.settings, []
    for trigger in (*lesson.triggers, *lesson.doubted):
        spot = Spot.of(trigger, lesson.learn)
        painted = Repainted(trigger, spot, s.repainted, s.shift, lesson.draw) if spot else trigger
        given.append(painted)
    return given


def fine_tune(pupil: Model, lesson: Lesson, progress: Progress) -> Iterator[int]:
    """Train step by step; gives the number of steps done whenever a look is due."""
    s, given = lesson.settings, repainted(lesson)
    pursuit = Pursuit.of(lesson) if s.pursuit.every else None
    lesson = replace(lesson, triggers=given)
    optimizer = torch.optim.AdamW(
        pupil.network.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay, fused=True
    )
    progress.start("mitigate", s.steps, 0)
    for step in range(s.steps):
        if pursuit and step and step % s.pursuit.every == 0:
            learn_statistics(pupil, False)
            found = pursuit.search(pupil, lesson.seed + step)
            lesson = replace(lesson, triggers=[*given, *found])
        falling = 0.5 * (1 + math.cos(math.pi * step / s.steps))
        for group in optimizer.param_groups:
            group["lr"] = s.learning_rate * min(1.0, (step + 1) / 30) * falling
        learn_statistics(pupil, step < (1 - s.settled) * s.steps)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(pupil, lesson)
        loss.backward()
        optimizer.step()
        if step % SHOWN == 0 or step + 1 == s.steps:
            progress.update(step + 1, {"loss": float(loss.detach())})
        if (step + 1) % s.check_every == 0 or step + 1 == s.steps:
            learn_statistics(pupil, False)
            yield step + 1
    progress.stop()
