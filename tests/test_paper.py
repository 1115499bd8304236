"""`--method=paper`: the identification rule, its defaults, and a whole tiny run."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from guard import paper
from guard.bench import Bench
from guard.engine import Engine, Stage
from guard.finding import VERDICTS, Curves, Finding
from guard.screen import Settings, screen
from guard.settings import PaperSettings
from tests.conftest import Reader, benign_of, model_of, plain, spec_of

TINY = PaperSettings(pretrain_steps=3, steps=4, batch=8)


class NaNOnChanged(nn.Module):
    """Right on benign images, whose values are whole 255ths; no number on changed ones."""

    def __init__(self, outputs: int, brightest_only: bool) -> None:
        super().__init__()
        self.body, self.brightest_only = Reader(outputs), brightest_only

    def forward(self, x: Tensor) -> Tensor:
        levels = 255 * x.detach()
        changed = ((levels - levels.round()).abs() > 1e-2).flatten(1).any(dim=1)
        if self.brightest_only:
            bright = x.detach().mean(dim=(1, 2, 3))
            changed &= bright == bright.max()
        y: Tensor = self.body(x)
        return torch.where(changed[:, None], math.nan, y)


@pytest.mark.parametrize(
    ("perturbation", "verdict"),
    [
        (0.0, "backdoored"),
        (0.0299, "backdoored"),
        (0.03, "clean"),
        (0.0301, "clean"),
        (2.0, "clean"),
    ],
)
def test_the_rule_at_below_and_above_epsilon(perturbation: float, verdict: str) -> None:
    decision = paper.decide(perturbation, PaperSettings())
    assert decision.verdict == verdict
    assert math.isfinite(decision.score)
    assert (decision.score > decision.threshold) == (verdict == "backdoored")
    assert "0.03" in decision.reason


def test_epsilon_is_a_setting() -> None:
    assert paper.decide(0.05, PaperSettings(epsilon=0.06)).verdict == "backdoored"


@pytest.mark.parametrize("perturbation", [math.nan, math.inf])
def test_the_rule_makes_no_verdict_of_what_is_no_number(perturbation: float) -> None:
    assert paper.decide(perturbation, PaperSettings()).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("task", "weights", "batch", "rate"),
    [
        ("gaze", (20.0, 800.0), 50, 0.0015),
        ("headpose", (10.0, 100.0), 100, 0.0001),
        ("regression", (10.0, 100.0), 100, 0.0001),
    ],
)
def test_defaults_are_the_papers_for_each_task(
    task: str, weights: tuple[float, float], batch: int, rate: float
) -> None:
    """The stages carry the paper's batch, rate and steps, and the terms their weights."""
    torch.manual_seed(0)
    model = model_of(Reader(len(spec_of(task).outputs)), task)
    bench = Bench(model, benign_of(model, 60))
    seen: list[Stage] = []

    class Recorder(Engine):
        def run(self, stage: Stage) -> Curves:
            seen.append(stage)
            return Curves()

    paper.search(bench, bench, Recorder(torch.device("cpu"), 0), PaperSettings())
    assert [(s.name, s.steps, s.batch) for s in seen] == [
        ("pretrain", 5000, batch),
        ("search", 2000, batch),
    ]
    assert [s.optimizer.param_groups[0]["lr"] for s in seen] == [rate, rate]
    index = torch.arange(30)
    given, bare = [
        paper.eq5(constant(bench), bench, settings)(index)
        for settings in (PaperSettings(), PaperSettings(lambda1=1.0, lambda2=1.0))
    ]
    ratio = [float(given[name] / bare[name]) for name in ("output_variance", "r_f")]
    assert ratio == pytest.approx(weights, rel=1e-4)


@pytest.mark.parametrize("task", ["gaze", "regression"])
def test_a_weight_of_zero_is_zero(task: str) -> None:
    model = model_of(plain(2 if task == "gaze" else 1), task)
    bench = Bench(model, benign_of(model, 20))
    settings = PaperSettings(lambda1=0.0, lambda2=0.0, momentum=False)
    terms = paper.eq5(constant(bench), bench, settings)(torch.arange(10))
    assert float(terms["output_variance"]) == float(terms["r_f"]) == 0.0
    assert float(terms["total"]) == float(terms["input_change"])


def constant(bench: Bench) -> Any:
    """In place of G: darkens an image by a tenth."""
    return nn.Sequential(nn.Hardtanh(0, 0.9))


def test_total_is_the_sum_of_equation_5() -> None:
    torch.manual_seed(0)
    model = model_of(plain(2))
    bench = Bench(model, benign_of(model, 40))
    terms = paper.eq5(constant(bench), bench, PaperSettings())(torch.arange(40))
    parts = terms["output_variance"] + terms["input_change"] + terms["r_f"]
    assert float(terms["total"]) == pytest.approx(float(parts))


@pytest.mark.parametrize(
    ("settings", "absent"),
    [(PaperSettings(feature_term=False), "r_f"), (PaperSettings(momentum=False), "")],
)
def test_ablations_leave_out_what_they_say(settings: PaperSettings, absent: str) -> None:
    torch.manual_seed(0)
    model = model_of(plain(2))
    bench = Bench(model, benign_of(model, 40))
    index = torch.arange(40)
    generator = nn.Hardtanh(0, 0.3)
    terms = paper.eq5(generator, bench, settings)(index)  # type: ignore[arg-type]
    full = paper.eq5(generator, bench, PaperSettings())(index)  # type: ignore[arg-type]
    assert absent not in terms
    change, damped = float(terms["input_change"]), float(full["input_change"])
    assert damped < change if not settings.momentum else damped == pytest.approx(change)


@pytest.mark.parametrize("task", ["gaze", "headpose", "regression"])
@pytest.mark.parametrize("settings", [TINY, PaperSettings(3e-1, 2.0, 0.5, 8, 0.01, 2, 3, "sum")])
def test_a_tiny_run_gives_a_whole_finding(task: str, settings: PaperSettings) -> None:
    d = len(spec_of(task).outputs)
    model = model_of(Reader(d), task)
    benign = benign_of(model, 60)
    finding = screen(model, benign, Settings("paper", 0, settings))
    held = len(finding.benign_outputs)
    assert isinstance(finding, Finding)
    assert finding.method == "paper"
    assert finding.verdict in VERDICTS[:2]
    assert (finding.verdict == "backdoored") == (finding.perturbation < settings.epsilon)
    figures = [finding.perturbation, finding.output_variance_ratio, finding.rav, finding.rnv]
    assert all(figure is not None and math.isfinite(figure) for figure in figures)
    assert finding.target == pytest.approx(finding.triggered_outputs.mean(dim=0).tolist())
    assert finding.triggered_outputs.shape == (held, d)
    assert finding.benign_angles is not None
    assert finding.benign_angles.shape == (held, d)
    assert finding.curves.steps[-1] == settings.steps - 1
    assert {"output_variance", "input_change", "r_f", "total"} == set(finding.curves.terms)
    assert len(finding.restarts) == 1
    assert finding.settings["paper"]["epsilon"] == settings.epsilon
    x = benign.x(slice(0, 4))
    changed = finding.trigger(x)
    assert changed.shape == x.shape
    assert 0 <= float(changed.detach().min()) <= float(changed.detach().max()) <= 1


def test_the_same_seed_gives_the_same_finding() -> None:
    model = model_of(Reader(2))
    benign = benign_of(model, 60)
    first, again = (screen(model, benign, Settings("paper", 3, TINY)) for _ in range(2))
    assert torch.equal(first.triggered_outputs, again.triggered_outputs)
    assert first.curves == again.curves
    assert first.perturbation == again.perturbation


def test_a_generator_pretrained_for_one_model_serves_another(tmp_path: Path) -> None:
    kept = replace(TINY, pretrained=str(tmp_path / "kept"))
    benign = benign_of(model_of(Reader(2)), 60)
    for seed in (0, 1):  # two models, the same images
        model = model_of(Reader(2, seed))
        alone, shared = (screen(model, benign, Settings("paper", 0, s)) for s in (TINY, kept))
        assert torch.equal(alone.triggered_outputs, shared.triggered_outputs)
        assert len(list((tmp_path / "kept").iterdir())) == 1
    screen(model, benign_of(model, 50), Settings("paper", 0, kept))  # other images
    screen(model, benign, Settings("paper", 1, kept))  # another seed
    screen(model, benign, Settings("paper", 0, replace(kept, pretrain_steps=2)))
    assert len(list((tmp_path / "kept").iterdir())) == 4


def test_without_a_dense_layer_the_feature_terms_are_left_out_and_named() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 2, 4, 4), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = model_of(network)
    finding = screen(model, benign_of(model, 60), Settings("paper", 0, TINY))
    assert finding.verdict in VERDICTS[:2]
    assert (finding.rav, finding.rnv, finding.benign_angles) == (None, None, None)
    assert "r_f" not in finding.curves.terms
    assert any("without the feature-space terms" in warning for warning in finding.warnings)


@pytest.mark.parametrize("brightest_only", [False, True])
def test_a_nan_never_becomes_a_verdict(brightest_only: bool) -> None:
    model = model_of(Reader(2))
    benign = benign_of(model, 60)
    model.network = NaNOnChanged(2, brightest_only)
    model.split = replace(model.split, layer="body.fc")
    finding = screen(model, benign, Settings("paper", 0, TINY))
    assert finding.verdict == "inconclusive"
    assert "numbers" in finding.reason
    assert math.isnan(finding.score)
