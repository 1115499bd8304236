"""What is usual in a model, by its other searches."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from guard.settings import CalibratedSettings
from guard.usual import FREEDOM, LEAST, STEEP, Ends, itself, others, trend

NO = math.nan
USED = CalibratedSettings()
ROW = [(3.0 * k, 0.0) for k in range(8)]
RING = [(3 * math.cos(a), 3 * math.sin(a)) for a in (0.0, 0.9, 1.8, 2.7, 3.6, 4.5, 5.4)]
GRID = torch.tensor([(x, y) for x in (-3.0, -1.0, 1.0, 3.0) for y in (-3.0, -1.0, 1.0, 3.0)])
NO_SCAN = Ends(torch.zeros(0, 2), torch.zeros(0))


def ended(factor: list[float], z: list[tuple[float, float]]) -> Ends:
    return Ends(torch.tensor(z), torch.tensor(factor, dtype=torch.float32))


def said_of_first(ends: Ends, scan: Ends = NO_SCAN) -> tuple[float, float]:
    """What is usual beside the first search, and what it needs."""
    usual, needed = others(ends, torch.full_like(ends.factor, 0.01), scan, USED)
    return float(usual[0]), float(needed[0])


USUAL: list[tuple[str, list[float], list[tuple[float, float]], float]] = [
    # factor below the landscape, where the outputs ended, what is usual beside the first
    ("all alike", [5, *[1.2] * 7], [(0, 0), *RING], 1.2),
    ("two in one dip", [5, 4, 1, 1, 1], [(0, 0), (0, 1), *ROW[1:4]], 1.0),
    ("one of the others is no number", [5, NO, 1, 1, 1], ROW[:5], 1.0),
    ("one of the others cost nothing", [5, math.inf, 1, 1, 1], ROW[:5], 1.0),
    ("one of the others cost too much", [5, 0, 1, 1, 1], ROW[:5], 1.0),
    ("too few others", [5, 1, 1], ROW[:3], NO),
    ("too few others apart", [5, 1, 1, 1], [(0, 0), (0, 1), *ROW[1:3]], NO),
]


@pytest.mark.parametrize(
    ("factor", "z", "wanted"), [case[1:] for case in USUAL], ids=[case[0] for case in USUAL]
)
def test_what_is_usual_is_what_the_searches_apart_say(
    factor: list[float], z: list[tuple[float, float]], wanted: float
) -> None:
    assert said_of_first(ended(factor, z))[0] == pytest.approx(wanted, nan_ok=True)


@pytest.mark.parametrize("count", [1, 2])
def test_a_few_searches_in_another_dip_say_little(count: int) -> None:
    """A model with two targets: the one does not make the other usual."""
    ends = ended([5.0] + [5.0] * count + [1.0] * (7 - count), [(0, 0), *RING])
    assert said_of_first(ends, Ends(GRID, torch.ones(len(GRID))))[0] < 1.3


def test_a_slope_is_no_dip() -> None:
    """Cheaper above, dearer below: what the landscape has not is what the others say."""
    cheaper = [math.exp(0.12 * y) for _, y in [(0.0, 3.0), *RING]]
    usual, needed = said_of_first(ended(cheaper, [(0.0, 3.0), *RING]))
    assert cheaper[0] > 1.4
    assert cheaper[0] / usual < 1.1
    assert needed == pytest.approx(USED.threshold)


def test_the_scan_says_what_lies_on_the_other_side() -> None:
    """Where the others lie on one side, and slope, they alone would think the dip usual."""
    z = [(-2.5, 0.0), *((x, y) for x in (0.5, 1.5, 2.5) for y in (-1.0, 1.0))]
    ends = ended([2.0, *(math.exp(0.2 * (2.5 - x)) for x, _ in z[1:])], z)
    alone, _ = said_of_first(ends)
    known, _ = said_of_first(ends, Ends(GRID, torch.ones(len(GRID))))
    assert alone > 1.8
    assert known < 1.6


def plainly(stages: list[Ends], place: Tensor) -> tuple[float, float]:
    """The same with every spread LEAST and the say of no residual, by NumPy in float64."""
    say = math.sqrt((FREEDOM + 1) / FREEDOM)
    stage = np.concatenate([np.full(len(ends.factor), k) for k, ends in enumerate(stages)])
    z = np.concatenate([(ends.z - place).numpy() for ends in stages])
    columns = np.column_stack([*(stage == k for k in range(len(stages))), z]) * say / LEAST
    logs = np.concatenate([ends.factor.log().numpy() for ends in stages]) * say / LEAST
    held = np.diag([0.0] * len(stages) + [1 / STEEP**2] * z.shape[1])
    covariance = np.linalg.inv(columns.T @ columns + held)
    return float((covariance @ columns.T @ logs)[0]), math.sqrt(LEAST**2 + covariance[0, 0])


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 2])
def test_where_searches_agree_it_is_a_ridge_regression(dimensions: int, count: int) -> None:
    draw = torch.Generator().manual_seed(dimensions)
    stages = []
    for size in (9, 20)[:count]:
        z = torch.randn(size, dimensions, generator=draw).double()
        noise = 1e-3 * torch.randn(size, generator=draw).double()
        stages.append(Ends(z, (0.3 / size + 0.05 * z[:, 0] + noise).exp()))
    place = torch.randn(dimensions, generator=draw).double()
    assert trend(stages, place) == pytest.approx(plainly(stages, place), rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_turned_or_moved_outputs_change_nothing(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    z, factor = torch.randn(9, 3, generator=draw).double(), torch.rand(9, generator=draw) + 0.5
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=draw).double())
    usual, deviation = trend([Ends(z, factor)], z[0])
    moved = trend([Ends(z @ turn + 5, 3 * factor)], z[0] @ turn + 5)
    assert moved == pytest.approx((usual + math.log(3), deviation), rel=1e-4)


def test_of_a_place_far_away_the_others_say_less() -> None:
    stage = Ends(torch.tensor(RING), torch.tensor([0.1, -0.1, 0.2, -0.2, 0.1, 0.0, 0.1]).exp())
    deviations = [trend([stage], torch.tensor([0.0, far]))[1] for far in (0.0, 3.0, 6.0, 12.0)]
    assert deviations == sorted(deviations)
    assert deviations[-1] > 1.5 * deviations[0]


def test_where_searches_scatter_a_score_must_be_larger() -> None:
    tight = ended([3, 1.0, 1.02, 1.0, 0.98, 1.0, 1.02, 0.98], [(0, 0), *RING])
    loose = ended([3, 1.0, 1.6, 0.7, 1.5, 0.6, 1.4, 1.0], [(0, 0), *RING])
    assert said_of_first(tight)[1] == pytest.approx(USED.threshold)
    assert said_of_first(loose)[1] > 2 * USED.threshold


def test_a_search_without_others_needs_the_threshold() -> None:
    assert said_of_first(ended([5, 1, 1], ROW[:3]))[1] == pytest.approx(USED.threshold)


@pytest.mark.parametrize(("left", "drawn"), [(0.002, True), (0.003, False), (NO, False)])
def test_scatter_does_not_explain_outputs_that_lie_far_closer_together(
    left: float, drawn: bool
) -> None:
    ends = ended([5.0, 2, 2, 1, 1, 1, 0.5, 0.5], [(0.0, 0.0), *RING])
    distance = torch.tensor([left, 0.02, 0.01, 0.01, 0.01, 0.01, 0.005, 0.01])
    _, found = others(ends, distance, NO_SCAN, USED)
    assert (float(found[0]) == pytest.approx(USED.threshold)) is drawn


def test_what_the_scan_left_is_held_against_the_landscape_alone() -> None:
    ends = Ends(torch.zeros(4, 2), torch.tensor([5.0, 2, 1, 0.5]))
    usual, needed = itself(ends, USED)
    assert (ends.factor / usual).tolist() == ends.factor.tolist()
    assert needed.tolist() == pytest.approx([USED.dip] * 4)
