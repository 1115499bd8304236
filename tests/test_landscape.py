"""The output space and the landscape of costs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from guard.landscape import Baseline, target_grid
from guard.space import OutputSpace

quick = settings(max_examples=40, deadline=None)
SEEDS = st.integers(0, 10_000)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_grid_reaches_from_the_mean_output_to_beyond_the_labels(d: int) -> None:
    grid = target_grid(d)
    lengths = grid.norm(dim=1)
    assert grid.shape == (len(grid), d)
    assert 10 <= len(grid) <= 50
    assert float(lengths.min()) == 0.0
    assert float(lengths.max()) > 2.5
    assert torch.equal(grid, target_grid(d))


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_grid_points_keep_apart_and_balance_around_the_mean(d: int) -> None:
    grid = target_grid(d)
    apart = torch.cdist(grid, grid) + 9 * torch.eye(len(grid))
    assert float(apart.min()) > 0.3
    assert float(grid.mean(dim=0).norm()) < 0.3


def costs(z: Tensor, a: float, b: float, c: Tensor) -> Tensor:
    return (a + b * z.norm(dim=1) + z @ c).exp()


@quick
@given(seed=SEEDS, d=st.sampled_from([1, 2, 3, 5]))
def test_fit_recovers_the_coefficients(seed: int, d: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    a, b = (float(v) for v in torch.randn(2, generator=draw))
    c, z = 0.3 * torch.randn(d, generator=draw), target_grid(d)
    fitted = Baseline.fit(z, costs(z, a, b, c))
    wanted = torch.tensor([a, b, *c.tolist()])
    assert torch.allclose(fitted.coefficients[: 2 + d], wanted, atol=1e-3)
    assert float(fitted.coefficients[2 + d :].abs().sum()) < 1e-3
    assert torch.allclose(fitted.cost(z), costs(z, a, b, c), rtol=2e-3)


@pytest.mark.parametrize("d", [2, 3])
def test_fit_follows_an_axis_that_is_cheap_both_ways(d: int) -> None:
    z = target_grid(d)
    along = z[:, 0].square() / z.norm(dim=1).clamp_min(1e-6)
    seen = costs(z, -4.0, 0.5, torch.zeros(d)) * (-0.4 * along).exp()
    left = (Baseline.fit(z, seen).cost(z) / seen).log().abs()
    assert float(left.max()) < 0.1


@quick
@given(seed=SEEDS, d=st.sampled_from([1, 2, 3]), depth=st.floats(2, 20))
def test_fit_ignores_a_minority_of_dips(seed: int, d: int, depth: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    z, c = target_grid(d), 0.2 * torch.randn(d, generator=draw)
    true = costs(z, -4.0, 0.4, c)
    dipped = torch.randperm(len(z), generator=draw)[: 2 if d == 1 else 3]
    seen = true.clone()
    seen[dipped] /= depth
    ratio = Baseline.fit(z, seen).cost(z) / true
    assert 0.75 < float(ratio.median()) < 1.25
    # So the dips stand out from the fit.
    assert float((Baseline.fit(z, seen).cost(z) / seen)[dipped].max()) > 0.6 * depth


@quick
@given(seed=SEEDS, factor=st.floats(0.01, 100))
def test_fit_scales_with_the_costs(seed: int, factor: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    z = target_grid(2)
    seen = costs(z, -4.0, 0.3, torch.zeros(2)) * (0.3 * torch.randn(len(z), generator=draw)).exp()
    first, second = Baseline.fit(z, seen).cost(z), Baseline.fit(z, factor * seen).cost(z)
    assert torch.allclose(second, factor * first, rtol=0.02)


def outputs_of(seed: int, d: int, n: int = 60) -> Tensor:
    """Correlated outputs around a mean of their own."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.eye(d) + 0.2 * torch.randn(d, d, generator=draw)
    mean = torch.randn(d, generator=draw)
    return torch.randn(n, d, generator=draw) @ mix + mean


@quick
@given(seed=SEEDS, d=st.integers(1, 4))
def test_whitened_outputs_have_mean_0_and_unit_covariance(seed: int, d: int) -> None:
    y = outputs_of(seed, d)
    z = OutputSpace.of(y).z(y)
    assert torch.allclose(z.mean(dim=0), torch.zeros(d), atol=1e-3)
    assert torch.allclose(z.T @ z / len(z), torch.eye(d), atol=2e-3)


@quick
@given(seed=SEEDS, d=st.integers(1, 4))
def test_the_way_back_ends_where_it_began(seed: int, d: int) -> None:
    y = outputs_of(seed, d)
    space = OutputSpace.of(y)
    points = 3 * torch.randn(7, d, generator=torch.Generator().manual_seed(seed + 1))
    assert torch.allclose(space.z(space.y(points)), points, atol=2e-3)
    assert torch.allclose(space.y(space.z(y)), y, atol=2e-3)


@quick
@given(seed=SEEDS, d=st.integers(1, 4), factor=st.floats(0.01, 100))
def test_distances_do_not_depend_on_the_units(seed: int, d: int, factor: float) -> None:
    """Another unit for all outputs, another stretch of each, another zero: z turns at most."""
    y = outputs_of(seed, d)
    stretch = 1 + torch.rand(d, generator=torch.Generator().manual_seed(seed))
    other = factor * (y * stretch + torch.arange(d))
    first, second = OutputSpace.of(y).z(y), OutputSpace.of(other).z(other)
    assert torch.allclose(first.norm(dim=1), second.norm(dim=1), atol=0.02)
    assert torch.allclose(torch.cdist(first, first), torch.cdist(second, second), atol=0.02)


def test_an_output_that_hardly_varies_is_not_blown_up() -> None:
    y = outputs_of(0, 2)
    y[:, 1] = 1e-9 * y[:, 1]
    space = OutputSpace.of(y)
    assert torch.isfinite(space.z(y)).all()
    assert float(space.z(y).abs().max()) < 10


@pytest.mark.parametrize("d", [2, 3, 5, 20])
def test_the_grid_reaches_beyond_the_outputs_however_many_there_are(d: int) -> None:
    outputs = torch.randn(1000, d, generator=torch.Generator().manual_seed(0))
    farthest = target_grid(d).norm(dim=1).max()
    assert (outputs.norm(dim=1) > farthest).float().mean() < 0.02


def test_many_outputs_are_fitted_without_bending() -> None:
    z = target_grid(20)
    cost = (0.1 + 0.2 * z.norm(dim=1)).exp()
    landscape = Baseline.fit(z, cost)
    assert len(landscape.coefficients) == 2 + 20
    assert torch.allclose(landscape.cost(z), cost, rtol=1e-2)
