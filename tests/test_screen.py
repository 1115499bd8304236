"""The screening: what gives no verdict and why, the benign error, and verdicts on made models."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.benign import BenignSet
from guard.errors import UnusableInput
from guard.finding import VERDICTS, spread_examples
from guard.model import Model
from guard.screen import MIN_IMAGES, Settings, benign_error, screen, split
from tests.conftest import (
    UNITS,
    Backdoored,
    Reader,
    benign_of,
    images_of,
    model_of,
    short_search,
)
from tests.screen_files import ENOUGH, SHORT


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
    (all_nan, "outputs that are not numbers on benign images"),
    (infinite, "outputs that are not numbers on benign images"),
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


def steep(y: Tensor, x: Tensor) -> Tensor:
    """An angle by asin, as head pose models have it: no number beyond 1, where searches lead."""
    return torch.stack([y[:, 0], torch.asin(y[:, 1])], dim=1)


def test_gradients_that_are_no_numbers_end_without_a_verdict() -> None:
    """And not in grid_sample, which crashes on them."""
    model = model_of(Wrapped(steep))
    finding = screen(model, ready(model, 80), Settings(calibrated=ENOUGH))
    assert finding.verdict == "inconclusive"
    assert "values that are not numbers" in finding.reason


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
    settings = Settings(calibrated=short_search(20))
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


def test_wrong_labels_change_no_verdict() -> None:
    """The search looks at images and answers alone."""
    model = model_of(Reader(2))
    right = benign_of(model, 60)
    wrong = right.labels.clone()
    wrong[:3] = wrong[:3].flip(0) + 0.2
    found = [screen(model, BenignSet(right.images, y), SHORT) for y in (right.labels, wrong)]
    assert found[0].restarts == found[1].restarts
    assert torch.equal(found[0].triggered_outputs, found[1].triggered_outputs)


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


@pytest.mark.parametrize("deep", [True, False])
def test_the_scan_decides_where_a_dip_is_deep(deep: bool) -> None:
    model = model_of(Backdoored((0.3, -0.2)))
    dip = 1e-3 if deep else math.inf
    changed = replace(SHORT.calibrated, dip=dip, collapsed=math.inf, confirm=1.0)
    finding = screen(model, benign_of(model, 60), replace(SHORT, calibrated=changed))
    steps = changed.scan_steps + (0 if deep else changed.refine_steps)
    assert finding.curves.steps[-1] == steps - 1
    assert (finding.threshold == pytest.approx(dip)) == deep
    assert len(finding.restarts) == 23 + 4 + changed.candidates  # the same evidence


@pytest.mark.parametrize(("count", "wanted"), [(1, 1), (4, 4), (40, 6)])
def test_examples_are_spread_over_the_outputs(count: int, wanted: int) -> None:
    outputs = torch.rand(count, 2)
    chosen = spread_examples(outputs)
    assert len(set(chosen.tolist())) == wanted
    if wanted == 6:
        values = outputs[chosen, -1]
        assert values.min() == outputs[:, -1].min()
        assert values.max() == outputs[:, -1].max()


def test_units_of_the_fixtures_are_those_of_the_tasks() -> None:
    assert UNITS["gaze"] == "rad"
    assert images_of(3).float().max() < 0.6 * 255


def test_settings_of_a_finding_are_plain_values() -> None:
    model = model_of(Reader(1), "regression")
    settings: dict[str, Any] = screen(model, benign_of(model, 45), SHORT).settings
    assert settings["method"] == "calibrated"
    assert settings["paper"]["epsilon"] == 0.03
