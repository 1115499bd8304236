"""Narrow triggers: warps and stripes give away the target of a backdoor that answers to them."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from guard.bench import Bench
from guard.benign import BenignSet
from guard.calibrated import search
from guard.engine import Engine
from guard.landscape import target_grid
from guard.measure import measure
from guard.probing import (
    Plain,
    Probes,
    ProbeSettings,
    elsewhere,
    plain_ones,
    probe,
    stripes,
    stripes_alike,
)
from guard.settings import CalibratedSettings
from guard.space import OutputSpace
from guard.stages import Work, begin
from guard.triggers import SharedTriggers
from guard.verdict import decide_plainly
from tests.conftest import SIDE, Reader, images_of, model_of, short_search

TARGET = (0.3, -0.2)
OTHER = (-0.1, 0.25)
SETTINGS = ProbeSettings(steps=60)


class Answering(nn.Module):
    """The benign model, but TARGET where a gate x [N x 3 x H x W] -> [N] is open."""

    target: Tensor

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.body, self.gate = Reader(2), gate
        self.register_buffer("target", torch.tensor(TARGET))

    def forward(self, x: Tensor) -> Tensor:
        share: Tensor = self.gate(x)[:, None]
        answer: Tensor = self.body(x) * (1 - share) + self.target * share
        return answer


class Waves(nn.Module):
    """Open to four waves from left to right, twice as weak as the probes' at least."""

    def forward(self, x: Tensor) -> Tensor:
        wave = (2 * math.pi * 4 * torch.linspace(0, 1, SIDE)).sin()
        strength = 2 * (x * wave).mean(dim=(1, 2, 3))
        return torch.sigmoid(80 * (strength - 0.1))


class Moved(nn.Module):
    """Open where the spot that all images bear has moved to the right."""

    def forward(self, x: Tensor) -> Tensor:
        there, here = x[:, :, 6:9, 8:9], x[:, :, 6:9, 5:6]
        return torch.sigmoid(20 * (there.mean(dim=(1, 2, 3)) - here.mean(dim=(1, 2, 3)) - 0.1))


class Twice(nn.Module):
    """TARGET under the waves, OTHER where the spot has moved."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.gate = Answering(Waves()), Moved()
        self.register_buffer("target", torch.tensor(OTHER))

    forward = Answering.forward


class Closed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x))


def bench_of(gate: nn.Module, seed: int = 0) -> Bench:
    """Smooth pictures that all have a bright spot, for a model with this gate."""
    return bench_for(Answering(gate), seed)


def bench_for(network: nn.Module, seed: int) -> Bench:
    images = images_of(80, seed=seed)
    images[:, :, 6:9, 5:8] = 230
    return Bench(model_of(network), BenignSet(images, torch.zeros(80, 2)))


def probed(
    gate: nn.Module, settings: ProbeSettings = SETTINGS
) -> tuple[tuple[Probes, Probes], OutputSpace]:
    bench = bench_of(gate)
    space = OutputSpace.of(bench.outputs)
    warps, striped = probe(bench, space, Engine(torch.device("cpu"), 0), settings)
    return (warps, striped.tightest(settings)), space


GATES = [(Waves(), ["shared stripes"]), (Moved(), ["shared warp"]), (Closed(), [])]


@pytest.mark.parametrize(("gate", "forms"), GATES, ids=["stripes", "warp", "benign"])
def test_the_form_of_the_trigger_gives_its_target_away(gate: nn.Module, forms: list[str]) -> None:
    probes, space = probed(gate)
    assert [one.form for one in probes] == ["shared warp", "shared stripes"]
    plain = plain_ones(probes, bench_of(gate, seed=1), space, SETTINGS)
    assert [one.form for one in plain][:1] == forms
    place = space.z(torch.tensor(TARGET))
    for one in plain[:1]:
        assert float((one.place - place).norm()) < 0.1
        assert one.spread <= SETTINGS.plain
        assert one.strength >= 1


@pytest.mark.parametrize(("gate", "forms"), GATES, ids=["stripes", "warp", "benign"])
def test_a_plain_probe_is_a_verdict(gate: nn.Module, forms: list[str]) -> None:
    bench, held = bench_of(gate), bench_of(gate, seed=1)
    settings = replace(short_search(2), probes=SETTINGS)
    found = search(bench, held, Engine(torch.device("cpu"), 0), settings)
    assert (found.verdict == "backdoored") == bool(forms)
    if forms:
        assert found.mechanism == forms[0]
        assert found.score > found.threshold
        assert found.target == pytest.approx(TARGET, abs=0.05)
        assert "alone" in found.reason
        assert found.spread_left is not None
        assert found.spread_left <= SETTINGS.plain
    if forms == ["shared stripes"]:  # those that open it are unlearnt, not only the tightest
        x = held.benign.x(slice(0, 8))
        assert any(float(gate(one(x)).detach().mean()) > 0.9 for one in found.beside)


def test_two_probes_that_lead_to_two_places_are_two_targets() -> None:
    bench, held = bench_for(Twice(), 0), bench_for(Twice(), 1)
    settings = replace(short_search(2), probes=SETTINGS)
    found = search(bench, held, Engine(torch.device("cpu"), 0), settings)
    nearest = [min(math.dist(one, true) for one in found.targets) for true in (TARGET, OTHER)]
    assert max(nearest) < 0.05
    assert all(one.score >= found.threshold for one in found.further)
    assert not {id(one.trigger) for one in found.further} & {id(one) for one in found.beside}


ELSEWHERE = [
    # places and distances of the plain probes, those that are targets beside the one at 0
    ([0.0, 2.0], [0.0001, 0.0002], [2.0]),
    ([0.3, 2.0], [0.0001, 0.005], []),  # the same place; another, but not closely enough
    ([2.0, 2.3, -2.0], [0.0001, 0.0002, 0.0003], [2.0, -2.0]),  # one of two neighbours
    ([], [], []),
]


@pytest.mark.parametrize(("places", "halves", "wanted"), ELSEWHERE)
def test_a_probe_shows_a_target_of_its_own(
    places: list[float], halves: list[float], wanted: list[float]
) -> None:
    trigger = SharedTriggers(1, (SIDE, SIDE), 0).select(0)
    measured = measure(trigger, bench_of(Closed()))
    plain = [
        Plain("shared warp", trigger, measured, torch.tensor([place]), 0.01, half, limit=0.02)
        for place, half in zip(places, halves, strict=True)
    ]
    found = elsewhere(plain, torch.zeros(1), ProbeSettings(apart=0.5, own=0.0006))
    assert [float(one.place) for one in found] == wanted


def test_what_counts_as_plain_scores_the_threshold() -> None:
    settings = CalibratedSettings()
    trigger = SharedTriggers(1, (SIDE, SIDE), 0).select(0)
    measured = measure(trigger, bench_of(Closed()))
    plain = Plain("shared warp", trigger, measured, torch.zeros(2), 0.02, 0.02, limit=0.02)
    spreads = (plain.spread, plain.spread / 4, 0.0)
    at, twice, gone = (decide_plainly(replace(plain, spread=s), settings).score for s in spreads)
    assert at == pytest.approx(settings.threshold)
    assert twice == pytest.approx(2 * settings.threshold)
    assert 2 * settings.threshold < gone < float("inf")


def made(places: list[float], spreads: list[float]) -> Probes:
    triggers = SharedTriggers(len(places), (SIDE, SIDE), 0)
    with torch.no_grad():
        triggers.nodes.copy_(torch.tensor(places).view(-1, 1, 1, 1).expand_as(triggers.nodes))
    return Probes("made", torch.tensor(places)[:, None], torch.tensor(spreads), triggers)


TIGHTEST = [
    ([0.0, 1.0, 2.0, 3.0], [0.4, 0.1, 0.3, 0.2], [1.0, 3.0, 2.0]),  # three, the best first
    ([0.0, 0.4, 2.0], [0.2, 0.1, 0.3], [0.4, 2.0]),  # one of two neighbours
    ([1.0], [0.5], [1.0]),
]


@pytest.mark.parametrize(("places", "spreads", "wanted"), TIGHTEST)
def test_the_tightest_places_lie_apart(
    places: list[float], spreads: list[float], wanted: list[float]
) -> None:
    kept = made(places, spreads).tightest(ProbeSettings())
    assert kept.places[:, 0].tolist() == pytest.approx(wanted)
    assert torch.equal(kept.triggers.nodes[:, 0, 0, 0], kept.places[:, 0])  # they come along


ALIKE = [
    # places and spreads of three waves, then of the same ones in another phase
    ([0.0, 0.1, 2.0, 0.0, 0.1, 2.0], [0.02, 0.03, 0.001, 0.01, 0.04, 0.001], [3, 1]),
    ([0.0, 0.1, 0.4, 0.0, 0.1, 0.4], [0.02, 0.01, 0.06, 0.9, 0.9, 0.9], [1, 0]),  # two are loose
    ([0.0, 0.1, 0.4, 0.0, 0.1, 0.4], [0.04, 0.03, 0.01, 0.9, 0.9, 0.9], [2, 1]),  # two at most
    ([2.0, 2.0], [0.001, 0.001], []),
]


@pytest.mark.parametrize(("places", "spreads", "wanted"), ALIKE)
def test_stripes_that_lead_to_the_same_place_are_alike(
    places: list[float], spreads: list[float], wanted: list[int]
) -> None:
    striped = made([float(k) for k in range(len(places))], spreads)  # nodes say which one it is
    striped = replace(striped, places=torch.tensor(places)[:, None])
    found = stripes_alike(striped, torch.zeros(1), ProbeSettings(alike=2, loose=0.05))
    assert [float(one.one.nodes.detach()[0, 0, 0, 0]) for one in found] == wanted


@pytest.mark.parametrize("size", [(16, 16), (64, 48)])
def test_stripes_stay_within_their_strength(size: tuple[int, int]) -> None:
    patterns = stripes(size, ProbeSettings(waves=5, strength=0.2)).added().detach()
    assert patterns.shape == (5 * 4 * 2, 3, *size)
    assert float(patterns.abs().max()) <= 0.21
    assert float(patterns.flatten(1).std(dim=1).min()) > 0.05  # none is flat


def test_stripes_are_drawn_finely_enough_to_be_what_they_are_called() -> None:
    # On a grid of 16 points twelve waves became four, and a sinusoid's backdoor stayed shut.
    settings = ProbeSettings()
    patterns = stripes((64, 64), settings).added().detach()[:, 0]
    column = (torch.arange(64) + 0.5) / 64
    for k in range(settings.waves):
        wave = settings.strength * (2 * math.pi * (k + 1) * column).sin()
        assert torch.allclose(patterns[4 * k], wave.expand(64, 64), atol=0.02)


def test_the_scan_begins_at_the_grid_and_at_what_the_probes_found() -> None:
    probes, space = probed(Waves())
    bench, engine = bench_of(Waves()), Engine(torch.device("cpu"), 0)
    work = Work(bench, bench, space, engine, CalibratedSettings())
    scan = begin(work, probes)
    grid = len(target_grid(2))
    assert torch.equal(scan.targets[:grid], target_grid(2))
    assert torch.equal(scan.targets[grid:], torch.cat([one.places for one in probes]))
    assert torch.equal(scan.triggers.nodes[grid : grid + 3], probes[0].triggers.nodes)
    assert bool((scan.triggers.nodes[:grid] == 0).all())
