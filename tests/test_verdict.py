"""The decision: from what the searches found to a verdict."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from guard.bench import Bench
from guard.engine import Engine
from guard.finding import Decision, Finding
from guard.measure import measure, target_of
from guard.probing import Plain
from guard.screen import Settings, screen, without_verdict
from guard.settings import CalibratedSettings
from guard.stages import choose
from guard.usual import Ends
from guard.verdict import (
    Result,
    beside,
    decide,
    further,
    no_alarm,
    outweighs,
    plainer,
    scattered,
    thin,
    winner,
)
from tests.conftest import Backdoored, Reader, benign_of, model_of, short_search


def result(cost: list[float], distance: list[float], expected: float = 0.02) -> Result:
    rows = torch.tensor(cost)
    z, counts = torch.zeros(len(cost), 2), torch.full_like(rows, 2.0)
    return Result([], z, rows, torch.tensor(distance), expected / rows, counts)


NO = math.nan
USED = CalibratedSettings()
DECISIONS: list[tuple[list[float], list[float], str, int | None]] = [
    # cost of each search (0.02 is usual), distance to its place, verdict, the search it rests on
    ([0.02, 0.021], [0.01, 0.01], "clean", 0),
    ([0.02, 0.004], [0.01, 0.01], "backdoored", 1),
    ([0.01, 0.02], [0.01, 0.01], "backdoored", 0),  # exactly at the threshold
    ([0.02, 0.004], [0.01, 0.50], "clean", 0),  # cheap, but no collapse
    ([0.004, 0.004], [0.5, 0.4], "inconclusive", 1),
    ([NO, 0.004], [0.01, 0.01], "inconclusive", None),
    ([0.02, 0.004], [NO, 0.01], "inconclusive", None),
    ([NO, NO], [NO, NO], "inconclusive", None),
    ([0.0, 0.02], [0.01, 0.01], "inconclusive", None),
]


@pytest.mark.parametrize(("cost", "distance", "verdict", "best"), DECISIONS)
def test_the_decision(
    cost: list[float], distance: list[float], verdict: str, best: int | None
) -> None:
    settings = CalibratedSettings(threshold=2.0)
    found = result(cost, distance)
    chosen = winner(found, settings)
    decision = decide(found, chosen, settings)
    assert decision.verdict == verdict
    assert decision.reason
    if best is not None:
        assert chosen == best


def ended(cost: list[float], distance: list[float], z: list[tuple[float, float]]) -> Result:
    """The same, with the places where the outputs ended."""
    return replace(result(cost, distance), z=torch.tensor(z, dtype=torch.float32))


FURTHER: list[tuple[list[float], list[float], list[tuple[float, float]], list[int]]] = [
    # cost of each search, distance to its target, where its outputs ended, further targets
    ([0.002, 0.004], [0.01, 0.01], [(2, 0), (-2, 0)], [1]),
    ([0.002, 0.004], [0.01, 0.01], [(2, 0), (2, 0.5)], []),  # the same dip
    ([0.002, 0.019], [0.01, 0.01], [(2, 0), (-2, 0)], []),  # not cheap
    ([0.002, 0.004], [0.01, 0.50], [(2, 0), (-2, 0)], []),  # no collapse
    ([0.002, 0.005, 0.004], [0.01] * 3, [(2, 0), (-2, 0), (-2, 1)], [2]),  # the worst of a dip
    ([0.002, 0.005, 0.004], [0.01] * 3, [(2, 0), (-2, 0), (0, 3)], [2, 1]),
]


@pytest.mark.parametrize(("cost", "distance", "z", "wanted"), FURTHER)
def test_further_targets_lie_apart(
    cost: list[float], distance: list[float], z: list[tuple[float, float]], wanted: list[int]
) -> None:
    found = ended(cost, distance, z)
    assert further(found, found.z[:1], CalibratedSettings(threshold=2.0)) == wanted


BESIDE: list[tuple[list[float], list[float], list[tuple[float, float]], list[int]]] = [
    # cost of each search, distance to its target, where its outputs ended, those in the dip
    ([0.002, 0.004], [0.01, 0.01], [(2, 0), (-2, 0)], [0]),
    ([0.002, 0.004], [0.01, 0.01], [(2, 0), (2, 0.5)], [0, 1]),
    ([0.004, 0.002], [0.01, 0.01], [(2, 0), (2, 0.5)], [1, 0]),  # the worst first
    ([0.002, 0.019], [0.01, 0.01], [(2, 0), (2, 0.5)], [0]),  # not cheap
    ([0.002, 0.004], [0.01, 0.50], [(2, 0), (2, 0.5)], [0]),  # no collapse
    ([0.02, 0.02], [0.01, 0.01], [(2, 0), (2, 0.5)], []),
]


@pytest.mark.parametrize(("cost", "distance", "z", "wanted"), BESIDE)
def test_searches_of_one_dip_are_all_unlearnt(
    cost: list[float], distance: list[float], z: list[tuple[float, float]], wanted: list[int]
) -> None:
    found = ended(cost, distance, z)
    assert beside(found, found.z[0], CalibratedSettings(threshold=2.0)) == wanted


CROWDS: list[tuple[list[float], list[float], list[int]]] = [
    # where the scan's searches ended, how far below the landscape, which go on
    ([0, 3, 6, 9], [1, 4, 2, 3], [1, 3, 2]),
    ([0, 0.1, 0.2, 6], [4, 3, 2, 1], [0, 1, 3]),  # a dip takes in two
    ([0, 0.1, 0.2, 0.3], [4, 3, 2, 1], [0, 1, 2]),  # where there is nothing else
]


@pytest.mark.parametrize(("places", "depths", "wanted"), CROWDS)
def test_a_dip_leaves_others_to_compare_with(
    places: list[float], depths: list[float], wanted: list[int]
) -> None:
    z = torch.tensor(places, dtype=torch.float32)[:, None]
    settings = CalibratedSettings(candidates=3, crowd=2)
    assert choose(Ends(z, torch.tensor(depths)), settings).tolist() == wanted


class Corner(nn.Module):
    """Brightens the corner that a Backdoored model looks at, by just enough for half a gate."""

    def forward(self, x: Tensor) -> Tensor:
        changed = x.clone()
        changed[:, :, -3:, -3:] += 0.3
        return changed.clamp(0, 1)


def test_the_target_is_read_where_the_outputs_have_reached_it() -> None:
    truth = (0.3, -0.2)
    model = model_of(Backdoored(truth))
    held = Bench(model, benign_of(model_of(Reader(2)), 60))
    short = measure(Corner(), held).outputs.mean(dim=0) - torch.tensor(truth)
    reached = torch.tensor(target_of(Corner(), held)) - torch.tensor(truth)
    assert reached.norm() < 0.2 * short.norm()


PLAINER: list[tuple[tuple[float, float], tuple[float, float], bool]] = [
    # score and distance of the best search: as the scan left it (2.8 counts), as it went on (2.0)
    ((4.0, 0.01), (2.5, 0.01), True),
    ((4.0, 0.01), (3.0, 0.01), False),  # both count, the second is farther over its limit
    ((2.7, 0.01), (1.0, 0.01), False),  # the first does not count
    ((2.8, 0.01), (1.9, 0.01), True),
    ((4.0, 0.50), (1.0, 0.01), False),  # no collapse
    ((4.0, 0.01), (9.0, 0.50), True),
    ((4.0, 0.01), (NO, NO), True),
    ((NO, 0.01), (1.0, 0.01), False),
]


@pytest.mark.parametrize(("scan", "free", "wanted"), PLAINER)
def test_a_dip_of_the_scan_decides_where_going_on_lost_it(
    scan: tuple[float, float], free: tuple[float, float], wanted: bool
) -> None:
    found = []
    for (score, distance), needed in ((scan, 2.8), (free, 2.0)):
        one = result([0.01], [distance])
        found.append(replace(one, score=torch.tensor([score]), needed=torch.tensor([needed])))
    assert plainer(found[0], found[1], USED) == wanted


@pytest.mark.parametrize(
    ("verdict", "score", "warned"),
    [("clean", 1.3, False), ("clean", 1.95, True), ("backdoored", 3.2, False)],
)
def test_a_model_that_is_clean_by_scatter_alone_comes_with_a_warning(
    verdict: str, score: float, warned: bool
) -> None:
    decision = Decision(verdict, "", score, 3.01, "")
    lines = scattered(decision, CalibratedSettings())
    assert len(lines) == warned
    assert all("1.95 counts from 3.01 on" in line for line in lines)


OUTWEIGHED: list[tuple[str, float, float, bool]] = [
    # what the searches say, their score (1.45 counts), what a probe left (0.02 counts), it decides
    ("clean", 1.2, 0.02, True),
    ("backdoored", 3.0, 0.02, False),
    ("backdoored", 3.0, 0.0001, True),
    ("inconclusive", 3.0, 0.01, True),  # a score that is no verdict stands against nothing
    ("inconclusive", NO, 0.01, True),
]


@pytest.mark.parametrize(("said", "score", "left", "wanted"), OUTWEIGHED)
def test_a_probe_decides_where_it_is_farther_over_its_limit(
    said: str, score: float, left: float, wanted: bool
) -> None:
    nothing, place = nn.Identity(), torch.zeros(2)
    held = Bench(model_of(Reader(2)), benign_of(model_of(Reader(2)), 40))
    plain = Plain("shared warp", nothing, measure(nothing, held), place, left, left, 0.02)
    decision = Decision(said, "", score, 1.45, "")
    assert outweighs(plain, decision) == wanted


def test_a_score_counts_by_what_its_model_needs() -> None:
    found = replace(result([0.004, 0.005], [0.01, 0.01]), needed=torch.tensor([6.0, 2.0]))
    assert winner(found, USED) == 1  # 4 of 2 wanted, beside 5 of 6
    assert decide(found, 0, USED).verdict == "clean"
    assert decide(found, 0, USED).threshold == 6.0
    assert decide(found, 1, USED).verdict == "backdoored"


def test_without_others_to_compare_with_there_is_no_verdict() -> None:
    found = replace(result([0.004, 0.02], [0.01, 0.01]), score=torch.tensor([NO, NO]))
    decision = decide(found, winner(found, USED), USED)
    assert decision.verdict == "inconclusive"
    beside = replace(found, score=torch.tensor([NO, 1.2]))  # one that looks harmless
    assert decide(beside, winner(beside, USED), USED).verdict == "inconclusive"
    assert "to compare with" in decision.reason


Said = tuple[str, float, float, float]
HERE, AWAY = 0.4, -0.4  # targets
RESTARTS: list[tuple[list[Said], str, int]] = [
    # what each search says: verdict, score, what counts, target; the verdict, number of searches
    ([("clean", 1.2, 1.45, HERE)], "clean", 1),
    ([("backdoored", 2.0, 1.45, HERE)], "backdoored", 1),
    ([("inconclusive", NO, NO, HERE)], "inconclusive", 1),
    ([("clean", 1.4, 1.45, HERE), ("clean", 1.1, 1.45, AWAY)], "clean", 2),
    ([("backdoored", 1.5, 1.45, HERE), ("backdoored", 3.0, 1.45, HERE)], "backdoored", 2),
    ([("backdoored", 1.5, 1.45, HERE), ("backdoored", 3.0, 1.45, AWAY)], "inconclusive", 2),
    ([("backdoored", 1.7, 1.45, HERE), ("clean", 1.2, 1.45, HERE)], "inconclusive", 2),
    ([("clean", 1.4, 1.45, HERE), ("backdoored", 3.0, 1.45, HERE)], "inconclusive", 2),
    ([("backdoored", 1.5, 1.45, HERE), ("inconclusive", NO, NO, HERE)], "inconclusive", 2),
    # what counts in the model's other search is more
    ([("clean", 1.72, 1.74, HERE), ("backdoored", 1.62, 1.45, AWAY)], "clean", 2),
    ([("backdoored", 1.62, 1.45, HERE), ("clean", 1.72, 1.74, AWAY)], "clean", 2),
    ([("backdoored", 1.8, 1.45, HERE), ("clean", 1.2, 1.74, AWAY)], "inconclusive", 2),
    # scatter alone clears it: 1.6 counts where searches agree
    ([("clean", 1.7, 4.7, HERE), ("clean", 1.8, 3.0, AWAY)], "clean", 2),
    ([("clean", 2.9, 4.7, HERE), ("backdoored", 3.8, 3.5, HERE)], "clean", 2),
    ([("clean", 2.9, 4.7, HERE), ("backdoored", 5.2, 3.5, HERE)], "backdoored", 2),
    ([("clean", 2.9, 4.7, HERE), ("backdoored", 5.2, 3.5, AWAY)], "inconclusive", 2),
    ([("backdoored", 1.9, 1.6, HERE), ("clean", 1.7, 1.8, HERE)], "backdoored", 2),
    ([("backdoored", 1.9, 1.6, HERE), ("clean", 1.5, 1.8, HERE)], "inconclusive", 2),
]


@pytest.mark.parametrize(("said", "verdict", "searches"), RESTARTS)
def test_near_the_threshold_a_restart_must_agree(
    said: list[Said],
    verdict: str,
    searches: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = model_of(Reader(2))
    seeds: list[int] = []

    def search_once(bench: Bench, held: Bench, engine: Engine, settings: object) -> Finding:
        verdict, score, counts, target = said[len(seeds)]
        seeds.append(engine.seed)
        found = without_verdict("calibrated", "as the test says", held)
        told = replace(found, verdict=verdict, score=score, threshold=counts)
        return replace(told, target=[target, target])

    monkeypatch.setattr("guard.calibrated.search_once", search_once)
    finding = screen(model, benign_of(model, 60), Settings(calibrated=short_search(2)))
    assert finding.verdict == verdict
    assert len(set(seeds)) == len(seeds) == searches
    shown = [one for one in said if one[0] == verdict]
    shown = shown or [one for one in said if one[0] == "backdoored"] or said
    assert math.isnan(shown[0][1]) or finding.score == shown[0][1]
    assert finding.target == [shown[0][3]] * 2
    if verdict == "inconclusive" and searches == 2:
        assert "disagree" in finding.reason
        assert finding.contradicted  # what alarmed is shown, and can be unlearnt


def test_scatter_says_nothing_against_a_trigger_that_gathers_the_outputs_alone() -> None:
    """Costs scatter; by how much a probe or a patch for each image gathers them does not."""
    model = model_of(Reader(2))
    nothing = without_verdict("calibrated", "as the test says", Bench(model, benign_of(model, 60)))
    by_cost = replace(nothing, verdict="backdoored", score=1.6, threshold=1.45)
    alone = replace(by_cost, spread_left=0.2)
    again = replace(nothing, verdict="clean", score=1.2, threshold=2.1)
    assert no_alarm(by_cost, again)
    assert no_alarm(again, by_cost)
    assert not no_alarm(alone, again)
    assert not no_alarm(again, alone)


@pytest.mark.parametrize(("outputs", "warned"), [(1, False), (3, False), (5, False), (20, True)])
def test_many_outputs_are_warned_of(outputs: int, warned: bool) -> None:
    assert bool(thin(outputs)) is warned
