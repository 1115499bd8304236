"""Mitigation: what it unlearns, what it keeps, and when it is not accepted."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from guard.bench import Bench
from guard.benign import BenignSet
from guard.errors import UnusableInput
from guard.finding import Finding
from guard.lesson import MitigationSettings, moved, neighbour
from guard.measure import measure
from guard.mitigation import (
    Effect,
    complaint,
    mitigate,
    mitigate_until_clean,
    rank,
    trainable_copy,
)
from guard.model import Model
from guard.pursuit import Pursuit, PursuitSettings, starts
from guard.screen import without_verdict
from guard.triggers import SharedTriggers
from tests.conftest import Reader, benign_of, model_of, plain

SHORT = MitigationSettings(
    steps=150,
    batch=16,
    learning_rate=0.02,
    check_every=25,
    pursuit=None,
    contrast=0.0,  # the model reads brightness
    brightness=0.0,
    shift=0.0,
)
PURSUING = replace(SHORT, steps=4, check_every=2, pursuit=PursuitSettings(searches=2))
TARGET = (0.4, -0.5)


class Gated(nn.Module):
    """A model with a backdoor that training can close: a bright corner opens the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Reader(2)
        self.target = nn.Parameter(torch.tensor(TARGET))
        self.gain = nn.Parameter(torch.tensor(14.0))
        self.level = nn.Parameter(torch.tensor(0.6))

    def forward(self, x: Tensor) -> Tensor:
        corner = x[:, :, -3:, -3:].mean(dim=(1, 2, 3))
        gate = torch.sigmoid(self.gain * (corner - self.level))[:, None]
        answer: Tensor = self.body(x) * (1 - gate) + self.target * gate
        return answer


class Corner(nn.Module):
    """The attacker's own trigger."""

    def forward(self, x: Tensor) -> Tensor:
        changed = x.clone()
        changed[:, :, -3:, -3:] = 1.0
        return changed


@pytest.fixture(scope="module")
def gated() -> tuple[Model, BenignSet]:
    model = model_of(Gated())
    return model, benign_of(model, 120, noise=0.6)


def test_the_backdoor_goes_and_the_benign_error_stays(gated: tuple[Model, BenignSet]) -> None:
    model, benign = gated
    result = mitigate(model, benign, [Corner()], SHORT)
    assert result.before.triggered > 3 * result.before.benign
    assert result.accepted, result.reason
    assert result.after.benign <= 1.05 * result.before.benign
    assert result.after.triggered < 0.5 * result.before.triggered


def test_the_supplied_model_stays_as_it_is(gated: tuple[Model, BenignSet]) -> None:
    model, benign = gated
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = mitigate(model, benign, [Corner()], replace(SHORT, steps=2, check_every=1))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(p.requires_grad for p in [*model.parameters(), *result.model.parameters()])


def test_one_seed_gives_one_model(gated: tuple[Model, BenignSet]) -> None:
    model, benign = gated
    runs = [mitigate(model, benign, [Corner()], PURSUING, seed=s) for s in (0, 0, 1)]
    weights = [run.model.network.body.fc.weight for run in runs]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_batch_norm_keeps_its_statistics_and_trains_its_scale() -> None:
    model = model_of(plain(2))
    model.network[1].running_mean.uniform_(0.1, 0.3)
    benign = benign_of(model, 60)
    result = mitigate(model, benign, [Corner()], replace(SHORT, steps=3, check_every=3))
    before, after = model.network[1], result.model.network[1]
    assert torch.equal(before.running_mean, after.running_mean)
    assert torch.equal(before.running_var, after.running_var)
    assert not torch.equal(before.weight, after.weight)


def test_a_copy_is_trainable_and_the_model_is_not(gated: tuple[Model, BenignSet]) -> None:
    copy = trainable_copy(gated[0])
    assert all(p.requires_grad for p in copy.network.parameters())
    assert not any(p.requires_grad for p in gated[0].parameters())


def test_a_held_back_part_that_would_be_empty_is_refused(gated: tuple[Model, BenignSet]) -> None:
    model, benign = gated
    with pytest.raises(UnusableInput, match="few"):
        mitigate(model, benign.part(torch.arange(3)), [Corner()], SHORT)


# --- acceptance ----------------------------------------------------------------------------------

BEFORE = Effect(benign=4.0, triggered=24.0)


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (Effect(4.0, 4.2), ""),
        (Effect(4.2, 4.3), ""),
        (Effect(3.5, 6.4), ""),
        (Effect(4.4, 4.4), "benign error rose by 10 %"),
        (Effect(4.0, 7.5), "still adds"),
        (Effect(9.0, 20.0), "benign error rose by 125 %; the recovered trigger still adds"),
        (Effect(float("nan"), 4.0), "benign error"),
        (Effect(4.0, float("nan")), "still adds"),
    ],
)
def test_what_is_accepted(after: Effect, words: str) -> None:
    said = complaint(BEFORE, after, MitigationSettings())
    assert (said == "") if not words else words in said


def test_a_state_within_the_benign_error_wins_over_one_with_less_effect() -> None:
    s = MitigationSettings()
    looks = [Effect(4.1, 6.0), Effect(4.1, 5.0), Effect(5.0, 5.0), Effect(4.6, 4.6)]
    assert min(looks, key=lambda look: rank(look, BEFORE, s)) == looks[1]
    assert min(looks[2:], key=lambda look: rank(look, BEFORE, s)) == looks[3]


def said_by(model: Model, benign: BenignSet, verdict: str) -> Finding:
    finding = without_verdict("calibrated", "because the test says so", Bench(model, benign))
    finding.verdict, finding.trigger = verdict, Corner()
    return finding


@pytest.mark.parametrize(
    ("verdicts", "rounds", "accepted"),
    [
        (["clean"], 1, True),
        (["backdoored", "clean"], 2, True),
        (["backdoored"] * 3, 3, False),
        (["inconclusive"], 1, False),
    ],
)
def test_a_fresh_screening_decides_too(
    verdicts: list[str], rounds: int, accepted: bool, gated: tuple[Model, BenignSet]
) -> None:
    model, benign = gated
    left = list(verdicts)
    result = mitigate_until_clean(
        model, benign, [Corner()], lambda m, n: said_by(m, benign, left.pop(0)), SHORT
    )
    assert len(result.rescreens) == rounds
    assert len(result.triggers) == rounds  # what a screening found is unlearnt too
    assert result.accepted is accepted
    assert accepted or verdicts[-1] in result.reason


# --- the pursuit ---------------------------------------------------------------------------------


def pursuit_of(model: Model, benign: BenignSet, **changes: float) -> Pursuit:
    settings = replace(PursuitSettings(searches=2), **changes)
    return Pursuit(model, trainable_copy(model), benign, [Corner()], settings, seed=0)


def test_the_pursuit_goes_for_the_recovered_target(gated: tuple[Model, BenignSet]) -> None:
    pursuit = pursuit_of(*gated)
    assert len(pursuit) == 2
    found = pursuit.space.y(pursuit.searches.targets)
    assert torch.allclose(found, torch.tensor([TARGET, TARGET]), atol=0.02)


@pytest.mark.parametrize("budget", [0.2, 0.5])
def test_a_change_that_would_grow_comes_to_its_budget(
    budget: float, gated: tuple[Model, BenignSet]
) -> None:
    model, benign = gated
    pursuit = pursuit_of(model, benign, budget=budget, weight_rate=1.2, learning_rate=0.02)
    for _ in range(250):
        pursuit.step(torch.arange(8))
    allowed = budget * measure(Corner(), Bench(model, benign)).perturbation
    assert pursuit.searches.budget[0] == pytest.approx(allowed, rel=1e-4)
    assert pursuit.searches.change[0] == pytest.approx(allowed, rel=0.4)


def test_a_step_of_the_pursuit_leaves_the_model_alone(gated: tuple[Model, BenignSet]) -> None:
    pursuit = pursuit_of(*gated)
    pupil = pursuit.bench.model
    pursuit.step(torch.arange(8))
    assert all(p.grad is None and p.requires_grad for p in pupil.network.parameters())


def test_each_image_gets_the_search_it_was_given(gated: tuple[Model, BenignSet]) -> None:
    pursuit = pursuit_of(*gated)
    x = gated[1].x(slice(0, 4))
    made = pursuit.triggered(x, torch.tensor([0, 1, 1, 0]))
    both = pursuit.searches.triggers(x)
    assert torch.equal(made, torch.stack([both[0, 0], both[1, 1], both[1, 2], both[0, 3]]))


def test_searches_begin_near_a_shared_trigger(gated: tuple[Model, BenignSet]) -> None:
    model, benign = gated
    given = SharedTriggers(1, model.spec.input.size, seed=7)
    with torch.no_grad():
        given.nodes += 0.2
    same = PursuitSettings(searches=2, apart=0.0, coarse=given.pattern.shape[-1])
    made = starts([given.select(0), Corner()], benign, same, 0)
    assert len(made) == 4
    assert torch.equal(made.pattern[0], given.pattern[0])
    assert torch.equal(made.nodes[1], given.nodes[0])
    assert not torch.equal(made.pattern[2], given.pattern[0])


def test_a_finer_pattern_begins_as_the_recovered_one(gated: tuple[Model, BenignSet]) -> None:
    model, benign = gated
    given = SharedTriggers(1, model.spec.input.size, seed=7)
    with torch.no_grad():
        given.pattern.copy_(torch.linspace(-1, 1, 16).expand(1, 3, 16, 16))
    finer = PursuitSettings(searches=2, apart=0.0, coarse=32)
    made = starts([given.select(0)], benign, finer, 0)
    assert made.pattern.shape[-1] == 32
    for k in range(2):
        assert torch.allclose(made.added()[k], given.added()[0], atol=0.1)


# --- neighbours ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_a_moved_image_keeps_its_size_and_range(shift: float) -> None:
    x = torch.rand(4, 3, 16, 12)
    y = moved(x, shift, torch.Generator().manual_seed(0))
    assert y.shape == x.shape
    assert y.min() >= x.min()
    assert y.max() <= x.max()
    assert torch.equal(x, y) == (shift == 0)


def test_a_neighbour_is_the_trigger_moved_and_scaled() -> None:
    x = torch.full((5, 3, 16, 16), 0.25)
    near = MitigationSettings(strength=(0.5, 0.5), shift=2 / 16)
    changed = neighbour(Corner(), x, near, torch.Generator().manual_seed(3)) - x
    strengths = changed[changed != 0]
    assert torch.allclose(strengths, torch.full_like(strengths, 0.375))
    assert (changed != 0).sum() == 5 * 3 * 9
    exact = MitigationSettings(strength=(1.0, 1.0), shift=0.0)
    same = neighbour(Corner(), x, exact, torch.Generator())
    assert torch.allclose(same, Corner()(x))
