"""The lesson of a mitigation: which images f is fine-tuned on, and with which loss."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.bench import Bench
from guard.benign import BenignSet
from guard.device import search_autocast
from guard.disturbances import disturbed, each
from guard.errors import UnusableInput
from guard.model import Model

MIN_IMAGES = 40  # fewer leave too little to learn from and to judge by


@dataclass(frozen=True)
class PursuitSettings:
    """How the pupil is searched for what still leads it to the targets."""

    every: int = 600  # steps of the fine-tuning between two searches; 0: none is made
    count: int = 3  # cheapest triggers a search, each from another start
    steps: int = 100
    batch: int = 6  # images a step, for each trigger
    # A blend changes all of the picture a little, which is not the smallest change.
    faint: int = 2  # patterns a search that may be anywhere, but only
    amplitude: float = 0.15  # so strong
    faint_batch: int = 16
    learning_rate: float = 0.1  # of the pattern
    warp_rate: float = 0.03  # of the displacement nodes
    # A probe's warp is far stronger than need be: fainter ones are unlearnt in its place.
    warps: int = 8  # searches, each from hardly any displacement,
    begun: float = 0.1  # standard deviation of the displacement nodes,
    warp_steps: int = 200
    node_rate: float = 0.1  # of the displacement nodes
    loose: float = 0.05  # spread of the outputs that such a warp may leave
    patches: int = 4  # a search, about the spot of a trigger that is confined to one
    reach: float = 0.3  # how far from a target the outputs may fall, whitened
    apart: float = 0.5  # whitened units between two targets; nearer ones are one


@dataclass(frozen=True)
class MitigationSettings:
    """One setting for every data set, task and architecture."""

    # A backdoor sits in layers that have learnt to look for it. Those near the output learn anew,
    # from f's own answers on benign images, which say nothing of the trigger.
    forget: float = 0.3  # share of the layers, counted from the last
    steps: int = 1200
    batch: int = 64  # images a step
    triggered: float = 0.25  # share of them that bear a trigger
    learning_rate: float = 2e-3  # of AdamW at its highest; a cosine down to zero
    weight_decay: float = 1e-4
    features: float = 1.0  # weight of F's answers beside f's: many more figures to learn from
    mix: float = 0.5  # how much of another image is laid over each, at most
    settled: float = 0.25  # share of the steps, the last, in which batch norm's statistics stay
    held: float = 0.3  # share of D_be that only decides
    check_every: int = 300  # steps between two looks at the held-back part, for the report's curve
    contrast: float = 0.2  # of benign images, at most, each way
    brightness: float = 0.1  # added, at most, each way
    # The recovered trigger is not the attacker's: its neighbours are unlearnt with it.
    strength: tuple[float, float] = (0.5, 1.5)  # factor of x' - x
    shift: float = 1 / 16  # of the image side: how far image and trigger move, at most
    repainted: float = 0.75  # share of the images of one in a spot that get other colours there
    # Nor is it the only one alike: changes that carry no backdoor are learnt not to matter.
    disturbed: float = 0.25  # share of the images without a trigger that the pupil sees disturbed,
    pattern: float = 0.25  # by a pattern of this share of the mixture, at most,
    stripes: float = 0.18  # or by stripes of this amplitude, at most
    pursuit: PursuitSettings = field(default_factory=PursuitSettings)
    rise: float = 1.05  # accepted: benign error afterwards over before
    # A recovered trigger spoils the picture too: to the errors of benign development models it
    # adds 0.01 to 0.16 (BadNets) and 0.51 to 0.81 (WaNet) of what it adds to the backdoored one's.
    harm: float = 0.3  # accepted: share left of the error that the trigger adds,
    spoilt: float = 0.6  # or what it adds where it is turned another way, at most this share of it
    extensions: int = 2  # how often the fine-tuning goes on, at most, where no state is accepted,
    extension: float = 1 / 3  # by which share of the steps,
    extension_rate: float = 0.5  # and at which share of the learning rate
    rounds: int = 3  # fine-tune, screen again, and once more with what that screening found


@dataclass(frozen=True)
class Lesson:
    """What is unlearnt, on which images, and by which settings."""

    bench: Bench  # f as it was supplied, beside the images that are learnt from
    held: BenignSet
    triggers: Sequence[nn.Module]  # each x -> x', [N x 3 x H x W] in [0, 1]
    doubted: Sequence[nn.Module]  # unlearnt too, but no gate: a restart contradicts their search
    settings: MitigationSettings
    seed: int
    draw: torch.Generator
    spread: Tensor  # (d,) of the outputs, which the losses are measured in

    @property
    def teacher(self) -> Model:
        """f."""
        return self.bench.model

    @property
    def learn(self) -> BenignSet:
        """The images that are learnt from."""
        return self.bench.benign

    def extended(self) -> "Lesson":
        """The same lesson, for as long as a fine-tuning goes on that has not been accepted."""
        s, pursuit = self.settings, replace(self.settings.pursuit, every=0)
        steps, rate = round(s.extension * s.steps), s.extension_rate * s.learning_rate
        return replace(self, settings=replace(s, steps=steps, learning_rate=rate, pursuit=pursuit))


def make_lesson(
    model: Model,
    benign: BenignSet,
    triggers: Sequence[nn.Module],
    settings: MitigationSettings,
    seed: int,
    doubted: Sequence[nn.Module] = (),
) -> Lesson:
    """Draw by seed what is held back. Raises UnusableInput as `check_trainable`."""
    check_trainable(model, benign)
    draw = torch.Generator().manual_seed(seed)
    learn, held = (benign.part(part) for part in cut(benign, settings.held, draw))
    bench = Bench(model, learn)
    spread = spread_of(learn.labels, bench.outputs)
    return Lesson(bench, held, triggers, doubted, settings, seed, draw, spread)


def check_trainable(model: Model, benign: BenignSet) -> None:
    """Raise UnusableInput for too few images and for a network without weights."""
    if len(benign) < MIN_IMAGES:
        raise UnusableInput(
            f"{len(benign)} images are too few to fine-tune on: at least {MIN_IMAGES} are needed"
        )
    if not any(weight.is_floating_point() for weight in model.network.parameters()):
        raise UnusableInput(
            "the model has no weights that could be fine-tuned (a frozen TorchScript module?)"
        )


def spread_of(labels: Tensor, answers: Tensor) -> Tensor:
    """The standard deviation of each label, (d,); of f's answers where the labels hardly differ.

    A column that is 0 throughout, such as a roll that nobody annotated, would outweigh all others.
    """
    known, given = labels.std(dim=0), answers.float().std(dim=0)
    return torch.where(known < 0.1 * given, given, known).clamp_min(1e-9)


def cut(benign: BenignSet, share: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which images are learnt from, (L,), and about which `share` only judges, (K,).

    Whole persons are held back where they are known: what is learnt from a person's pictures serves
    the others of that person, and only one that the pupil never sees says what it is worth to a new
    driver. Where too few persons are on the pictures for that, images are held back.
    """
    count, wanted = len(benign), share * len(benign)
    persons, held = sorted(set(benign.persons)), torch.zeros(count, dtype=torch.bool)
    for which in torch.randperm(len(persons), generator=draw).tolist() if persons else ():
        theirs = torch.tensor([person == persons[which] for person in benign.persons])
        if int((held | theirs).sum()) <= wanted:
            held |= theirs
    if int(held.sum()) >= wanted / 2:
        return (~held).nonzero()[:, 0], held.nonzero()[:, 0]
    order, learnt = torch.randperm(count, generator=draw), round((1 - share) * count)
    return order[:learnt], order[learnt:]


def loss_of(pupil: Model, lesson: Lesson) -> Tensor:
    """L1 to the answers of f and F on benign images, some triggered or disturbed for the pupil.

    In standard deviations, of the labels and of the features. Labels are few and noisy; what f
    answers is known for any image, two of them mixed included.
    """
    x = mixed(drawn(lesson, some(lesson)), lesson)
    plain = len(x) - round(lesson.settings.triggered * len(x))
    with torch.no_grad():
        changed = neighbour(pick(lesson), x[plain:], lesson.settings, lesson.draw)
        seen = torch.cat([partly_disturbed(x[:plain], lesson), changed])
        wanted, wanted_h = lesson.bench.fast_pass(x)
    with search_autocast(x.device, exact=lesson.bench.exact):
        answers, h = pupil.with_features(seen)
    loss = ((answers.float() - wanted) / lesson.spread).abs().mean()
    if h is None or wanted_h is None:  # f has no split
        return loss
    off = (h.float() - wanted_h).abs().mean() / wanted_h.std(dim=0).mean().clamp_min(1e-9)
    return loss + lesson.settings.features * off


def mixed(x: Tensor, lesson: Lesson) -> Tensor:
    """Each image with another one laid over it, more or less of it."""
    share = each(x, (0.0, lesson.settings.mix), lesson.draw)
    other = x[torch.randperm(len(x), generator=lesson.draw).to(x.device)]
    return (1 - share) * x + share * other


def partly_disturbed(x: Tensor, lesson: Lesson) -> Tensor:
    """The images, a share of them disturbed."""
    s = lesson.settings
    count = round(s.disturbed * len(x))
    return torch.cat([disturbed(x[:count], s.pattern, s.stripes, lesson.draw), x[count:]])


def some(lesson: Lesson) -> Tensor:
    """Indices of a batch of the images that are learnt from, by chance."""
    return torch.randint(len(lesson.learn), (lesson.settings.batch,), generator=lesson.draw)


def drawn(lesson: Lesson, index: Tensor) -> Tensor:
    """The images of `index`, a little moved, brighter or darker."""
    s, draw, shape = lesson.settings, lesson.draw, (2, len(index), 1, 1, 1)
    gain, offset = (2 * torch.rand(shape, generator=draw) - 1).to(lesson.learn.device)
    x = moved(lesson.learn.x(index), s.shift, draw)
    return (x * (1 + s.contrast * gain) + s.brightness * offset).clamp(0, 1)


def moved(x: Tensor, share: float, draw: torch.Generator) -> Tensor:
    """x [B x 3 x H x W] moved by up to `share` of its sides; the border repeats."""
    down, right = (round(share * side) for side in x.shape[-2:])
    top = int(torch.randint(0, 2 * down + 1, (), generator=draw))
    left = int(torch.randint(0, 2 * right + 1, (), generator=draw))
    wide = functional.pad(x, (right, right, down, down), mode="replicate")
    return wide[..., top : top + x.shape[-2], left : left + x.shape[-1]]


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
    # Moving the image, not the trigger, works for any kind of trigger.
    made = trigger(x.roll([-move for move in moves], (2, 3))).roll(moves, (2, 3))
    return (x + each(x, settings.strength, draw) * (made - x)).clamp(0, 1)
