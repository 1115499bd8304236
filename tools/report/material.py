"""What the figures draw: plain arrays in shown units, taken from the evidence once."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guard.finding import Finding
from guard.spec import ModelSpec
from tools.report import Evidence
from tools.report.text import display_factor, unit_sign

Array = NDArray[np.float64]
SHOWN = 6  # pictures in the report
MEASURED = 64  # pictures that the mean change is taken over


@dataclass(frozen=True)
class Material:
    """Pictures are RGB in [0, 1], height x width x 3; outputs are in shown units."""

    spec: ModelSpec
    finding: Finding
    factor: float  # shown units in one unit of the model
    sign: str  # the shown unit as it stands on an axis
    names: list[str]  # (K,) of the shown pictures
    before: Array  # (K, H, W, 3)
    after: Array  # (K, H, W, 3) with the trigger
    shown: list[int]  # (K,) rows of the outputs
    benign: Array  # (N, d) f(x)
    triggered: Array  # (N, d) f(x')
    target: Array  # (d,)
    grey: Array  # (H, W, 3) the trigger on a mid-grey picture
    signed: Array  # (H, W, 3) mean of x' - x
    magnitude: Array  # (H, W) mean of |x' - x|
    flow: Array | None  # (2, H, W) displacement in pixels, x then y


@torch.no_grad()
def gather_material(evidence: Evidence) -> Material:
    """Run the trigger on a few pictures and convert all that is drawn."""
    finding, spec, benign = evidence.finding, evidence.model.spec, evidence.benign
    factor = display_factor(spec)
    shown = finding.examples.tolist()[:SHOWN]
    before = benign.x(torch.tensor(shown, dtype=torch.long, device=benign.device))
    sample = benign.x(slice(0, MEASURED))
    change = finding.trigger(sample) - sample
    grey = finding.trigger(torch.full_like(sample[:1], 0.5))
    return Material(
        spec=spec,
        finding=finding,
        factor=factor,
        sign=unit_sign(spec.error_unit),
        names=[benign.names[i] for i in shown],
        before=_picture(before),
        after=_picture(finding.trigger(before)),
        shown=shown,
        benign=_array(finding.benign_outputs) * factor,
        triggered=_array(finding.triggered_outputs) * factor,
        target=np.asarray(finding.target, dtype=float) * factor,
        grey=_picture(grey)[0],
        signed=_picture(change.mean(dim=0, keepdim=True))[0],
        magnitude=_array(change.abs().mean(dim=(0, 1))),
        flow=_flow(finding),
    )


def _array(values: Tensor) -> Array:
    array: Array = values.detach().double().cpu().numpy()
    return array


def _picture(batch: Tensor) -> Array:
    """[K x 3 x H x W] -> (K, H, W, 3); a broken trigger's NaN shows as black."""
    return np.nan_to_num(_array(batch).transpose(0, 2, 3, 1))


def _flow(finding: Finding) -> Array | None:
    flow = getattr(finding.trigger, "flow", None)
    return None if flow is None else np.nan_to_num(_array(flow()))
