"""`--method=paper`: DRMGuard as published: G, momentum reverse trigger, equation 5, epsilon rule.

Arxiv 2411.04811, sections 3.4, 4.1, A.1 and A.10.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from guard.bench import Bench
from guard.engine import Engine, Stage
from guard.files import digest
from guard.finding import Curves, Decision, Finding
from guard.generator import Generator, attention_map, attention_maps, momentum_reverse_trigger
from guard.measure import measure
from guard.model import Model
from guard.settings import PaperSettings
from guard.store import save_weights
from guard.terms import B, input_change, output_variance, r_f

Objective = Callable[[Tensor], dict[str, Tensor]]

GAZE = {"lambda1": 20.0, "lambda2": 800.0, "batch": 50, "learning_rate": 0.0015}
OTHER = {"lambda1": 10.0, "lambda2": 100.0, "batch": 100, "learning_rate": 0.0001}


class MomentumTrigger(nn.Module):
    """x -> x' of equation 7: G_theta with the attention map of the model under examination."""

    def __init__(self, generator: Generator, model: Model, settings: PaperSettings) -> None:
        super().__init__()
        self.generator, self.settings = generator, settings
        self._model = (model,)  # in a tuple: the model is no part of the trigger

    def forward(self, x: Tensor) -> Tensor:
        """Images [N x 3 x H x W] in [0, 1] -> triggered images, same shape and range."""
        g: Tensor = self.generator(x)
        if not self.settings.momentum:
            return g
        s = self.settings
        with torch.enable_grad():
            T = attention_map(self._model[0], x, s.attention, s.attention_above)
        return momentum_reverse_trigger(g, x, T)


def search(bench: Bench, held: Bench, engine: Engine, settings: PaperSettings) -> Finding:
    """Train G_theta on the images of `bench`, decide by those of `held`."""
    torch.manual_seed(engine.seed)
    generator = Generator().to(bench.device).train()
    generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pretrain(generator, bench, engine, settings)
    curves = _run("search", generator, bench, engine, settings)
    trigger = MomentumTrigger(generator, bench.model, replace(settings, pretrained="")).eval()
    measured = measure(trigger, held)
    target = measured.outputs.mean(dim=0).tolist()
    row = {
        "role": "free",
        "target": None,
        "found": target,
        "cost": measured.perturbation,
        "variance_ratio": measured.variance_ratio(held),
        "steps": settings.pretrain_steps + settings.steps,
    }
    return Finding.of(
        "paper",
        decide(measured.perturbation, settings),
        trigger,
        measured,
        held,
        mechanism="per-image generator",
        curves=curves,
        restarts=[row],
    )


def pretrain(generator: Generator, bench: Bench, engine: Engine, settings: PaperSettings) -> None:
    """The pre-training of A.10, or how it ended for another model with the same images.

    f has no part in it: for the models of a zoo, or for an ablation, once is enough.
    """
    kept = _kept(bench, engine, settings)
    if kept and kept.exists():
        generator.load_state_dict(load_file(kept))
        return
    _run("pretrain", generator, bench, engine, settings)
    if kept:
        save_weights(generator.state_dict(), kept)


def _kept(bench: Bench, engine: Engine, settings: PaperSettings) -> Path | None:
    if not settings.pretrained:
        return None
    constants = constants_of(settings, bench)
    decided = (engine.seed, settings.pretrain_steps, constants["batch"], constants["learning_rate"])
    images = bench.benign.images.cpu().contiguous().numpy().tobytes()
    return Path(settings.pretrained) / f"{digest(images, repr(decided))[:16]}.safetensors"


def _run(
    name: str, generator: Generator, bench: Bench, engine: Engine, settings: PaperSettings
) -> Curves:
    constants = constants_of(settings, bench)
    pretrain = name == "pretrain"
    objective = reconstruction(generator, bench) if pretrain else eq5(generator, bench, settings)
    stage = Stage(
        name,
        generator,
        torch.optim.Adam(generator.parameters(), lr=constants["learning_rate"]),
        lambda index, at: objective(index),
        len(bench.benign),
        settings.pretrain_steps if pretrain else settings.steps,
        int(constants["batch"]),
    )
    return engine.run(stage)


def constants_of(settings: PaperSettings, bench: Bench) -> dict[str, float]:
    """Those of `settings`, and for None what the paper chose by task (section 4.1, A.10)."""
    chosen = GAZE if bench.model.spec.task == "gaze" else OTHER
    given = {name: getattr(settings, name) for name in chosen}
    return {name: chosen[name] if value is None else value for name, value in given.items()}


def reconstruction(generator: Generator, bench: Bench) -> Objective:
    """The pre-training of A.10: G learns to give back its input."""

    def objective(index: Tensor) -> dict[str, Tensor]:
        x = bench.benign.x(index)
        return {"total": input_change(bench.fast(generator, x), x)}

    return objective


def eq5(generator: Generator, bench: Bench, settings: PaperSettings) -> Objective:
    """Equation 5 with x' of equation 7; T(x) and the benign angle variances are computed once."""
    constants = constants_of(settings, bench)
    lambda1, lambda2 = constants["lambda1"], constants["lambda2"]
    s = settings
    maps = None
    if s.momentum:
        maps = attention_maps(bench.model, bench.benign, s.attention, s.attention_above)

    def objective(index: Tensor) -> dict[str, Tensor]:
        x = bench.benign.x(index)
        triggered = bench.fast(generator, x)
        if maps is not None:
            triggered = momentum_reverse_trigger(triggered, x, maps[index].float())
        y, h = bench.fast_pass(triggered)
        terms = {
            "output_variance": lambda1 * output_variance(y),
            "input_change": input_change(triggered, x),
        }
        if s.feature_term and h is not None:
            assert bench.weights is not None
            assert bench.angle_variance is not None
            terms["r_f"] = lambda2 * r_f(B(h, bench.weights), bench.angle_variance)
        total = torch.stack(list(terms.values())).sum()
        return {**terms, "total": total, "target": y.detach().mean(dim=0)}

    return objective


def decide(perturbation: float, settings: PaperSettings) -> Decision:
    """The identification rule of section 3.4; the score is epsilon over the perturbation."""
    source = "epsilon of arXiv 2411.04811, section 3.4; the score is epsilon over the perturbation"
    if not math.isfinite(perturbation):
        reason = "the search ended in values that are not numbers"
        return Decision("inconclusive", reason, math.nan, 1.0, source)
    score = settings.epsilon / max(perturbation, 1e-12)
    backdoored = perturbation < settings.epsilon
    relation = "below" if backdoored else "not below"
    return Decision(
        "backdoored" if backdoored else "clean",
        f"the reverse trigger changes images by {perturbation:.4f} of the largest, "
        f"{relation} epsilon = {settings.epsilon}",
        score,
        1.0,
        source,
    )
