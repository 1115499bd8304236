"""What a trained model does on the test images: tables 1 and 10 of the paper, for one model."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from guard.model import Model
from guard.tasks import constant_error, errors
from guard.terms import B, r_f, rnv, variance
from tools.attacks.base import Attack, Trigger, as_rows


@dataclass(frozen=True)
class Measured:
    """Errors in the task's unit (degrees); nan where a figure does not apply."""

    RE: float  # error on benign images
    AE: float = math.nan  # error between f(A(x)) and y_T
    DAE: float = math.nan  # error between f(A(x)) and the right label
    RNV: float = math.nan  # equation 3
    RAV: float = math.nan  # equation 3
    cross_error: float = math.nan  # error with another image's trigger (input-aware)
    constant: float = math.nan  # error of answering the mean label for every image


@torch.no_grad()
def outputs(model: Model, x: Tensor, size: int = 250) -> tuple[Tensor, Tensor]:
    """f(x) [N x d] and F(x) [N x m], a few images at a time, in float32."""
    rows = [model.with_features(part) for part in x.split(size)]
    y = torch.cat([row[0].float() for row in rows])
    h = torch.cat([row[1].float() for row in rows if row[1] is not None])
    return y, h


def measure_benign(model: Model, x: Tensor, y: Tensor) -> Measured:
    """Test images x [N x 3 x H x W] in [0, 1] with labels y [N x d]."""
    predicted, _ = outputs(model, x)
    return Measured(
        RE=float(errors(model.spec, predicted, y).mean()), constant=constant_error(model.spec, y)
    )


@torch.no_grad()
def measure(model: Model, attack: Attack, trigger: Trigger, x: Tensor, y: Tensor) -> Measured:
    """As `measure_benign`, with the true trigger; several backdoors are averaged."""
    predicted, h = outputs(model, x)
    w = model.dense.weight
    benign_variance = variance(B(h, w))
    rows: list[tuple[Tensor, ...]] = []
    for which, target in enumerate(attack.targets):
        y_p, h_p = outputs(model, torch.cat([trigger(part, which) for part in x.split(250)]))
        rows.append(
            (
                errors(model.spec, y_p, as_rows(target, y_p).expand_as(y_p)).mean(),
                errors(model.spec, y_p, y).mean(),
                rnv(h_p, h)[0],
                r_f(B(h_p, w), benign_variance),
            )
        )
    ae, dae, norm_ratio, angle_ratio = (
        float(torch.stack(list(column)).double().mean()) for column in zip(*rows, strict=True)
    )
    crossed = attack.crossed(trigger, x)
    cross = math.nan
    if crossed is not None:
        cross = float(errors(model.spec, outputs(model, crossed)[0], y).mean())
    benign = float(errors(model.spec, predicted, y).mean())
    constant = constant_error(model.spec, y)
    return Measured(benign, ae, dae, norm_ratio, angle_ratio, cross, constant)
