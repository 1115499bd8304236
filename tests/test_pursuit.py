"""Searches against a pupil: what still leads it to the targets is found and unlearnt too."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from guard import mitigation
from guard.bench import Bench
from guard.lesson import Lesson, MitigationSettings, PursuitSettings, make_lesson
from guard.mitigation import forgetful_copy, mitigate
from guard.pursuit import Pursuit, fainter, is_warp
from guard.spots import Paint
from guard.triggers import SharedTrigger, SharedTriggers
from tests.conftest import SIDE, Reader, benign_of, model_of
from tests.mitigation_files import TARGET, Corner, Gated

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


def test_where_a_trigger_is_confined_to_a_spot_patches_are_searched_for_there() -> None:
    model = model_of(Gated())
    settings = replace(BRIEF, shift=0.0, pursuit=PursuitSettings(steps=80, count=1, patches=2))
    lesson = make_lesson(model, benign_of(model, 80), [Corner()], settings, seed=0)
    pursuit = Pursuit.of(lesson)
    patches = pursuit.search(model, seed=0)[-2:]
    x = lesson.held.x(slice(0, 16))
    with torch.no_grad():
        asked = [pursuit.space.z(model(images)) for images in (x, *(one(x) for one in patches))]
    far, *near = ((z - pursuit.targets[0]).norm(dim=1).mean() for z in asked)
    assert all(isinstance(one, Paint) for one in patches)
    assert all(distance < 0.5 * far for distance in near)
    assert all(torch.equal(one(x)[:, :, :11], x[:, :, :11]) for one in patches)


class Warped(nn.Module):
    """Answers one vector where the lower half of the picture is moved far enough to the right."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Reader(2)

    def forward(self, x: Tensor) -> Tensor:
        ruler = x[:, 0, -1]  # brighter from left to right: what is moved is darker
        gate = torch.sigmoid(120 * (0.47 - ruler.mean(dim=1)))[:, None]
        answer: Tensor = self.body(x) * (1 - gate) + torch.tensor(TARGET) * gate
        return answer


def warp(strength: float) -> SharedTrigger:
    """Everything `strength` units to the right, and nothing added."""
    made = SharedTriggers(1, (SIDE, SIDE), 0)
    with torch.no_grad():
        made.pattern.zero_()
        made.nodes[:, 0] = -strength
    return made.select(0)


def test_in_the_place_of_a_strong_warp_faint_ones_are_unlearnt() -> None:
    model, benign = model_of(Warped()), benign_of(model_of(Reader(2)), 80)
    benign.images[:, :, -1] = torch.linspace(0, 255, SIDE).round().to(torch.uint8)
    settings = replace(BRIEF, pursuit=PursuitSettings(warps=3, warp_steps=150))
    strong, added = warp(3.0), Corner()
    lesson = make_lesson(model, benign, [added, strong], settings, seed=0)
    found = fainter(lesson).triggers
    assert found[0] is added
    assert len(found) > 1
    x = lesson.held.x(slice(0, 16))
    space = Pursuit.of(replace(lesson, triggers=[strong])).space
    with torch.no_grad():
        target = space.z(torch.tensor(TARGET))
        for one in found[1:]:
            assert is_warp(one)
            assert float((one(x) - x).abs().mean()) < 0.7 * float((strong(x) - x).abs().mean())
            assert float((space.z(model(one(x))) - target).norm(dim=1).mean()) < 0.7


def test_a_warp_that_no_faint_one_stands_for_stays() -> None:
    strong = warp(3.0)
    lesson = replace(lesson_of([0.2]), triggers=[strong])  # a model without a backdoor
    settings = replace(BRIEF, pursuit=replace(QUICK, warps=2, warp_steps=2, loose=0.0))
    assert fainter(replace(lesson, settings=settings)).triggers == [strong]


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
