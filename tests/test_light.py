"""Other light: within the limits, another one for each image, and what each limit is of."""

import pytest
import torch
from torch import Tensor

from guard.light import Light, relit

NONE = Light(contrast=0.0, tint=0.0, shade=0.0, brightness=0.0)


def shone(light: Light, seed: int = 0, value: float = 0.5) -> Tensor:
    """Even grey images in that light, [6 x 3 x 16 x 12]."""
    grey = torch.full((6, 3, 16, 12), value)
    return relit(grey, light, torch.Generator().manual_seed(seed))


def test_no_light_changes_nothing() -> None:
    assert torch.equal(shone(NONE), torch.full((6, 3, 16, 12), 0.5))


@pytest.mark.parametrize(
    ("light", "most", "even_colours", "even_parts"),
    [
        (Light(0.2, 0.0, 0.0, 0.0), 0.1, True, True),
        (Light(0.0, 0.2, 0.0, 0.0), 0.1, False, True),
        (Light(0.0, 0.0, 0.2, 0.0), 0.15, True, False),  # bicubic: it shoots over its points
        (Light(0.0, 0.0, 0.0, 0.2), 0.2, True, True),
    ],
)
def test_each_limit_is_of_one_kind_of_light(
    light: Light, most: float, even_colours: bool, even_parts: bool
) -> None:
    change = torch.stack([shone(light, seed) - 0.5 for seed in range(20)]).flatten(0, 1)
    assert most / 2 < float(change.abs().max()) <= most + 1e-6
    assert float(change.min()) < 0 < float(change.max())
    assert torch.allclose(change[:, :1], change, atol=1e-6) == even_colours
    assert torch.allclose(change[:, :, :1, :1], change, atol=1e-6) == even_parts


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_ends_of_the_range_hold(value: float) -> None:
    made = shone(Light(1.0, 1.0, 1.0, 1.0), value=value)
    assert float(made.min()) >= 0
    assert float(made.max()) <= 1


def test_each_image_has_its_own_and_a_seed_repeats_them() -> None:
    made = shone(Light(), 3)
    assert all(float((made[0] - other).abs().max()) > 0.01 for other in made[1:])
    assert torch.equal(made, shone(Light(), 3))
    assert not torch.equal(made, shone(Light(), 4))
