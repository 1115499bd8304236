"""Numbers and outputs as people read them."""

import math
from collections.abc import Sequence
from typing import Any

from guard.spec import ANGLE_UNITS, OUTPUT_NAMES, ModelSpec

NOTHING = "not available"


def display_factor(spec: ModelSpec) -> float:
    """What turns the model's outputs into shown units: angles are shown in degrees."""
    return ANGLE_UNITS[spec.units] if spec.task in OUTPUT_NAMES else 1.0


def number(value: Any, digits: int = 3) -> str:
    """A number with `digits` significant digits, without an exponent where one can do without."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if -5 <= size < 6:
        shown = f"{value:,.{max(0, digits - 1 - size)}f}"
    else:
        shown = f"{value:.{digits - 1}e}"
    return shown.replace("-", "\u2212")


def amount(value: Any, unit: str) -> str:
    """A value of an output or an error: one decimal and a degree sign for angles."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if unit != "deg":
        return f"{number(value)} {unit}".strip()
    shown = f"{value:.1f}".replace("-", "\u2212")
    return ("0.0" if float(f"{value:.1f}") == 0 else shown) + "\u00b0"


def percent(value: Any, digits: int = 2) -> str:
    """A share as a percentage."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{number(100 * value, digits)} %"


def answer(spec: ModelSpec, values: Sequence[float | None] | None) -> str:
    """Outputs (d,) in the model's units as "pitch 3.1 degrees, yaw -15.2 degrees"."""
    if values is None:
        return "\u2013"
    shown = [None if v is None else v * display_factor(spec) for v in values]
    pairs = zip(spec.outputs, shown, strict=True)
    return ", ".join(f"{name} {amount(v, spec.error_unit)}" for name, v in pairs)


def unit_sign(unit: str) -> str:
    """The unit as it stands on an axis."""
    return "\u00b0" if unit == "deg" else unit
