"""Searches against a pupil: what still leads it to the targets is found and unlearnt too."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from guard import mitigation
from guard.bench import Bench
from guard.lesson import Lesson, MitigationSettings, PursuitSettings, make_lesson
from guard.mitigation import forgetful_copy, mitigate
from guard.pursuit import Pursuit
from tests.conftest import SIDE, Reader, benign_of, model_of

QUICK = PursuitSettings(every=3, count=2, steps=3)
BRIEF = MitigationSettings(steps=7, batch=8, check_every=7, pursuit=QUICK)


class Brighter(nn.Module):
    """All images end as one: so do the answers."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x, self.level)


def lesson_of(levels: list[float], settings: MitigationSettings = BRIEF) -> Lesson:
    model = model_of(Reader(2))
    triggers = [Brighter(level) for level in levels]
    return make_lesson(model, benign_of(model, 80), triggers, settings, seed=0)


@pytest.mark.parametrize(("levels", "count"), [([0.2], 1), ([0.2, 0.201], 1), ([0.1, 0.9], 2)])
def test_a_target_for_each_place_that_the_triggers_lead_to(levels: list[float], count: int) -> None:
    pursuit = Pursuit.of(lesson_of(levels))
    assert pursuit.targets.shape == (count, 2)
    answer = pursuit.lesson.teacher(torch.full((1, 3, SIDE, SIDE), levels[0]))[0]
    assert torch.allclose(pursuit.space.y(pursuit.targets[0]), answer, atol=1e-4)


@pytest.mark.parametrize(
    ("levels", "faint", "found"), [([0.2], 0, 2), ([0.2], 3, 5), ([0.1, 0.5, 0.9], 1, 6)]
)
def test_every_target_is_searched_for(levels: list[float], faint: int, found: int) -> None:
    settings = replace(BRIEF, pursuit=replace(QUICK, faint=faint))
    pursuit = Pursuit.of(lesson_of(levels, settings))
    pupil = forgetful_copy(pursuit.lesson.teacher, 0.0, seed=0)
    triggers = pursuit.search(pupil, seed=1)
    assert len(triggers) == found
    assert all(parameter.requires_grad for parameter in pupil.network.parameters())
    assert not any(p.requires_grad for trigger in triggers for p in trigger.parameters())


def test_what_is_found_leads_to_the_target_and_is_as_faint_as_it_should_be() -> None:
    settings = replace(BRIEF, pursuit=PursuitSettings(steps=150, count=1, faint=1, amplitude=0.3))
    pursuit = Pursuit.of(lesson_of([0.7], settings))
    bench = Bench(pursuit.lesson.teacher, pursuit.lesson.held)
    x = bench.benign.x(slice(0, 16))
    cheapest, faint = pursuit.search(pursuit.lesson.teacher, seed=0)
    with torch.no_grad():
        asked = [pursuit.space.z(bench.model(images)) for images in (x, cheapest(x), faint(x))]
        change = (faint(x) - x).abs()
    far, *near = ((z - pursuit.targets[0]).norm(dim=1).mean() for z in asked)
    assert all(distance < 0.6 * far for distance in near)
    assert change.max() < 0.3 + 1e-6  # a warp would have no such limit


@pytest.mark.parametrize(("every", "times"), [(3, [3, 6]), (0, []), (9, [])])
def test_the_pupil_is_searched_now_and_then(
    every: int, times: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found last joins the lesson; the given triggers judge the held-back images."""
    searched, unlearnt = list[int](), set[int]()
    real = mitigation.loss_of

    def search(self: Pursuit, pupil: object, seed: int) -> list[nn.Module]:
        searched.append(seed)
        return [Brighter(0.5)]

    def loss_of(pupil: object, lesson: Lesson) -> Tensor:
        unlearnt.add(len(lesson.triggers))
        return real(pupil, lesson)  # type: ignore[arg-type]

    monkeypatch.setattr(Pursuit, "search", search)
    monkeypatch.setattr(mitigation, "loss_of", loss_of)
    model = model_of(Reader(2))
    settings = replace(BRIEF, pursuit=replace(QUICK, every=every))
    result = mitigate(model, benign_of(model, 80), [Brighter(0.2)], settings, seed=0)
    assert searched == times
    assert unlearnt == ({1, 2} if times else {1})
    assert len(result.triggers) == 1
