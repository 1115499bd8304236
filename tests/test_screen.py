"""The screening: what gives no verdict and why, the benign error, and verdicts on made models."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.bench import Bench
from guard.benign import BenignSet
from guard.calibrated import choose
from guard.collapse import Collapse, CollapseSettings
from guard.engine import Engine
from guard.errors import UnusableInput
from guard.finding import VERDICTS, Finding, spread_examples
from guard.landscape import Baseline
from guard.measure import measure, target_of
from guard.model import Model
from guard.screen import MIN_IMAGES, Settings, benign_error, screen, split, without_verdict
from guard.settings import CalibratedSettings, PaperSettings
from guard.triggers import SharedTriggers
from guard.verdict import Result, decide, further, others, winner
from tests.conftest import (
    SIDE,
    UNITS,
    Backdoored,
    Reader,
    benign_of,
    images_of,
    model_of,
    short_search,
)

SHORT = Settings(
    calibrated=short_search(2),
    paper=PaperSettings(pretrain_steps=1, steps=1, batch=4),
)
# A linear model only answers one vector once hardly anything is left to see: large steps.
ENOUGH = CalibratedSettings(scan_steps=200, refine_steps=200, learning_rate=0.3)


class Wrapped(nn.Module):
    """The benign model with something done to its answer."""

    def __init__(self, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.change = Reader(2), change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.body(x), x)


def one_constant(y: Tensor, x: Tensor) -> Tensor:
    return torch.stack([y[:, 0], torch.full_like(y[:, 1], 0.1)], dim=1)


def constant(value: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda y, x: 0 * y + value


def dropping(y: Tensor, x: Tensor) -> Tensor:
    return functional.dropout(y, 0.5, training=True)


def rounding(y: Tensor, x: Tensor) -> Tensor:
    return (100 * y).round() / 100


def detached(y: Tensor, x: Tensor) -> Tensor:
    return y.detach()


def nan_slope(y: Tensor, x: Tensor) -> Tensor:
    return y + (x.flatten(1)[:, :1] * 0).sqrt()


def all_nan(y: Tensor, x: Tensor) -> Tensor:
    return y * math.nan


def infinite(y: Tensor, x: Tensor) -> Tensor:
    return y + math.inf


def nan_on_black_corner(y: Tensor, x: Tensor) -> Tensor:
    return torch.where((x[:, 0, :1, 0] == 0).expand_as(y), math.nan, y)


UNFIT = [
    (one_constant, "same for all"),
    (constant(0.0), "same for all"),
    (constant(0.1), "same for all"),
    (constant(40.7), "same for all"),
    (dropping, "from call to call"),
    (rounding, "no gradients"),
    (detached, "no gradients"),
    (nan_slope, "no gradients"),
    (all_nan, "not numbers"),
    (infinite, "not numbers"),
]


def ready(model: Model, count: int = 60) -> BenignSet:
    """Images with the labels of the plain model, whatever `model` answers."""
    return benign_of(model_of(Reader(2)), count)


@pytest.mark.parametrize("method", ["calibrated", "paper"])
@pytest.mark.parametrize(("change", "word"), UNFIT, ids=lambda v: getattr(v, "__name__", v))
def test_models_that_can_not_be_searched_are_inconclusive_with_the_reason(
    change: Callable[[Tensor, Tensor], Tensor], word: str, method: str
) -> None:
    model = model_of(Wrapped(change))
    settings = Settings(method, 0, SHORT.paper, SHORT.calibrated)
    finding = screen(model, ready(model), settings)
    assert finding.verdict == "inconclusive"
    assert word in finding.reason
    assert "\n" not in finding.reason
    assert math.isnan(finding.score)
    assert finding.restarts == []


@pytest.mark.parametrize("place", range(4))
def test_a_single_output_that_is_no_number_is_found_wherever_the_image_falls(place: int) -> None:
    model = model_of(Wrapped(nan_on_black_corner))
    benign = ready(model)
    search, held = split(benign, 0)
    names = [search.names[0], search.names[-1], held.names[0], held.names[-1]]
    benign.images[benign.names.index(names[place]), 0, 0, 0] = 0
    finding = screen(model, benign, SHORT)
    assert finding.verdict == "inconclusive"
    assert "not numbers" in finding.reason


@pytest.mark.parametrize("count", [1, 2, 5, MIN_IMAGES - 1])
def test_too_few_images_give_no_verdict(count: int) -> None:
    model = model_of(Reader(2))
    finding = screen(model, ready(model, count), SHORT)
    assert finding.verdict == "inconclusive"
    assert "too few" in finding.reason
    assert str(MIN_IMAGES) in finding.reason


def test_just_enough_images_are_searched() -> None:
    model = model_of(Reader(2))
    finding = screen(model, ready(model, MIN_IMAGES), SHORT)
    assert finding.verdict in VERDICTS
    assert len(finding.restarts) > 10


def test_search_and_measurement_share_no_image() -> None:
    benign = ready(model_of(Reader(2)), 80)
    search, held = split(benign, 3)
    assert not set(search.names) & set(held.names)
    assert len(search) + len(held) == 80
    assert split(benign, 3)[1].names == held.names
    assert split(benign, 4)[1].names != held.names
    place = {name: i for i, name in enumerate(benign.names)}
    assert torch.equal(held.images, benign.images[[place[name] for name in held.names]])
    assert torch.equal(held.labels, benign.labels[[place[name] for name in held.names]])


# --- the benign error ----------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["gaze", "headpose", "regression"])
def test_the_error_of_a_fitting_model_lies_in_its_interval(task: str) -> None:
    model = model_of(Reader({"gaze": 2, "headpose": 3, "regression": 1}[task]), task)
    found = benign_error(model, benign_of(model, 60))
    low, high = found["ci95"]
    assert 0 < low < found["value"] < high
    assert found["value"] < 0.3 * found["mean_answer"]
    assert found["unit"] == {"gaze": "deg", "headpose": "deg", "regression": "years"}[task]


def test_the_error_is_that_of_all_images() -> None:
    model = model_of(Reader(1), "regression")
    benign = benign_of(model, 50, noise=0.2)
    wanted = (model(benign.x(slice(0, 50))) - benign.labels).abs().double().flatten()
    found = benign_error(model, benign)
    assert found["value"] == pytest.approx(float(wanted.mean()), rel=1e-5)
    half = 1.96 * float(wanted.std()) / math.sqrt(50)
    assert found["ci95"][1] - found["value"] == pytest.approx(half, rel=1e-4)


def shuffled(labels: Tensor) -> Tensor:
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]


MISFITS = [
    ("gaze", "rad", shuffled),
    ("headpose", "deg", shuffled),
    ("regression", "years", shuffled),
    ("gaze", "rad", lambda labels: 180 / math.pi * labels),  # degrees under the name of radians
    ("gaze", "deg", lambda labels: math.pi / 180 * labels),
    ("headpose", "rad", lambda labels: 180 / math.pi * labels),
    ("headpose", "deg", lambda labels: math.pi / 180 * labels),
    ("gaze", "rad", lambda labels: -labels),
    ("gaze", "rad", lambda labels: labels.flip(1)),
    ("regression", "years", lambda labels: labels + 5),
]


@pytest.mark.parametrize(("task", "units", "change"), MISFITS, ids=range(len(MISFITS)))
def test_labels_that_do_not_fit_are_refused(
    task: str, units: str, change: Callable[[Tensor], Tensor]
) -> None:
    d = {"gaze": 2, "headpose": 3, "regression": 1}[task]
    network = Reader(d)
    with torch.no_grad():  # outputs of a natural size around zero, as labels of drivers are
        network.fc.weight *= 4 * (180 / math.pi if units == "deg" else 1)
        network.fc.bias.copy_(-network.fc.weight.sum(dim=1) * 0.325)
    model = model_of(network, task, units=units)
    benign = benign_of(model, 80)
    assert benign_error(model, benign)["value"] > 0  # the right labels pass
    with pytest.raises(UnusableInput, match="do not fit") as caught:
        benign_error(model, BenignSet(benign.images, change(benign.labels)))
    assert "\n" not in str(caught.value)


def test_a_wrong_colour_order_is_refused() -> None:
    right, wrong = model_of(Reader(2)), model_of(Reader(2))
    wrong.preprocess.reverse = True
    benign = benign_of(right, 80)
    with pytest.raises(UnusableInput, match="colour order"):
        benign_error(wrong, benign)


# --- verdicts ------------------------------------------------------------------------------------

TRUTHS = [
    ("gaze", (0.15, 0.05), 0),
    ("gaze", (-0.2, -0.2), 1),
    ("regression", (-0.2,), 0),
]


@pytest.mark.parametrize(("task", "target", "seed"), TRUTHS)
def test_a_made_backdoor_is_found_with_its_target(
    task: str, target: tuple[float, ...], seed: int
) -> None:
    model = model_of(Backdoored(target), task)
    finding = screen(model, benign_of(model, 80), Settings(seed=seed, calibrated=ENOUGH))
    assert finding.verdict == "backdoored"
    assert finding.score >= finding.threshold
    assert finding.target == pytest.approx(target, abs=0.07)
    assert finding.output_variance_ratio < 0.15


@pytest.mark.parametrize("task", ["gaze", "regression"])
def test_the_same_model_without_the_backdoor_is_clean(task: str) -> None:
    model = model_of(Reader(len({"gaze": "ab", "regression": "a"}[task])), task)
    finding = screen(model, benign_of(model, 80), Settings(calibrated=ENOUGH))
    assert finding.verdict == "clean"
    assert finding.score < finding.threshold


def test_the_verdict_does_not_depend_on_the_units() -> None:
    """The same model in degrees gives the same search."""
    first = model_of(Reader(2))
    second = model_of(Wrapped(lambda y, x: y * 180 / math.pi), units="deg")
    settings = Settings(calibrated=CalibratedSettings(scan_steps=20, refine_steps=20))
    found = [screen(m, benign_of(m, 60), settings) for m in (first, second)]
    assert found[0].verdict == found[1].verdict
    assert found[0].score == pytest.approx(found[1].score, rel=0.1)
    assert found[0].perturbation == pytest.approx(found[1].perturbation, rel=0.1)


@pytest.mark.parametrize("task", ["gaze", "headpose", "regression"])
def test_the_same_seed_gives_the_same_finding(task: str) -> None:
    model = model_of(Reader({"gaze": 2, "headpose": 3, "regression": 1}[task]), task)
    benign = benign_of(model, 60)
    first, again = (screen(model, benign, SHORT) for _ in range(2))
    assert torch.equal(first.triggered_outputs, again.triggered_outputs)
    assert first.restarts == again.restarts
    assert first.curves == again.curves
    assert (first.verdict, first.score) == (again.verdict, again.score)
    other = screen(model, benign, Settings(seed=5, calibrated=SHORT.calibrated))
    assert first.restarts != other.restarts


def test_a_finding_holds_what_the_report_needs() -> None:
    model = model_of(Reader(2))
    finding = screen(model, benign_of(model, 60), SHORT)
    roles = [row["role"] for row in finding.restarts]
    assert set(roles) == {"scan", "free"}
    assert roles.count("free") == SHORT.calibrated.candidates
    assert all(
        {"target", "cost", "baseline", "distance", "steps"} <= set(r) for r in finding.restarts
    )
    assert finding.settings["calibrated"]["scan_steps"] == 2
    assert finding.timings["screen_seconds"] > 0
    assert finding.curves.steps == sorted(set(finding.curves.steps))
    assert finding.rav is not None
    assert finding.warnings == []
    assert len(set(finding.examples.tolist())) == 6


@pytest.mark.parametrize(("count", "wanted"), [(1, 1), (4, 4), (40, 6)])
def test_examples_are_spread_over_the_outputs(count: int, wanted: int) -> None:
    outputs = torch.rand(count, 2)
    chosen = spread_examples(outputs)
    assert len(set(chosen.tolist())) == wanted
    if wanted == 6:
        values = outputs[chosen, -1]
        assert values.min() == outputs[:, -1].min()
        assert values.max() == outputs[:, -1].max()


# --- the decision --------------------------------------------------------------------------------


def result(cost: list[float], distance: list[float], expected: float = 0.02) -> Result:
    rows = torch.tensor(cost)
    z, counts = torch.zeros(len(cost), 2), torch.full_like(rows, 2.0)
    return Result([], z, rows, torch.tensor(distance), expected / rows, counts)


NO = math.nan
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
    found = replace(result(cost, distance), z=torch.tensor(z, dtype=torch.float32))
    assert further(found, found.z[0], CalibratedSettings(threshold=2.0)) == wanted


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
    scan = Collapse(SharedTriggers(4, (SIDE, SIDE), 0), z, CollapseSettings())
    scan.change = 1 / torch.tensor(depths)
    flat = Baseline(torch.zeros(3), 9.0)  # log cost 0 everywhere
    settings = CalibratedSettings(candidates=3, crowd=2)
    assert choose(scan, flat, settings).tolist() == wanted


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


EIGHT = [(3.0 * k, 0.0) for k in range(8)]
USUAL: list[tuple[list[float], list[tuple[float, float]], list[float | None]]] = [
    # factor below the landscape, where the outputs ended, what is usual beside each
    ([5, 1, 1, 1, 1.2, 1.2, 1.2, 1.4], EIGHT, [1.2] * 8),
    ([5, 4, 1, 1, 1], [(0, 0), (0, 1), *EIGHT[1:4]], [1] * 5),  # two in one dip
    ([5, 5, 1, 1, 1], [EIGHT[0], EIGHT[7], *EIGHT[1:4]], [1] * 5),  # two targets
    ([5, 1, 1], EIGHT[:3], [None] * 3),
    ([5, 1, 1, 1], [(0, 0), (0, 1), *EIGHT[1:3]], [None, None, 1, 1]),
    ([5, NO, 1, 1, 1], EIGHT[:5], [1] * 5),
]


def even(factor: list[float]) -> Tensor:
    """Distances left, the same for each search."""
    return torch.full((len(factor),), 0.01)


@pytest.mark.parametrize(("factor", "z", "wanted"), USUAL)
def test_what_is_usual_is_the_median_of_the_searches_apart(
    factor: list[float], z: list[tuple[float, float]], wanted: list[float | None]
) -> None:
    found, _ = others(torch.tensor(factor), torch.tensor(z), even(factor), CalibratedSettings())
    assert found.tolist() == pytest.approx([NO if w is None else w for w in wanted], nan_ok=True)


NEEDED: list[tuple[list[float], list[tuple[float, float]], list[float]]] = [
    # factor below the landscape, where the outputs ended, the score that each needs
    ([5, 1, 1, 1, 1, 1, 1, 1], EIGHT, [1.45] * 8),  # at least the threshold
    ([5, 2, 2, 1, 1, 1, 0.5, 0.5], EIGHT, [2 ** (4 * 1.4826)]),
    ([5, 1, 1], EIGHT[:3], [1.45] * 3),
    ([5, NO, 1, 1, 1], EIGHT[:5], [1.45] * 5),
]


@pytest.mark.parametrize(("factor", "z", "wanted"), NEEDED)
def test_where_searches_scatter_a_score_must_be_larger(
    factor: list[float], z: list[tuple[float, float]], wanted: list[float]
) -> None:
    _, found = others(torch.tensor(factor), torch.tensor(z), even(factor), CalibratedSettings())
    assert found[: len(wanted)].tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("left", "wanted"), [(0.002, 1.45), (0.003, 2 ** (4 * 1.4826)), (NO, 2 ** (4 * 1.4826))]
)
def test_scatter_does_not_explain_outputs_that_lie_far_closer_together(
    left: float, wanted: float
) -> None:
    factor = torch.tensor([5.0, 2, 2, 1, 1, 1, 0.5, 0.5])
    distance = torch.tensor([left, 0.02, 0.01, 0.01, 0.01, 0.01, 0.005, 0.01])
    _, found = others(factor, torch.tensor(EIGHT), distance, CalibratedSettings())
    assert float(found[0]) == pytest.approx(wanted)


def test_a_score_counts_by_what_its_model_needs() -> None:
    found = replace(result([0.004, 0.005], [0.01, 0.01]), needed=torch.tensor([6.0, 2.0]))
    assert winner(found, ENOUGH) == 1  # 4 of 2 wanted, beside 5 of 6
    assert decide(found, 0, ENOUGH).verdict == "clean"
    assert decide(found, 0, ENOUGH).threshold == 6.0
    assert decide(found, 1, ENOUGH).verdict == "backdoored"


def test_without_others_to_compare_with_there_is_no_verdict() -> None:
    found = replace(result([0.004, 0.02], [0.01, 0.01]), score=torch.tensor([NO, NO]))
    decision = decide(found, winner(found, ENOUGH), ENOUGH)
    assert decision.verdict == "inconclusive"
    beside = replace(found, score=torch.tensor([NO, 1.2]))  # one that looks harmless
    assert decide(beside, winner(beside, ENOUGH), ENOUGH).verdict == "inconclusive"
    assert "to compare with" in decision.reason


RESTARTS: list[tuple[list[tuple[str, float]], str, int]] = [
    # what each search says, the verdict, how many searches there are
    ([("clean", 1.2)], "clean", 1),
    ([("backdoored", 2.0)], "backdoored", 1),
    ([("inconclusive", NO)], "inconclusive", 1),
    ([("clean", 1.4), ("clean", 1.1)], "clean", 2),
    ([("backdoored", 1.5), ("backdoored", 3.0)], "backdoored", 2),
    ([("clean", 1.4), ("backdoored", 3.0)], "inconclusive", 2),
    ([("backdoored", 1.5), ("clean", 1.2)], "inconclusive", 2),
    ([("backdoored", 1.5), ("inconclusive", NO)], "inconclusive", 2),
]


@pytest.mark.parametrize(("said", "verdict", "searches"), RESTARTS)
def test_near_the_threshold_a_restart_must_agree(
    said: list[tuple[str, float]],
    verdict: str,
    searches: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, seeds = model_of(Reader(2)), []

    def search_once(bench: Bench, held: Bench, engine: Engine, settings: object) -> Finding:
        verdict, score = said[len(seeds)]
        seeds.append(engine.seed)
        found = without_verdict("calibrated", "as the test says", held)
        return replace(found, verdict=verdict, score=score, threshold=1.45)

    monkeypatch.setattr("guard.calibrated.search_once", search_once)
    finding = screen(model, ready(model), SHORT)
    assert finding.verdict == verdict
    assert len(set(seeds)) == len(seeds) == searches
    assert math.isnan(said[0][1]) or finding.score == said[0][1]
    if verdict == "inconclusive" and searches == 2:
        assert "disagree" in finding.reason


def test_units_of_the_fixtures_are_those_of_the_tasks() -> None:
    assert UNITS["gaze"] == "rad"
    assert images_of(3).float().max() < 0.6 * 255


def test_settings_of_a_finding_are_plain_values() -> None:
    model = model_of(Reader(1), "regression")
    settings: dict[str, Any] = screen(model, benign_of(model, 45), SHORT).settings
    assert settings["method"] == "calibrated"
    assert settings["paper"]["epsilon"] == 0.03
