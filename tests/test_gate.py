"""The gate of a mitigation: what it lets pass, and what it holds a trigger's effect against."""

import pytest
import torch
from torch import Tensor, nn

from guard.gate import Effect, Gate, complaint, rank, turned
from guard.lesson import MitigationSettings, make_lesson
from tests.conftest import benign_of, model_of
from tests.mitigation_files import Corner, Gated

BEFORE = Effect(benign=4.0, triggered=24.0, over=14.0)


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (Effect(4.0, 4.2, -5.0), ""),
        (Effect(4.2, 4.3, -5.0), ""),
        (Effect(3.5, 6.4, -5.0), ""),
        (Effect(4.4, 4.4, -5.0), "benign error rose by 10.0 %, 5 % is allowed"),
        (Effect(4.0, 10.5, 0.5), "still adds 0.5 more to the error of 4 than is allowed"),
        (
            Effect(9.0, 20.0, 5.0),
            "benign error rose by 125.0 %, 5 % is allowed; a recovered trigger still adds",
        ),
        (Effect(float("nan"), 4.0, -6.0), "benign error"),
        (Effect(4.0, float("nan"), float("nan")), "still adds"),
    ],
)
def test_what_is_accepted(after: Effect, words: str) -> None:
    said = complaint(BEFORE, after, MitigationSettings())
    assert (said == "") if not words else words in said


def test_of_the_states_that_pass_the_one_with_the_smallest_benign_error_wins() -> None:
    best_first = [
        Effect(4.0, 5.0, -1.0),
        Effect(4.1, 4.2, -2.0),  # less of an effect, but a larger benign error
        Effect(3.9, 12.0, 1.0),  # too much of an effect
        Effect(4.0, 13.0, 2.0),
        Effect(4.6, 4.6, -3.0),  # too large a benign error
        Effect(5.0, 5.0, -3.0),
    ]
    ranks = [rank(look, BEFORE, MitigationSettings()) for look in best_first]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(ranks)


def test_a_trigger_turned_another_way_is_as_strong_and_stands_elsewhere() -> None:
    x = torch.rand(2, 3, 8, 12)
    corners = [(slice(-3, None), slice(0, 3)), (slice(0, 3), slice(-3, None))]
    corners += [(slice(0, 3), slice(0, 3))]
    for change, (rows, columns) in zip(turned(Corner()), corners, strict=False):
        made = change(x)
        assert bool((made[:, :, rows, columns] == 1).all())
        made[:, :, rows, columns] = x[:, :, rows, columns]
        assert torch.equal(made, x)
    square = torch.rand(2, 3, 8, 8)
    assert torch.equal(turned(nn.Identity())[3](square), square)
    assert turned(Corner())[3](x).shape == x.shape


class Swapped(nn.Module):
    """Spoils every picture as much, however it is turned, and opens no backdoor."""

    def forward(self, x: Tensor) -> Tensor:
        return x.roll((x.shape[2] // 2, x.shape[3] // 2), (2, 3))


class Brighter(nn.Module):
    """Opens the backdoor, however it is turned."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + 0.6).clamp(0, 1)


def test_what_a_trigger_may_add_is_read_from_how_it_spoils_f() -> None:
    model = model_of(Gated())
    benign = benign_of(model, 120, noise=0.6)
    s = MitigationSettings()
    added = []
    for trigger in (Corner(), Swapped(), Brighter()):
        gate = Gate.of(make_lesson(model, benign, [trigger], s, 0))
        (allowed,) = gate.allowed
        assert gate.before == gate.look(model)
        added.append(allowed / (gate.before.triggered - gate.before.benign))
    # A corner elsewhere does nothing to this model.
    assert added == pytest.approx([s.harm, s.spoilt, s.harm])


class Strong(nn.Module):
    """Does more to the model than the corner."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def test_what_one_trigger_may_add_does_not_depend_on_the_others() -> None:
    model = model_of(Gated())
    benign = benign_of(model, 120, noise=0.6)
    (alone,) = Gate.of(make_lesson(model, benign, [Corner()], MitigationSettings(), 0)).allowed
    both = Gate.of(make_lesson(model, benign, [Corner(), Strong()], MitigationSettings(), 0))
    assert both.allowed[0] == alone
