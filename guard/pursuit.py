"""What leads a model to the targets by other changes than the recovered ones: more to unlearn.

A recovered trigger is the smallest change that does it; the attacker's is a larger and another
one. What the pupil has kept of that one shows in what is cheapest now, and in what works best of
all faint changes (a blend is no small change, but a faint one). So these are unlearnt as well. A
warp that was found as a probe is the other way round far stronger than need be.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from guard.bench import Bench
from guard.collapse import Collapse, CollapseSettings
from guard.engine import Engine, Stage, gradients_to_input_only, settle
from guard.lesson import Lesson
from guard.measure import target_of
from guard.model import Model
from guard.space import OutputSpace
from guard.spots import Paint, Spot
from guard.triggers import AMPLITUDE, SharedTrigger, SharedTriggers

# So much more of the collapse, all along, that the size of the change does not count.
ALONE = CollapseSettings(first_weight=1e3, weight_rate=1.0)


@dataclass(frozen=True)
class Pursuit:
    """Searches for shared triggers that lead a pupil's outputs to where the teacher's fall."""

    lesson: Lesson
    space: OutputSpace  # of the teacher's outputs
    targets: Tensor  # (T, d) whitened
    spots: list[Spot | None]  # of the trigger that led to each

    @classmethod
    def of(cls, lesson: Lesson) -> "Pursuit":
        """With the targets of the lesson's triggers, those close together as one."""
        bench = lesson.bench
        space = OutputSpace.of(bench.outputs)
        found: list[Tensor] = []
        spots: list[Spot | None] = []
        for trigger in lesson.triggers:
            z = space.z(torch.tensor(target_of(trigger, bench, 1.0)).to(space.mean))
            if all(float((z - other).norm()) >= lesson.settings.pursuit.apart for other in found):
                found.append(z)
                spots.append(Spot.of(trigger, lesson.learn))
        return cls(lesson, space, torch.stack(found), spots)

    def search(self, pupil: Model, seed: int) -> list[nn.Module]:
        """The cheapest triggers the pupil has, and faint ones; each target at least one of both."""
        s, bench = self.lesson.settings.pursuit, Bench(pupil, self.lesson.learn)
        cheapest = self.begun(s.count, AMPLITUDE, CollapseSettings(), bench, seed)
        found = self.run(cheapest, (s.learning_rate, s.warp_rate), s.batch, bench, seed)
        if s.faint:
            faint = self.begun(s.faint, s.amplitude, ALONE, bench, seed)
            # Without a warp, which has no such limit.
            found += self.run(faint, (s.learning_rate, 0.0), s.faint_batch, bench, seed)
        return found + self.patches(bench, seed)

    def patches(self, bench: Bench, seed: int) -> list[nn.Module]:
        """Patches of the colours that lead to a target, about the spot of its trigger."""
        s, size = self.lesson.settings, bench.model.spec.input.size
        draw = torch.Generator().manual_seed(seed)
        targets = zip(self.targets, self.spots, strict=True)
        asked = [(z, spot) for z, spot in targets if spot for _ in range(s.pursuit.patches)]
        if not asked:
            return []
        spots = [spot.near(size, s.shift, draw) for _, spot in asked]
        paints = nn.ModuleList(Paint(spot, draw) for spot in spots).to(bench.device)
        wanted = torch.stack([z for z, _ in asked])[:, None]

        def objective(index: Tensor, progress: float) -> dict[str, Tensor]:
            x = bench.benign.x(index)
            outputs, _ = bench.fast_pass(torch.cat([paint(x) for paint in paints]))
            z = self.space.z(outputs).view(len(paints), len(x), -1)
            return {"total": (z - wanted).square().mean(dim=(1, 2))}

        optimizer = torch.optim.Adam(paints.parameters(), lr=s.pursuit.learning_rate)
        steps, batch, count = s.pursuit.steps, s.pursuit.batch, len(bench.benign)
        stage = Stage("patches", paints, optimizer, objective, count, steps, batch, settle)
        settled(stage, bench, seed)
        return list(paints.requires_grad_(False))

    def warps(self, seed: int) -> list[nn.Module]:
        """The faintest warps under which the teacher's outputs come together, the tightest first.

        From hardly any warp on: begun with a strong one, a search can stay there.
        """
        s, bench = self.lesson.settings.pursuit, self.lesson.bench
        searches = self.begun(s.warps, AMPLITUDE, CollapseSettings(), bench, seed)
        searches.triggers.only_warp(s.begun, seed)
        found = self.run(searches, (0.0, s.node_rate), s.batch, bench, seed, s.warp_steps)
        order = searches.collapse.argsort().tolist()
        return [found[k] for k in order if float(searches.collapse[k]) <= s.loose]

    def begun(
        self, count: int, amplitude: float, settings: CollapseSettings, bench: Bench, seed: int
    ) -> Collapse:
        """About `count` searches, as many for each target."""
        wanted = self.targets.repeat(max(1, count // len(self.targets)), 1)
        size, reach = bench.model.spec.input.size, self.lesson.settings.pursuit.reach
        triggers = SharedTriggers(len(wanted), size, seed, amplitude=amplitude)
        return Collapse(triggers, wanted, settings, reach).to(bench.device)

    def run(
        self,
        searches: Collapse,
        rates: tuple[float, float],
        batch: int,
        bench: Bench,
        seed: int,
        steps: int | None = None,
    ) -> list[nn.Module]:
        """The triggers that the searches end with; `rates` of the pattern and of the warp."""
        s, triggers = self.lesson.settings.pursuit, searches.triggers
        stage = Stage(
            "pursuit",
            searches,
            triggers.optimizer(*rates),
            lambda index, at: searches.objective(bench, self.space, index),
            len(bench.benign),
            steps or s.steps,
            batch,
            settle,
        )
        settled(stage, bench, seed)
        return [triggers.select(k).requires_grad_(False) for k in range(len(triggers))]


def settled(stage: Stage, bench: Bench, seed: int) -> None:
    """Run a search to its end; the model's weights learn nothing by it."""
    with gradients_to_input_only(bench.model):
        Engine(bench.device, seed).run(stage)


def fainter(lesson: Lesson) -> Lesson:
    """The lesson with faint warps in the place of each strong one that works alone.

    A probe's warp is as strong as its search began: it spoils the picture for any model, and shares
    little with the attacker's. Where no faint one leads to its target it stays.
    """
    triggers: list[nn.Module] = []
    for trigger in lesson.triggers:
        alone = replace(lesson, triggers=[trigger])
        faint = Pursuit.of(alone).warps(lesson.seed) if is_warp(trigger) else []
        triggers += faint or [trigger]
    return replace(lesson, triggers=triggers)


def is_warp(trigger: nn.Module) -> bool:
    """Whether it moves pixels and adds nothing to them."""
    return isinstance(trigger, SharedTrigger) and not bool(trigger.one.pattern.any())
