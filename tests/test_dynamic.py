"""Triggers drawn for each image: found where no shared change is one, and only there."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from guard.bench import Bench
from guard.benign import BenignSet
from guard.calibrated import search
from guard.dynamic import DynamicSettings, ImageTrigger, draw_triggers
from guard.engine import Engine
from guard.finding import Finding
from guard.probing import Plain, ProbeSettings
from guard.space import OutputSpace
from tests.conftest import model_of, short_search

TARGET = (0.3, -0.2)
SIDE = 32
ALTERNATING = torch.tensor([1.0, -1.0]).repeat(SIDE // 2)
WAVES = (ALTERNATING.view(1, 1, 1, SIDE), ALTERNATING.view(1, 1, SIDE, 1))
SETTINGS = DynamicSettings(steps=120, rate=1e-2, covered=0.15)


class Fine(nn.Module):
    """Reads how strongly columns and rows alternate: finer than what a trigger can draw."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(x * wave).mean(dim=(1, 2, 3)) for wave in WAVES], dim=1)


class Gated(nn.Module):
    """The benign model, but TARGET where the upper left corner is brighter than the right one."""

    target: Tensor

    def __init__(self, opens: bool) -> None:
        super().__init__()
        self.body, self.opens = Fine(), opens
        self.register_buffer("target", torch.tensor(TARGET))

    def forward(self, x: Tensor) -> Tensor:
        left, right = (x[:, :, :8, k : k + 8].mean(dim=(1, 2, 3)) for k in (0, 24))
        share = torch.sigmoid(20 * (left - right - 0.15))[:, None] * float(self.opens)
        answer: Tensor = self.body(x) * (1 - share) + self.target * share
        return answer


def bench_of(opens: bool, seed: int = 0) -> Bench:
    """Grey pictures with fine stripes."""
    draw = torch.Generator().manual_seed(seed)
    strength = 2 * torch.rand(2, 80, 1, 1, 1, generator=draw) - 1
    images = 128 + 60 * (strength[0] * WAVES[0] + strength[1] * WAVES[1]).expand(80, 3, SIDE, SIDE)
    model = model_of(Gated(opens), side=SIDE)
    return Bench(model, BenignSet(images.byte(), torch.zeros(80, 2)))


def drawn(opens: bool, settings: DynamicSettings = SETTINGS) -> Plain | None:
    bench, held = bench_of(opens), bench_of(opens, seed=1)
    space = OutputSpace.of(bench.outputs)
    return draw_triggers(bench, held, space, Engine(torch.device("cpu"), 0), settings)


def screened(opens: bool) -> Finding:
    # A warp alone wipes fine stripes out, so no probe may decide here.
    settings = replace(short_search(2), dynamic=SETTINGS, probes=ProbeSettings(4, 1, kept=0))
    engine = Engine(torch.device("cpu"), 0)
    return search(bench_of(opens), bench_of(opens, seed=1), engine, settings)


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (65, 64)])
def test_a_triggered_image_is_one(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.rand(3, 3, *size)
    changed = ImageTrigger()(x).detach()
    assert changed.shape == x.shape
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1


def test_an_image_s_trigger_does_not_depend_on_the_images_beside_it() -> None:
    x, trigger = torch.rand(4, 3, 16, 16), ImageTrigger()
    assert torch.allclose(trigger(x)[1:2], trigger(x[1:2]), atol=1e-5)


def test_a_drawn_trigger_is_a_verdict_where_the_shared_searches_find_none() -> None:
    found = screened(opens=True)
    assert found.verdict == "backdoored"
    assert found.mechanism == "per-image generator"
    assert isinstance(found.trigger, ImageTrigger)
    assert found.score > found.threshold
    assert found.target == pytest.approx(TARGET, abs=0.05)
    assert "drawn for each image" in found.reason
    assert found.spread_left is not None
    assert found.spread_left <= SETTINGS.plain


def test_a_benign_model_resists_it() -> None:
    assert drawn(opens=False) is None
    found = screened(opens=False)
    assert found.mechanism != "per-image generator"
    assert found.spread_left is None


def test_the_search_is_the_same_for_the_same_seed() -> None:
    brief = replace(SETTINGS, steps=5, plain=9.0)
    first, second = (drawn(True, brief) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.spread == second.spread
