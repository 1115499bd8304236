"""What still leads a model to the targets while it is mitigated: searches against the pupil.

A recovered trigger is the smallest change that does it; the attacker's is a larger and another
one. What the pupil has kept of that one shows in what is cheapest now, and in what works best of
all faint changes (a blend is no small change, but a faint one). So these are unlearnt as well.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guard.bench import Bench
from guard.collapse import Collapse, CollapseSettings
from guard.engine import Engine, Stage, gradients_to_input_only, settle
from guard.lesson import Lesson
from guard.measure import target_of
from guard.model import Model
from guard.space import OutputSpace
from guard.triggers import AMPLITUDE, SharedTriggers

# So much more of the collapse, all along, that the size of the change does not count.
ALONE = CollapseSettings(first_weight=1e3, weight_rate=1.0)


@dataclass(frozen=True)
class Pursuit:
    """Searches for shared triggers that lead a pupil's outputs to where the teacher's fall."""

    lesson: Lesson
    space: OutputSpace  # of the teacher's outputs
    targets: Tensor  # (T, d) whitened

    @classmethod
    def of(cls, lesson: Lesson) -> "Pursuit":
        """With the targets of the lesson's triggers, those close together as one."""
        bench = Bench(lesson.teacher, lesson.learn)
        space = OutputSpace.of(bench.outputs)
        found: list[Tensor] = []
        for trigger in lesson.triggers:
            z = space.z(torch.tensor(target_of(trigger, bench, 1.0)).to(space.mean))
            if all(float((z - other).norm()) >= lesson.settings.pursuit.apart for other in found):
                found.append(z)
        return cls(lesson, space, torch.stack(found))

    def search(self, pupil: Model, seed: int) -> list[nn.Module]:
        """The cheapest triggers the pupil has, and faint ones; each target at least one of both."""
        s, bench = self.lesson.settings.pursuit, Bench(pupil, self.lesson.learn)
        cheapest = self.begun(s.count, AMPLITUDE, CollapseSettings(), bench, seed)
        found = self.run(cheapest, s.warp_rate, s.batch, bench, seed)
        if not s.faint:
            return found
        faint = self.begun(s.faint, s.amplitude, ALONE, bench, seed)
        return found + self.run(faint, 0.0, s.faint_batch, bench, seed)  # a warp has no such limit

    def begun(
        self, count: int, amplitude: float, settings: CollapseSettings, bench: Bench, seed: int
    ) -> Collapse:
        """About `count` searches, as many for each target."""
        wanted = self.targets.repeat(max(1, count // len(self.targets)), 1)
        size, reach = bench.model.spec.input.size, self.lesson.settings.pursuit.reach
        triggers = SharedTriggers(len(wanted), size, seed, amplitude=amplitude)
        return Collapse(triggers, wanted, settings, reach).to(bench.device)

    def run(
        self, searches: Collapse, warp_rate: float, batch: int, bench: Bench, seed: int
    ) -> list[nn.Module]:
        """The triggers that the searches end with."""
        s, triggers = self.lesson.settings.pursuit, searches.triggers
        stage = Stage(
            "pursuit",
            searches,
            triggers.optimizer(s.learning_rate, warp_rate),
            lambda index, at: searches.objective(bench, self.space, index),
            len(bench.benign),
            s.steps,
            batch,
            settle,
        )
        with gradients_to_input_only(bench.model):
            Engine(bench.device, seed).run(stage)
        return [triggers.select(k).requires_grad_(False) for k in range(len(triggers))]
