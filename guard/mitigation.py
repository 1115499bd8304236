"""Mitigation (section 3.4): fine-tune the backdoor away without losing what f can do.

f is trained on D_be and on triggered images with their right labels. A part of D_be is held
back: it decides when to stop and whether the result is accepted.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.benign import BenignSet
from guard.engine import Progress, Silent
from guard.errors import UnusableInput
from guard.finding import Finding
from guard.model import Model
from guard.pursuit import Pursuit, PursuitSettings
from guard.tasks import errors

MIN_IMAGES = 40  # fewer leave too little to learn from and to judge by


@dataclass(frozen=True)
class MitigationSettings:
    """One setting for every data set, task and architecture."""

    steps: int = 300
    batch: int = 32  # benign images a step; each comes once more with a trigger
    learning_rate: float = 2e-4  # of Adam; it falls to zero
    held: float = 0.3  # share of D_be that only decides
    check_every: int = 50  # steps between two looks at the held-back part
    # Labels are few and noisy; what f itself answers is known for any image, shifted or darkened.
    label: float = 0.3  # weight of the labels beside f's own benign outputs
    contrast: float = 0.2  # of benign images, at most, each way
    brightness: float = 0.1  # added, at most, each way
    # The recovered trigger is not the attacker's: its neighbours are unlearnt with it.
    strength: tuple[float, float] = (0.5, 1.5)  # factor of x' - x
    shift: float = 1 / 16  # of the image side: how far image and trigger move, at most
    rise: float = 1.05  # accepted: benign error afterwards over before
    harm: float = 0.15  # accepted: share left of the error that the trigger adds
    pursuit: PursuitSettings | None = field(default_factory=PursuitSettings)  # None: G stays
    rounds: int = 3  # fine-tune, screen again, and once more with what that screening found


@dataclass(frozen=True)
class Effect:
    """Mean errors on the held-back images against their labels, in the task's unit."""

    benign: float
    triggered: float  # under the worst of the recovered triggers


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
    rescreens: list[Finding] = field(default_factory=list)  # one a round


@dataclass(frozen=True)
class Lesson:
    """What is unlearnt, on which images, and by which settings."""

    teacher: Model  # f as it was supplied
    learn: BenignSet
    held: BenignSet
    triggers: Sequence[nn.Module]  # each x -> x', [N x 3 x H x W] in [0, 1]
    settings: MitigationSettings
    seed: int
    draw: torch.Generator


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

    A trigger that the fresh screening finds is unlearnt together with the earlier ones in the
    next round. Accepted is only a model that a fresh screening calls clean.
    """
    known, found = list(triggers), []
    for number in range(settings.rounds):
        result = mitigate(model, benign, known, settings, seed=seed, progress=progress)
        found.append(rescreen(result.model, number))
        result.rescreens = list(found)
        if found[-1].verdict != "backdoored":
            break
        known.append(found[-1].trigger)
    if found[-1].verdict != "clean":
        complaint = f"a fresh screening of the mitigated model says {found[-1].verdict}"
        reason = complaint if result.accepted else f"{result.reason}; {complaint}"
        result.accepted, result.reason = False, reason
    return result


def mitigate(
    model: Model,
    benign: BenignSet,
    triggers: Sequence[nn.Module],
    settings: MitigationSettings,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Mitigated:
    """Unlearn `triggers`; `model` stays as it is.

    Of the states looked at on held-back images, the one with the smallest error under the
    triggers wins among those whose benign error has not risen too far.
    """
    lesson = make_lesson(model, benign, triggers, settings, seed)
    pupil = trainable_copy(model)
    before = effect(model, lesson)
    curve = [(0, before)]
    best, weights = None, pupil.network.state_dict()
    for step in fine_tune(pupil, lesson, progress or Silent()):
        look = effect(pupil, lesson)
        curve.append((step, look))
        if best is None or rank(look, before, settings) < rank(best, before, settings):
            best, weights = look, copy.deepcopy(pupil.network.state_dict())
    pupil.network.load_state_dict(weights)
    pupil.requires_grad_(False)
    after = best or before
    reason = complaint(before, after, settings)
    return Mitigated(pupil, list(triggers), before, after, not reason, reason or "accepted", curve)


def make_lesson(
    model: Model,
    benign: BenignSet,
    triggers: Sequence[nn.Module],
    settings: MitigationSettings,
    seed: int,
) -> Lesson:
    """Draw by seed which images are held back. Raises UnusableInput for too few images."""
    if len(benign) < MIN_IMAGES:
        raise UnusableInput(
            f"{len(benign)} images are too few to fine-tune on: at least {MIN_IMAGES} are needed"
        )
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(benign), generator=draw)
    cut = round((1 - settings.held) * len(benign))
    learn, held = benign.part(order[:cut]), benign.part(order[cut:])
    return Lesson(model, learn, held, triggers, settings, seed, draw)


def trainable_copy(model: Model) -> Model:
    """A copy whose weights are trained, batch norm in its evaluation mode.

    Its running statistics stay: those of batches that mix triggered and benign images would fit
    neither. Its scale and shift are trained like other weights.
    """
    pupil = copy.deepcopy(model).eval()
    for parameter in pupil.network.parameters():
        parameter.requires_grad_(True)
    return pupil


def fine_tune(pupil: Model, lesson: Lesson, progress: Progress) -> Iterator[int]:
    """Train step by step; gives the number of steps done whenever a look is due.

    In float32: bf16 gradients of weights are too coarse for the last few tenths of a degree.
    """
    s = lesson.settings
    optimizer = torch.optim.Adam(pupil.network.parameters(), lr=s.learning_rate)
    pursuit = None
    if s.pursuit is not None:
        given = (lesson.learn, lesson.triggers, s.pursuit, lesson.seed)
        pursuit = Pursuit(lesson.teacher, pupil, *given)
    progress.start("mitigate", s.steps, 0)
    for step in range(s.steps):
        for group in optimizer.param_groups:
            group["lr"] = s.learning_rate * min(1.0, (step + 1) / 20) * (1 - step / s.steps)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(pupil, lesson, pursuit)
        loss.backward()
        optimizer.step()
        if (step + 1) % s.check_every == 0 or step + 1 == s.steps:
            progress.update(step + 1, {"loss": float(loss.detach())})
            yield step + 1
    progress.stop()


def loss_of(pupil: Model, lesson: Lesson, pursuit: Pursuit | None) -> Tensor:
    """L1 on benign and on triggered images, in benign standard deviations of each output."""
    s, learn = lesson.settings, lesson.learn
    x, y = draw_batch(lesson, s.batch)
    with torch.no_grad():
        wanted = lesson.teacher(x)
    answers = pupil(torch.cat([x, triggered_batch(x, lesson, pursuit)]))
    spread = learn.labels.std(dim=0).clamp_min(1e-9)
    to_labels = (answers - torch.cat([y, y])) / spread
    to_teacher = (answers - torch.cat([wanted, wanted])) / spread
    return s.label * to_labels.abs().mean() + to_teacher.abs().mean()


def draw_batch(lesson: Lesson, count: int) -> tuple[Tensor, Tensor]:
    """Images and labels by chance, the images a little moved, brighter or darker."""
    s, draw = lesson.settings, lesson.draw
    index = torch.randint(len(lesson.learn), (count,), generator=draw)
    gain, offset = (2 * torch.rand(2, count, 1, 1, 1, generator=draw) - 1).to(lesson.learn.device)
    x = moved(lesson.learn.x(index), s.shift, draw)
    x = (x * (1 + s.contrast * gain) + s.brightness * offset).clamp(0, 1)
    return x, lesson.learn.labels[index]


def moved(x: Tensor, share: float, draw: torch.Generator) -> Tensor:
    """x [B x 3 x H x W] moved by up to `share` of its sides; the border repeats."""
    down, right = (round(share * side) for side in x.shape[-2:])
    top = int(torch.randint(0, 2 * down + 1, (), generator=draw))
    left = int(torch.randint(0, 2 * right + 1, (), generator=draw))
    wide = functional.pad(x, (right, right, down, down), mode="replicate")
    return wide[..., top : top + x.shape[-2], left : left + x.shape[-1]]


@torch.no_grad()
def triggered_batch(x: Tensor, lesson: Lesson, pursuit: Pursuit | None) -> Tensor:
    """x with triggers: half of the images the recovered ones, half those of the pursuit."""
    if pursuit is None:
        return neighbour(pick(lesson), x, lesson.settings, lesson.draw)
    index = torch.randint(len(lesson.learn), (pursuit.settings.batch,), generator=lesson.draw)
    with torch.enable_grad():
        pursuit.step(index)
    half = len(x) // 2
    which = torch.randint(len(pursuit), (half,), generator=lesson.draw).to(x.device)
    found = pursuit.triggered(x[:half], which)
    return torch.cat([found, neighbour(pick(lesson), x[half:], lesson.settings, lesson.draw)])


def pick(lesson: Lesson) -> nn.Module:
    """One of the triggers by chance."""
    which = int(torch.randint(len(lesson.triggers), (), generator=lesson.draw))
    return lesson.triggers[which]


def neighbour(
    trigger: nn.Module, x: Tensor, settings: MitigationSettings, draw: torch.Generator
) -> Tensor:
    """Images under a trigger like `trigger`: moved a little, weaker or stronger for each image."""
    height, width = x.shape[-2:]
    reach = [round(settings.shift * height), round(settings.shift * width)]
    moves = [int(torch.randint(-r, r + 1, (), generator=draw)) for r in reach]
    back = [-move for move in moves]
    # Moving the image, not the trigger, works for any kind of trigger.
    made = trigger(x.roll(back, (2, 3))).roll(moves, (2, 3))
    low, high = settings.strength
    factor = low + (high - low) * torch.rand(len(x), 1, 1, 1, generator=draw).to(x.device)
    return (x + factor * (made - x)).clamp(0, 1)


@torch.no_grad()
def effect(model: Model, lesson: Lesson) -> Effect:
    """The errors of a model on the held-back images."""

    def error(change: Callable[[Tensor], Any]) -> float:
        parts = [model(change(lesson.held.x(index))) for index in lesson.held.batches()]
        return float(errors(model.spec, torch.cat(parts), lesson.held.labels).mean())

    return Effect(error(lambda x: x), max(error(trigger) for trigger in lesson.triggers))


def rank(look: Effect, before: Effect, settings: MitigationSettings) -> tuple[bool, float]:
    """Smaller is better: first within the allowed benign error, then gone under the triggers."""
    spoilt = not look.benign <= settings.rise * before.benign
    return spoilt, look.benign if spoilt else look.triggered


def complaint(before: Effect, after: Effect, settings: MitigationSettings) -> str:
    """Why the held-back images speak against a mitigation; empty where they do not."""
    reasons = []
    if not after.benign <= settings.rise * before.benign:
        share = 100 * (after.benign / before.benign - 1)
        reasons.append(f"the benign error rose by {share:.0f} %")
    left = after.triggered - after.benign
    if not left <= settings.harm * (before.triggered - before.benign):
        reasons.append(
            f"the recovered trigger still adds {left:.3g} to the error of {after.benign:.3g}"
        )
    return "; ".join(reasons)
