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
from guard.triggers import SharedTriggers

ALONE = 1e3  # weight of a collapse beside which the change does not count


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
        s, size = self.lesson.settings.pursuit, pupil.spec.input.size
        cheapest = SharedTriggers(self.shared_by(s.count), size, seed)
        rates = (s.learning_rate, s.warp_rate)
        found = self.run(cheapest, CollapseSettings(), rates, s.batch, pupil, seed)
        if not s.faint:
            return found
        faint = SharedTriggers(self.shared_by(s.faint), size, seed, amplitude=s.amplitude)
        rates = (s.learning_rate, 0.0)  # a warp has no such limit
        alone = CollapseSettings(first_weight=ALONE, weight_rate=1.0)
        return found + self.run(faint, alone, rates, s.faint_batch, pupil, seed)

    def shared_by(self, count: int) -> int:
        """About `count`, as many for each target."""
        return max(1, count // len(self.targets)) * len(self.targets)

    def run(
        self,
        triggers: SharedTriggers,
        settings: CollapseSettings,
        rates: tuple[float, float],
        batch: int,
        pupil: Model,
        seed: int,
    ) -> list[nn.Module]:
        """Triggers that lead the pupil to the targets, by turns; `rates` of pattern and warp."""
        s, learn = self.lesson.settings.pursuit, self.lesson.learn
        wanted = self.targets.repeat(len(triggers) // len(self.targets), 1)
        searches = Collapse(triggers, wanted, settings, s.reach).to(learn.device)
        bench = Bench(pupil, learn)
        stage = Stage(
            "pursuit",
            searches,
            triggers.optimizer(*rates),
            lambda index, at: searches.objective(bench, self.space, index),
            len(learn),
            s.steps,
            batch,
            settle,
        )
        with gradients_to_input_only(pupil):
            Engine(learn.device, seed).run(stage)
        return [triggers.select(k).requires_grad_(False) for k in range(len(triggers))]
