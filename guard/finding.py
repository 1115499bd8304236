"""What a screening found: everything that the report and the later steps need."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

VERDICTS = ("clean", "backdoored", "inconclusive")


@dataclass
class Curves:
    """The course of one search, a value every few steps."""

    steps: list[int] = field(default_factory=list)
    terms: dict[str, list[float]] = field(default_factory=dict)  # term of the objective: values
    targets: list[list[float]] = field(default_factory=list)  # mean output, (d,) at each step


@dataclass
class Finding:
    """The verdict of one method on one model, with its evidence."""

    method: str  # "calibrated" or "paper"
    verdict: str  # one of VERDICTS
    reason: str  # one sentence
    score: float  # calibrated: how many times cheaper than control targets; see threshold
    threshold: float
    threshold_source: str
    perturbation: float  # mean |x' - x| over max mean |x|, both means over pixels
    output_variance_ratio: float  # mean over outputs of var f_j(x') / var f_j(x)
    rav: float | None  # equation 3; None where f has no dense layer at the end
    rnv: float | None
    target: list[float]  # (d,) estimate of the target vector in the model's units
    mechanism: str  # which trigger model fits best
    trigger: nn.Module  # x -> x', images in [0, 1] RGB [N x 3 x H x W]
    curves: Curves
    restarts: list[dict[str, Any]]  # one search each: role, target, cost, variance ratio, steps
    benign_outputs: Tensor  # (N, d) f(x) of the measured images
    triggered_outputs: Tensor  # (N, d) f(x') of the same images
    benign_angles: Tensor | None  # (N, d) B(F(x), w_j) in degrees; None without a split
    triggered_angles: Tensor | None
    examples: Tensor  # (K,) indices of the images that the report shows
    settings: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)  # seconds
    warnings: list[str] = field(default_factory=list)
