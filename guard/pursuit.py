"""What still leads a model to the targets while it is mitigated: searches against the pupil.

A recovered trigger is the smallest change that does it; the attacker's is a larger and another
one. What the pupil has kept of that one shows in what is cheapest now, so it is unlearnt as well.
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
        """The cheapest triggers the pupil has: `count` shared by the targets, at least one each."""
        s, learn = self.lesson.settings.pursuit, self.lesson.learn
        wanted = self.targets.repeat(max(1, s.count // len(self.targets)), 1)
        triggers = SharedTriggers(len(wanted), pupil.spec.input.size, seed)
        searches = Collapse(triggers, wanted, CollapseSettings(), s.reach).to(learn.device)
        bench = Bench(pupil, learn)
        stage = Stage(
            "pursuit",
            searches,
            triggers.optimizer(s.learning_rate, s.warp_rate),
            lambda index, at: searches.objective(bench, self.space, index),
            len(learn),
            s.steps,
            s.batch,
            settle,
        )
        with gradients_to_input_only(pupil):
            Engine(learn.device, seed).run(stage)
        return [triggers.select(k).requires_grad_(False) for k in range(len(wanted))]
