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


@pytest.mark.parametrize("spot", [Spot(0, 0, 12, 20), Spot(30, 40, 18, 24), Spot(20, 60, 1, 4)])
@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_a_patch_is_of_a_patchs_size_and_about_the_spot(spot: Spot, shift: float) -> None:
    draw = torch.Generator().manual_seed(0)
    found = [spot.patch((64, 64), shift, draw) for _ in range(50)]
    assert len(set(found)) > 3
    for one in found:
        for start, side, at, length in (
            (spot.top, spot.height, one.top, one.height),
            (spot.left, spot.width, one.left, one.width),
        ):
            assert 2 <= length <= max(2, min(16, round(1.3 * side)))
            assert 0 <= at <= 64 - length
            reach = 64 * shift + 1
            inside = start - reach <= at + length / 2 <= start + side + reach
            assert inside or at in (0, 64 - length)


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
