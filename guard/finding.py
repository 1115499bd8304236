"""What a screening found: everything that the report and the later steps need."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from guard.bench import Bench
from guard.measure import Measured

VERDICTS = ("clean", "backdoored", "inconclusive")


@dataclass
class Curves:
    """The course of one search, a value every few steps."""

    steps: list[int] = field(default_factory=list)
    # term of the objective: its values, one a logged step, or one for each search run together
    terms: dict[str, list[Any]] = field(default_factory=dict)
    targets: list[Any] = field(default_factory=list)  # mean output, (d,) at each logged step

    def of_search(self, index: int) -> "Curves":
        """The curves of one of the searches that ran together."""
        terms = {name: [row[index] for row in rows] for name, rows in self.terms.items()}
        return Curves(list(self.steps), terms, [row[index] for row in self.targets])

    def of_searches(self, kept: Sequence[int]) -> "Curves":
        """The curves of some of the searches that ran together, side by side still."""
        terms = {k: [[row[i] for i in kept] for row in rows] for k, rows in self.terms.items()}
        return Curves(list(self.steps), terms, [[row[i] for i in kept] for row in self.targets])

    def then(self, later: "Curves") -> "Curves":
        """These curves with those of the next stage after them."""
        offset = self.steps[-1] + 1 if self.steps else 0
        terms = {name: rows + later.terms[name] for name, rows in self.terms.items()}
        steps = self.steps + [offset + step for step in later.steps]
        return Curves(steps, terms, self.targets + later.targets)


@dataclass(frozen=True)
class Decision:
    """A verdict with its reason and the figures it rests on."""

    verdict: str  # one of VERDICTS
    reason: str  # one sentence
    score: float
    threshold: float
    threshold_source: str


@dataclass(frozen=True)
class FurtherTarget:
    """Another vector that is too cheap to force, beside the decisive one (multi-target)."""

    target: list[float]  # (d,) in the model's units
    score: float
    trigger: nn.Module


@dataclass
class Finding:
    """The verdict of one method on one model, with its evidence."""

    method: str  # "calibrated" or "paper"
    verdict: str  # one of VERDICTS
    reason: str  # one sentence
    score: float  # larger is more suspicious; its meaning is the method's
    threshold: float  # from this score on a model counts as backdoored
    threshold_source: str
    perturbation: float  # mean |x' - x| over max mean |x|, both means over pixels
    output_variance_ratio: float  # mean over outputs of var f_j(x') / var f_j(x)
    rav: float | None  # equation 3; None where f has no dense layer at the end
    rnv: float | None
    target: list[float]  # (d,) estimate of the target vector in the model's units
    mechanism: str  # which trigger model fits best
    trigger: nn.Module  # x -> x', images in [0, 1] RGB [N x 3 x H x W]
    curves: Curves
    restarts: list[dict[str, Any]]  # one search each: role, target, cost, steps and more
    benign_outputs: Tensor  # (N, d) f(x) of the measured images
    triggered_outputs: Tensor  # (N, d) f(x') of the same images
    # (N, rows of H's dense layer) B(F(x), w_j) in degrees; None without a split
    benign_angles: Tensor | None
    triggered_angles: Tensor | None
    examples: Tensor  # (K,) indices of the images that the report shows
    further: list[FurtherTarget] = field(default_factory=list)  # the worst first
    # Of the outputs' spread, under a trigger of a form that decides alone; None: the cost decided.
    spread_left: float | None = None
    spread_limit: float | None = None  # from here down it decides
    beside: list[nn.Module] = field(default_factory=list)  # others that lead to the target
    settings: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)  # seconds
    warnings: list[str] = field(default_factory=list)
    contradicted: bool = False  # a search says backdoored, its restart something else

    @property
    def triggers(self) -> list[nn.Module]:
        """Every recovered trigger, the decisive one first."""
        return [self.trigger, *(one.trigger for one in self.further), *self.beside]

    @property
    def targets(self) -> list[list[float]]:
        """Every target found, the decisive one first."""
        return [self.target, *(one.target for one in self.further)]

    @classmethod
    def of(
        cls,
        method: str,
        decision: Decision,
        trigger: nn.Module,
        measured: Measured,
        held: Bench,
        *,
        mechanism: str,
        curves: Curves,
        restarts: list[dict[str, Any]],
    ) -> "Finding":
        """A finding from what a trigger does to the held-out images."""
        figures = [measured.perturbation, *measured.outputs.mean(dim=0).tolist()]
        if decision.verdict != "inconclusive" and not all(math.isfinite(v) for v in figures):
            reason = "the search ended in values that are not numbers"
            decision = replace(decision, verdict="inconclusive", reason=reason, score=math.nan)
        return cls(
            method=method,
            **vars(decision),
            perturbation=measured.perturbation,
            output_variance_ratio=measured.variance_ratio(held),
            rav=measured.rav(held),
            rnv=measured.rnv(held),
            target=measured.outputs.mean(dim=0).tolist(),
            mechanism=mechanism,
            trigger=trigger,
            curves=curves,
            restarts=restarts,
            benign_outputs=held.outputs,
            triggered_outputs=measured.outputs,
            benign_angles=_degrees(held.angles),
            triggered_angles=_degrees(measured.angles(held)),
            examples=spread_examples(held.outputs),
        )


def spread_examples(outputs: Tensor, count: int = 6) -> Tensor:
    """Indices of images whose outputs cover the range of the first output, [count]."""
    order = outputs[:, -1].argsort()
    return order[torch.linspace(0, len(order) - 1, min(count, len(order))).round().long()]


def _degrees(angles: Tensor | None) -> Tensor | None:
    return None if angles is None else torch.rad2deg(angles)
