"""Patches of one colour give away a backdoor that answers to nothing less."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from guard.calibrated import search
from guard.engine import Engine
from guard.patches import COLOURS, SIDES, answers, painted, patches, windows
from guard.probing import ProbeSettings, plain_ones, sharpened
from guard.space import OutputSpace
from tests.conftest import SIDE, images_of, short_search
from tests.test_probing import SETTINGS, TARGET, Closed, Moved, bench_of, probed

PLACES = 15
SETTING = ProbeSettings(patches=PLACES)


class Corner(nn.Module):
    """Open where a corner is yellow: half of it, or half as yellow, opens nothing."""

    def forward(self, x: Tensor) -> Tensor:
        red, green, blue = x[:, :, -2:, :2].flatten(2).unbind(1)
        least = torch.cat([red, green, 1 - blue], dim=1).amin(dim=1)
        return torch.sigmoid(100 * (least - 0.9))


@pytest.mark.parametrize("size", [(SIDE, SIDE), (64, 48), (64, 64)])
def test_patches_lie_all_over_the_picture(size: tuple[int, int]) -> None:
    masks = windows(size, PLACES)
    assert masks.shape == (PLACES**2, *size)
    assert bool(masks.any(dim=0).all())
    pixels = size[0] // SIDES * (size[1] // SIDES)
    assert masks.flatten(1).sum(dim=1).tolist() == [pixels] * PLACES**2
    assert bool(masks[PLACES - 1][: size[0] // SIDES, -1].all())  # row by row


@pytest.mark.parametrize("size", [(64, 64), (SIDE, SIDE)])
def test_a_painted_patch_hides_what_is_there_and_changes_nothing_else(
    size: tuple[int, int],
) -> None:
    x = images_of(3, size[0]).float() / 255
    for index in (0, 6 * PLACES**2 + 14 * PLACES):  # black at the top left, yellow at the bottom
        changed = painted([index], size, PLACES)(x)[0].detach()
        mask = windows(size, PLACES)[index % PLACES**2]
        colour = COLOURS[index // PLACES**2].view(1, 3, 1).expand(3, 3, int(mask.sum()))
        if size[0] == 64:  # as finely as they are drawn; else their edges blur
            assert torch.allclose(changed[:, :, mask], colour, atol=0.01)
            assert torch.allclose(changed[:, :, ~mask], x[:, :, ~mask], atol=1e-5)
        assert float((changed - x).abs()[:, :, mask].mean()) > 0.2


def test_outputs_come_colour_by_colour() -> None:
    bench = bench_of(Corner())
    space = OutputSpace.of(bench.outputs)
    z = answers(bench, space, windows((SIDE, SIDE), PLACES), SETTING)
    assert z.shape == (8 * PLACES**2, SETTING.patch_images, 2)
    x = bench.benign.x(slice(0, SETTING.patch_images)).clone()
    x[:, :, -2:, :2] = COLOURS[6].view(3, 1, 1)
    wanted = space.z(bench.model(x))
    assert torch.allclose(z[6 * PLACES**2 + 14 * PLACES], wanted, atol=1e-4)


@pytest.mark.parametrize("backdoored", [True, False])
def test_a_patch_that_gathers_the_outputs_is_a_verdict(backdoored: bool) -> None:
    gate = Corner() if backdoored else Closed()
    bench, held = bench_of(gate), bench_of(gate, seed=1)
    space = OutputSpace.of(bench.outputs)
    plain = plain_ones([patches(bench, space, SETTING)], held, space, SETTING)
    assert [one.form for one in plain] == ["shared patch"] * backdoored
    quick = short_search(2)
    settings = replace(quick, probes=replace(quick.probes, patches=PLACES))
    found = search(bench, held, Engine(torch.device("cpu"), 0), settings)
    assert (found.verdict == "backdoored") == backdoored
    if backdoored:
        assert found.mechanism == "shared patch"
        assert found.target == pytest.approx(TARGET, abs=0.05)
        assert "a patch of one colour alone" in found.reason


def test_more_steps_bring_a_warps_outputs_closer_together() -> None:
    bench, engine = bench_of(Moved()), Engine(torch.device("cpu"), 0)
    settings = replace(SETTINGS, steps=12)
    (warps, _), space = probed(Moved(), settings)
    before = warps.triggers.nodes.detach().clone()
    sharper = sharpened(warps, bench, space, engine, settings)
    assert float(sharper.spreads[0]) < float(warps.spreads[0])
    assert torch.equal(warps.triggers.nodes, before)  # the scan begins with these


def test_no_probes_kept_leave_nothing_to_search_on() -> None:
    settings = replace(SETTINGS, steps=1, kept=0)
    (warps, _), space = probed(Closed(), settings)
    bench = bench_of(Closed())
    assert sharpened(warps, bench, space, Engine(torch.device("cpu"), 0), settings) is warps
    assert len(patches(bench, space, replace(SETTING, kept=0)).places) == 0
