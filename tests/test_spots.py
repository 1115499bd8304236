"""Spots: where a recovered trigger is confined to, and the patches of other colours there."""

import pytest
import torch
from torch import Tensor, nn

from guard.lesson import MitigationSettings, make_lesson
from guard.mitigation import repainted
from guard.spots import Paint, Repainted, Spot
from tests.conftest import SIDE, benign_of, model_of
from tests.mitigation_files import Corner, Gated


class Patch(nn.Module):
    """Paints a rectangle of the picture white, and adds a little everywhere."""

    def __init__(self, rows: slice, columns: slice, everywhere: float = 0.0) -> None:
        super().__init__()
        self.rows, self.columns, self.everywhere = rows, columns, everywhere

    def forward(self, x: Tensor) -> Tensor:
        made = x + self.everywhere
        made[:, :, self.rows, self.columns] = 1.0
        return made


@pytest.mark.parametrize(
    ("trigger", "wanted"),
    [
        (Patch(slice(2, 5), slice(10, 14)), Spot(2, 10, 3, 4)),
        (Patch(slice(0, 1), slice(0, 1)), Spot(0, 0, 1, 1)),
        (Patch(slice(2, 5), slice(10, 14), everywhere=0.02), Spot(2, 10, 3, 4)),
        (Corner(), Spot(SIDE - 3, SIDE - 3, 3, 3)),
        (Patch(slice(2, 12), slice(2, 12)), None),  # more than a tenth of the picture
        (Patch(slice(2, 5), slice(10, 14), everywhere=0.1), None),  # more of the change elsewhere
        (Patch(slice(0, 0), slice(0, 0), everywhere=0.1), None),
        (nn.Identity(), None),
    ],
)
def test_where_a_trigger_is_confined_to(trigger: nn.Module, wanted: Spot | None) -> None:
    assert Spot.of(trigger, benign_of(model_of(Gated()))) == wanted


@pytest.mark.parametrize("spot", [Spot(0, 0, 2, 3), Spot(10, 12, 6, 4), Spot(5, 6, 1, 1)])
@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_one_near_a_spot_is_of_about_its_size_and_in_the_picture(spot: Spot, shift: float) -> None:
    draw = torch.Generator().manual_seed(0)
    found = [spot.near((16, 16), shift, draw) for _ in range(50)]
    assert shift == 0.0 or len(set(found)) > 3
    for one in found:
        assert 0 <= one.top <= 16 - one.height
        assert 0 <= one.left <= 16 - one.width
        for start, side, at, length in (
            (spot.top, spot.height, one.top, one.height),
            (spot.left, spot.width, one.left, one.width),
        ):
            assert max(2, round(0.5 * side)) <= length <= max(2, round(1.3 * side))
            centre = at + length / 2
            assert abs(centre - start - side / 2) <= 16 * shift + 1 or at in (0, 16 - length)


def test_only_the_place_of_a_spot_is_painted() -> None:
    x, spot = torch.rand(2, 3, 8, 12), Spot(1, 7, 4, 2)
    cells = torch.rand(2, 3, 2, 1)
    made = spot.painted(x, cells)
    inside = made[:, :, 1:5, 7:9]
    assert torch.equal(inside, cells.repeat_interleave(2, 2).repeat_interleave(2, 3))
    made[:, :, 1:5, 7:9] = x[:, :, 1:5, 7:9]
    assert torch.equal(made, x)


def test_a_share_of_the_images_gets_other_colours() -> None:
    x, draw = torch.rand(8, 3, SIDE, SIDE), torch.Generator().manual_seed(0)
    trigger, spot = Corner(), Spot(SIDE - 3, SIDE - 3, 3, 3)
    made = Repainted(trigger, spot, 0.75, 0.0, draw)(x)
    assert made.shape == x.shape
    assert torch.equal(made[6:], trigger(x[6:]))
    assert not any(torch.equal(one, trigger(x[:6])[k]) for k, one in enumerate(made[:6]))
    assert torch.equal(made[:, :, : SIDE - 5], x[:, :, : SIDE - 5])


def test_only_triggers_in_a_spot_are_repainted() -> None:
    model = model_of(Gated())
    wide = Patch(slice(0, 16), slice(0, 16), everywhere=0.1)
    lesson = make_lesson(
        model, benign_of(model), [Corner(), wide], MitigationSettings(), 0, doubted=[Corner()]
    )
    assert [type(one) for one in repainted(lesson)] == [Repainted, Patch, Repainted]


def test_a_patch_to_search_for_paints_its_spot_with_colours() -> None:
    x, spot = torch.rand(2, 3, 8, 8), Spot(2, 3, 4, 4)
    paint = Paint(spot, torch.Generator().manual_seed(1))
    made = paint(x)
    assert bool(((made >= 0) & (made <= 1)).all())
    made[:, :, 2:6, 3:7].sum().backward()
    assert paint.cells.grad is not None
    assert float(paint.cells.grad.abs().min()) > 0
