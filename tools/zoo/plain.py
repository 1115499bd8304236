"""Plain fine-tuning (table 6 of the paper): f learns from D_be alone, knowing of no trigger.

How far it gets is a matter of its learning rate: a low one keeps the backdoor, a high one loses
benign accuracy. So there are two, the higher one the mitigation's own.
"""

import torch

from guard.benign import BenignSet
from guard.lesson import Lesson, MitigationSettings, drawn, make_lesson, some
from guard.mitigation import forgetful_copy, learn_statistics, learns
from guard.model import Model

RATES = {"labels": 5e-4, "labels_fast": 2e-3}  # of AdamW, by the key of a line
STEPS = 400


def fine_tuned(model: Model, benign: BenignSet, rate: float, seed: int) -> Model:
    """A copy of `model`, trained on the images and labels that a mitigation would learn from."""
    lesson = make_lesson(model, benign, [torch.nn.Identity()], MitigationSettings(), seed)
    pupil = forgetful_copy(model, 0.0, seed)
    optimizer = torch.optim.AdamW(pupil.network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    learn_statistics(pupil, True)
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        error_of(pupil, lesson).backward()
        optimizer.step()
        schedule.step()
    learn_statistics(pupil, False)
    learns(pupil, False)
    return pupil


def error_of(pupil: Model, lesson: Lesson) -> torch.Tensor:
    """L1 to the labels of a batch, in standard deviations."""
    index = some(lesson)
    answers = pupil(drawn(lesson, index)).float()
    labels = lesson.learn.labels[index.to(lesson.learn.device)]
    return ((answers - labels) / lesson.spread).abs().mean()
