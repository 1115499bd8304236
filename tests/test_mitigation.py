"""Mitigation: what it unlearns, what it keeps, and when it is not accepted."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from guard import mitigation
from guard.bench import Bench
from guard.benign import BenignSet
from guard.errors import UnusableInput
from guard.finding import Finding
from guard.gate import Effect, Gate
from guard.lesson import (
    MitigationSettings,
    cut,
    loss_of,
    make_lesson,
    mixed,
    moved,
    neighbour,
    partly_disturbed,
    spread_of,
)
from guard.mitigation import (
    Mitigated,
    forgetful_copy,
    learn_statistics,
    mitigate,
    mitigate_until_clean,
)
from guard.model import Model
from guard.screen import without_verdict
from tests.conftest import Reader, benign_of, model_of, plain
from tests.mitigation_files import BRIEF, SHORT, Corner, Gated


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
    runs = [mitigate(model, benign, [Corner()], BRIEF, seed=s) for s in (0, 0, 1)]
    weights = [run.model.network.get_parameter("body.fc.weight") for run in runs]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("rise", "steps"),
    [(1.05, 150), (0.0, 250)],  # no state's benign error is 0: both extensions are used up
)
def test_where_no_state_passes_the_fine_tuning_goes_on(
    rise: float, steps: int, gated: tuple[Model, BenignSet]
) -> None:
    model, benign = gated
    settings = replace(SHORT, rise=rise)
    result = mitigate(model, benign, [Corner()], settings)
    assert [step for step, _ in result.curve] == list(range(0, steps + 1, 25))
    assert result.accepted is (steps == 150)
    alone = mitigate(model, benign, [Corner()], replace(settings, extensions=0))
    assert result.before == alone.before
    assert result.curve[: len(alone.curve)] == alone.curve
    ends = [look for step, look in result.curve if step in (150, 200, 250)]
    assert result.after.benign == min(look.benign for look in ends)


@pytest.mark.parametrize(
    ("looks", "kept"),
    [
        ([0.9, 1.04], 1),  # a lucky look on the way is no candidate
        ([0.9, 1.3, 0.9, 1.03], 3),  # nor does it end the fine-tuning
        ([0.9, 1.08, 0.9, 1.10, 0.9, 1.09], 1),  # of the ends, none of which passes, the best
    ],
)
def test_only_the_end_of_a_fine_tuning_is_a_candidate(
    looks: list[float], kept: int, gated: tuple[Model, BenignSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two looks a fine-tuning, at its middle and at its end."""
    model, benign = gated
    given, states = iter(looks), []

    def look(gate: Gate, pupil: Model) -> Effect:
        states.append(deepcopy(pupil.network.state_dict()))
        return Effect(next(given) * gate.before.benign, 0.0, 0.0)

    monkeypatch.setattr(Gate, "look", look)
    settings = replace(BRIEF, extension=1.0)
    result = mitigate(model, benign, [Corner()], settings)
    assert result.after.benign == looks[kept] * result.before.benign
    assert result.accepted is (looks[kept] <= 1.05)
    ended = result.model.network.state_dict()
    assert all(torch.equal(ended[name], value) for name, value in states[kept].items())


@pytest.mark.parametrize(
    ("pictures", "held"),
    [
        ([10] * 10, 30),  # three of ten persons
        ([40, 20, 20, 20], 20),  # the one with 40 is too many to hold back
        ([60, 40], 0),  # each is too many: images are held back
        ([100], 0),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_whole_persons_are_held_back_where_they_are_known(
    pictures: list[int], held: int, seed: int
) -> None:
    known = benign_of(model_of(Reader(2)), 100)
    names = [str(k) for k, count in enumerate(pictures) for _ in range(count)]
    draw = torch.Generator().manual_seed(seed)
    learnt, judging = cut(replace(known, persons=names), 0.3, draw)
    assert sorted([*learnt.tolist(), *judging.tolist()]) == list(range(100))
    seen = {names[i] for i in learnt.tolist()}
    strangers = [names[i] for i in judging.tolist() if names[i] not in seen]
    assert len(strangers) == held
    assert len(judging) == (held or 30)


def test_the_outcome_says_how_many_persons_judged_it(gated: tuple[Model, BenignSet]) -> None:
    model, benign = gated
    told = replace(benign, persons=[str(i % 12) for i in range(len(benign))])
    results = [mitigate(model, data, [Corner()], BRIEF) for data in (benign, told)]
    assert [(r.held, r.persons) for r in results] == [(36, 0), (30, 3)]


def test_batch_norm_learns_statistics_for_layers_that_forgot() -> None:
    model = model_of(plain(2))
    benign = benign_of(model, 60)
    result = mitigate(model, benign, [Corner()], replace(SHORT, steps=3, check_every=3))
    before, after = model.network.state_dict(), result.model.network.state_dict()
    assert not torch.equal(before["1.running_mean"], after["1.running_mean"])
    assert not torch.equal(before["1.weight"], after["1.weight"])
    assert not any(module.training for module in result.model.modules())


def test_dropout_stays_off_while_statistics_are_learnt() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, 2))
    pupil = forgetful_copy(model_of(network, side=2), 0.3, seed=0)
    learn_statistics(pupil, True)
    assert [module.training for module in pupil.network.children()] == [True, False, False, False]


@pytest.mark.parametrize(("share", "wanted"), [(0.0, []), (0.34, ["7"]), (1.0, ["0", "3", "7"])])
def test_the_last_layers_forget(share: float, wanted: list[str]) -> None:
    model = model_of(plain(2))
    pupil = forgetful_copy(model, share, seed=0)
    assert all(p.requires_grad for p in pupil.network.parameters())
    assert not any(p.requires_grad for p in model.parameters())
    pairs = zip(model.network.named_parameters(), pupil.network.parameters(), strict=True)
    changed = []
    for (name, before), after in pairs:
        assert torch.equal(before.flatten().sort().values, after.detach().flatten().sort().values)
        if not torch.equal(before, after):
            changed.append(name.removesuffix(".weight"))
    assert changed == wanted


def test_a_held_back_part_that_would_be_empty_is_refused(gated: tuple[Model, BenignSet]) -> None:
    model, benign = gated
    with pytest.raises(UnusableInput, match="few"):
        mitigate(model, benign.part(torch.arange(3)), [Corner()], SHORT)


def test_the_lesson_asks_for_the_features_too() -> None:
    torch.manual_seed(0)  # in some networks, drawn anew, the features hardly differ
    model = model_of(plain(2))
    same, pupil = forgetful_copy(model, 0.0, 0), forgetful_copy(model, 1.0, 0)
    off = []
    for weight in (0.0, 1.0):
        settings = replace(SHORT, features=weight)
        lesson = make_lesson(model, benign_of(model), [nn.Identity()], settings, 0)
        rounding = loss_of(same, lesson).detach()  # the lesson may be computed in bf16
        off.append(loss_of(pupil, lesson).detach())
        assert rounding < 0.2 * off[-1]
    assert off[1] > 1.2 * off[0]


def said_by(model: Model, benign: BenignSet, verdict: str) -> Finding:
    """A finding of this verdict; "contradicted": inconclusive, for a restart disagrees."""
    finding = without_verdict("calibrated", "because the test says so", Bench(model, benign))
    contradicted = verdict == "contradicted"
    verdict = "inconclusive" if contradicted else verdict
    return replace(finding, verdict=verdict, trigger=Corner(), contradicted=contradicted)


@pytest.mark.parametrize(
    ("said", "rounds", "accepted"),
    [
        (["clean"], 1, True),
        (["backdoored", "clean"], 2, True),
        (["backdoored"] * 3, 3, False),
        (["contradicted", "clean"], 2, True),
        (["contradicted", "backdoored", "clean"], 3, True),
        (["inconclusive"], 1, False),  # nothing was found that could be unlearnt
    ],
)
def test_a_fresh_screening_decides_too(
    said: list[str], rounds: int, accepted: bool, gated: tuple[Model, BenignSet]
) -> None:
    model, benign = gated
    left = list(said)
    result = mitigate_until_clean(
        model, benign, [Corner()], lambda m, n: said_by(m, benign, left.pop(0)), SHORT
    )
    assert len(said) - len(left) == rounds
    assert len(result.triggers) == len(result.rescreens)  # what a screening found is unlearnt too
    assert result.accepted is accepted
    assert len(result.rescreens) == rounds or not accepted
    assert accepted or said[-1] in result.reason


@pytest.mark.parametrize(
    ("rounds", "kept"),
    [
        ([("contradicted", 1.02), ("contradicted", 1.04), ("contradicted", 1.9)], 0),
        ([("backdoored", 1.02), ("contradicted", 1.04), ("backdoored", 1.01)], 1),
        ([("backdoored", 1.2), ("backdoored", 1.04), ("backdoored", 1.1)], 1),
        ([("backdoored", 1.02), ("clean", 1.9)], 1),  # what the gate says of that one
    ],
)
def test_of_the_rounds_the_best_is_kept_where_none_is_clean(
    rounds: list[tuple[str, float]],
    kept: int,
    gated: tuple[Model, BenignSet],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, benign = gated
    before, made = Effect(1.0, 5.0, 3.0), list[Mitigated]()

    def mitigate(*given: object, **words: object) -> Mitigated:
        after = Effect(rounds[len(made)][1], 1.0, -1.0)
        accepted = after.benign <= 1.05
        made.append(Mitigated(model, [], before, after, accepted, "as the test says", [], 9, 0))
        return made[-1]

    monkeypatch.setattr(mitigation, "mitigate", mitigate)
    result = mitigate_until_clean(
        model, benign, [Corner()], lambda m, n: said_by(m, benign, rounds[n][0]), SHORT
    )
    assert result is made[kept]
    assert not result.accepted
    assert len(result.rescreens) == kept + 1


def test_what_a_restart_contradicts_is_unlearnt_but_no_gate(
    gated: tuple[Model, BenignSet],
) -> None:
    """It may be no backdoor's: no mitigation keeps noise from spoiling the picture."""
    model, benign = gated
    result = mitigate(model, benign, [Corner()], SHORT, doubted=[Noise()])
    assert result.accepted, result.reason
    assert [type(one) for one in result.triggers] == [Corner, Noise]
    lesson = make_lesson(model, benign, [Corner()], SHORT, 0, [Noise()])
    assert len(Gate.of(lesson).allowed) == 1


class Noise(nn.Module):
    """No picture is left."""

    def forward(self, x: Tensor) -> Tensor:
        draw = torch.Generator().manual_seed(0)
        return torch.rand(x.shape, generator=draw)


def test_a_network_without_weights_is_refused(gated: tuple[Model, BenignSet]) -> None:
    with pytest.raises(UnusableInput, match="no weights"):
        mitigate(model_of(Still()), gated[1], [Corner()], BRIEF)


class Still(nn.Module):
    """As a frozen TorchScript module is."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))[:, :2]


def test_a_label_that_never_changes_does_not_outweigh_the_others() -> None:
    draw = torch.Generator().manual_seed(0)
    answers = torch.randn(50, 3, generator=draw)
    labels = answers * torch.tensor([1.0, 0.5, 0.0])
    spread = spread_of(labels, answers)
    assert torch.equal(spread[:2], labels.std(dim=0)[:2])
    assert spread[2] == answers[:, 2].std()


# --- the lesson ----------------------------------------------------------------------------------


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


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_mixed_image_is_mostly_itself(share: float, gated: tuple[Model, BenignSet]) -> None:
    model, benign = gated
    lesson = make_lesson(model, benign, [Corner()], replace(SHORT, mix=share), 0)
    x = torch.rand(30, 3, 4, 4)
    made = mixed(x, lesson)
    assert float((made - x).abs().max()) <= share
    assert float(made.min()) >= 0
    assert float(made.max()) <= 1
    assert torch.equal(made, x) == (share == 0)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_images_is_disturbed(share: float, gated: tuple[Model, BenignSet]) -> None:
    model, benign = gated
    lesson = make_lesson(model, benign, [Corner()], replace(SHORT, disturbed=share), 0)
    x = torch.rand(30, 3, 4, 4)
    made = partly_disturbed(x, lesson)
    same = [torch.equal(before, after) for before, after in zip(x, made, strict=True)]
    assert same == [False] * round(30 * share) + [True] * (30 - round(30 * share))
