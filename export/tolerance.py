"""How far a file's answers may lie from the torch model's, and why that far."""

import math
from dataclasses import dataclass

# The largest difference in degrees; for int8 the mean difference.
CAPS = {"fp32": 0.01, "fp16": 0.1, "int8": 0.5}
# Two float32 results of one formula lie about two roundings apart (measured over eleven networks:
# 0.5 to 1.9 times the model's own rounding). Five times that leaves room for kernels that sum in
# other orders: Winograd, other instruction sets, GPUs.
MULTIPLE = 10.0
STEP = {"fp32": 1.0, "fp16": 2.0**13}  # a rounding of the precision over one of float32
# On any single picture, faces or not, int8 may be off by so many times its mean (measured over ten
# networks: up to 5 times on faces, 3 on noise). A mean alone would hide a few wrong answers.
LARGEST = 10.0
# In real half floats noise and flat pictures may be off by so many times what faces may (measured
# over eleven networks, in degrees: faces 0.01 to 0.06, these 0.005 to 0.13, MobileNetV1 the most).
UNLIKE = 5.0
SPREAD_DEG = 10.0  # standard deviation of gaze and head pose; caps in other units are shares of it


@dataclass(frozen=True)
class Tolerance:
    """A limit on the difference of one file on one group of images."""

    value: float  # in the task's unit
    statistic: str  # "max" or "mean" over the images
    largest: float  # on any one image
    reason: str


def tolerance(
    precision: str,
    noise: float,
    *,
    unit: str,
    spread: float,
    limits: bool = False,
    real: bool = False,
) -> Tolerance:
    """The tolerance of "fp32", "fp16" or "int8".

    `noise` is the model's own rounding: its largest float32-against-float64 difference on the
    same images, in `unit`; infinite where that can't be measured. `spread` is the standard
    deviation of its outputs on benign images: it scales the caps where `unit` is not "deg".
    `limits` tells pictures at the limits, `real` half floats that are not computed in float32.
    """
    cap, what = CAPS[precision], f"{CAPS[precision]:g} deg"
    if unit != "deg":
        share = cap / SPREAD_DEG
        cap, what = share * spread, f"{share:g} of the outputs' spread of {spread:.4g} {unit}"
        if not spread and math.isfinite(noise):  # one image has none
            cap = MULTIPLE * noise
    if precision == "int8":
        most = LARGEST * cap
        single = f"{LARGEST:g} times that on any picture"
        if not limits:
            reason = f"int8: at most {what} on average, {single}"
            return Tolerance(cap, "mean", most, reason)
        reason = f"int8 on pictures unlike those that calibrated it: {LARGEST:g} times {what}"
        return Tolerance(most, "max", most, reason)
    allowed = min(MULTIPLE * STEP[precision] * noise, cap)
    reason = (
        f"{precision}: {MULTIPLE:g} times the model's own rounding ({noise:.3g} {unit} between "
        f"float32 and float64 on these images, times {STEP[precision]:g} for the precision), "
        f"at most {what}"
    )
    if math.isinf(noise):
        reason = f"{precision}: at most {what}; the model has no float64 twin"
    if real and limits:
        allowed *= UNLIKE
        reason += f"; {UNLIKE:g} times that in real half floats on pictures that no camera gives"
    return Tolerance(allowed, "max", allowed, reason)
