"""The course of the fine-tuning that takes the backdoor away, on the pictures held back from it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from tools.report.material import Array, Material
from tools.report.plotting import BENIGN, INK, TRIGGERED, Picture, key, literal, panel


def removal_figures(material: Material, mitigation: Mapping[str, Any]) -> list[Picture]:
    """Both errors at every look; none where there was one look or less. Of report.json."""
    looks = mitigation.get("curve") or []
    if len(looks) < 2:
        return []
    rows = np.array([[look[k] for k in ("step", "benign", "triggered")] for look in looks], float)
    allowed = mitigation["settings"]["rise"] * mitigation["benign_error_before"]
    return [
        panel(
            "removal",
            partial(_looks, rows, allowed, material.sign),
            alt="Benign and triggered error over the steps of the fine-tuning",
            caption="Errors on the pictures held back. At step 0 the supplied model; then a copy "
            "whose last layers have forgotten, while it learns again. Only the end is judged.",
        )
    ]


def _looks(rows: Array, allowed: float, sign: str, axes: Axes) -> None:
    steps, benign, triggered = rows.T
    axes.plot(steps, triggered, "o-", ms=4, color=TRIGGERED, label="triggered")
    axes.plot(steps, benign, "o-", ms=4, color=BENIGN, label="benign")
    axes.axhline(allowed, color=INK, ls="--", lw=1.2, label="benign, at most")
    axes.set(xlabel="step", ylabel=literal(f"error ({sign})"), ylim=(0, None))
    key(axes)
