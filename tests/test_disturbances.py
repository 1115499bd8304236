"""Disturbances: within the image's range and their strength, another one for each image."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from guard.disturbances import disturbed, under_pattern, under_stripes

Disturbance = Callable[[Tensor, float, torch.Generator], Tensor]
DISTURBANCES: list[Disturbance] = [under_pattern, under_stripes]


@pytest.mark.parametrize("disturbance", DISTURBANCES)
@pytest.mark.parametrize("most", [0.0, 0.1, 0.3])
def test_no_colour_moves_by_more_than_the_strength(disturbance: Disturbance, most: float) -> None:
    x = torch.rand(6, 3, 20, 12, generator=torch.Generator().manual_seed(0))
    for seed in range(8):  # flat cells and flowing ones
        made = disturbance(x, most, torch.Generator().manual_seed(seed))
        assert made.shape == x.shape
        assert float(made.min()) >= 0
        assert float(made.max()) <= 1
        assert float((made - x).abs().max()) <= most + 1e-6
        assert torch.equal(made, x) == (most == 0)


def change(disturbance: Disturbance, seed: int) -> Tensor:
    x = torch.full((4, 3, 24, 24), 0.5)
    return disturbance(x, 0.3, torch.Generator().manual_seed(seed)) - x


@pytest.mark.parametrize("disturbance", DISTURBANCES)
def test_each_image_has_its_own_and_a_seed_repeats_them(disturbance: Disturbance) -> None:
    made = change(disturbance, 5)
    assert all(float((made[0] - other).abs().max()) > 0.01 for other in made[1:])
    assert torch.equal(made, change(disturbance, 5))
    assert not torch.equal(made, change(disturbance, 6))


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_half_are_under_patterns_and_half_under_stripes(count: int) -> None:
    """Stripes add the same to all colours, patterns do not."""
    x = torch.full((count, 3, 16, 16), 0.5)
    made = disturbed(x, 0.3, 0.3, torch.Generator().manual_seed(1)) - x
    grey = [bool(torch.allclose(one[0], one[1], atol=1e-6)) for one in made]
    assert grey == [False] * (count // 2) + [True] * (count - count // 2)
