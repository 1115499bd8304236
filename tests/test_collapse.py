"""The calibrated objective: the spread, the reach of a target, what a place usually costs."""

import pytest
import torch

from guard.bench import Bench
from guard.collapse import Collapse, CollapseSettings, mean_size, spread
from guard.landscape import Baseline, target_grid
from guard.space import OutputSpace
from guard.triggers import SharedTriggers
from tests.conftest import SIDE, Reader, benign_of, model_of

# targets, place, reach, wanted: squared distance beyond the reach, an output
OFF = [
    ((0.0, 0.0), (0.0, 0.0), 0.0, 0.0),
    ((0.0, 0.0), (3.0, 4.0), 0.0, 12.5),
    ((0.0, 0.0), (3.0, 4.0), 1.0, 8.0),
    ((1.0, 1.0), (1.3, 1.0), 0.5, 0.0),
]


def searches(targets: torch.Tensor, reach: float = 0.0, fit: Baseline | None = None) -> Collapse:
    triggers = SharedTriggers(len(targets), (SIDE, SIDE), 0)
    return Collapse(triggers, targets, CollapseSettings(), reach, fit)


@pytest.mark.parametrize(("target", "place", "reach", "wanted"), OFF)
def test_only_what_lies_beyond_the_reach_counts(
    target: tuple[float, float], place: tuple[float, float], reach: float, wanted: float
) -> None:
    found = searches(torch.tensor([target]), reach).off(torch.tensor([place]))
    assert float(found) == pytest.approx(wanted, abs=1e-3)


def test_at_its_target_a_search_has_a_slope() -> None:
    place = torch.zeros(1, 2, requires_grad=True)
    searches(torch.zeros(1, 2)).off(place).backward()
    assert place.grad is not None
    assert bool(torch.isfinite(place.grad).all())


@pytest.mark.parametrize("batch", [2, 5, 50])
def test_the_spread_does_not_depend_on_the_number_of_images(batch: int) -> None:
    z = torch.randn(4000, batch, 2, generator=torch.Generator().manual_seed(0))
    assert float(spread(z).mean()) == pytest.approx(1.0, abs=0.05)


def test_the_spread_of_one_image_is_none() -> None:
    assert spread(torch.rand(3, 1, 2)).tolist() == [0.0] * 3


def test_the_size_of_changes_is_their_mean_and_has_its_slope() -> None:
    changes = torch.randn(3, 4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    changes[0, 0] = 0.0
    changes.requires_grad_(True)
    made = mean_size(changes)
    exact = changes.detach().numpy().astype("float64")
    assert made.tolist() == pytest.approx(abs(exact).mean(axis=(1, 2, 3, 4)).tolist(), rel=1e-5)
    made.sum().backward()
    assert changes.grad is not None
    assert torch.allclose(changes.grad, changes.detach().sign() / changes[0].numel())


def test_a_change_counts_by_what_its_place_usually_costs() -> None:
    z = target_grid(2)
    fit = Baseline.fit(z, 0.05 * torch.exp(0.3 * z.norm(dim=1)))
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    places = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    usual = searches(targets, 0.5, fit).usual(places)
    assert usual.tolist() == pytest.approx([1.0, 1.35], rel=0.02)
    assert searches(targets).usual(places).tolist() == [1.0, 1.0]


def test_beyond_the_farthest_target_the_landscape_says_no_more() -> None:
    z = target_grid(2)
    fit = Baseline.fit(z, 0.05 * torch.exp(0.3 * z.norm(dim=1)))
    costs = fit.cost(torch.tensor([[3.1, 0.0], [9.0, 0.0]]))
    assert float(costs[1]) == pytest.approx(float(costs[0]), rel=1e-3)


def test_searches_go_on_from_where_their_outputs_fall() -> None:
    model = model_of(Reader(2))
    bench = Bench(model, benign_of(model, 40))
    space = OutputSpace.of(bench.outputs)
    scan = searches(target_grid(2), 0.5)
    scan.objective(bench, space, torch.arange(8))
    fit = Baseline.fit(scan.places, scan.change)
    on = scan.continued(torch.tensor([3, 7]), 0.7, fit)
    assert torch.equal(on.targets, scan.places[[3, 7]])
    assert not torch.equal(on.targets, scan.targets[[3, 7]])
    assert torch.equal(on.triggers.pattern, scan.triggers.pattern[[3, 7]])
    assert (on.reach, on.landscape) == (0.7, fit)
