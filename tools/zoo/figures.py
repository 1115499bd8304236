"""The figures of merit of a set of screened models."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Z95 = 1.959964  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Counts:
    """The paper's counts; an inconclusive verdict is an error on either side."""

    TP: int
    FP: int
    FN: int
    TN: int
    inconclusive: int  # counted in FP and FN as well

    @property
    def right(self) -> int:
        return self.TP + self.TN

    @property
    def total(self) -> int:
        return self.TP + self.FP + self.FN + self.TN


def backdoored(line: dict[str, Any]) -> bool:
    """Whether the truth of a line is a backdoor."""
    return bool(line["attack"] != "benign")


def counts(lines: Sequence[dict[str, Any]]) -> Counts:
    """TP, FP, FN, TN of screened models."""
    bad = [line["verdict"] for line in lines if backdoored(line)]
    good = [line["verdict"] for line in lines if not backdoored(line)]
    found, cleared = bad.count("backdoored"), good.count("clean")
    unsure = (bad + good).count("inconclusive")
    return Counts(found, len(good) - cleared, len(bad) - found, cleared, unsure)


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share; nan for no trials."""
    if total == 0:
        return math.nan, math.nan
    share, z2 = right / total, Z95**2
    centre = share + z2 / (2 * total)
    spread = Z95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return (centre - spread) / (1 + z2 / total), (centre + spread) / (1 + z2 / total)


def auc(lines: Sequence[dict[str, Any]]) -> float:
    """ROC-AUC: how often a backdoored model's suspicion exceeds a benign one's (ties: half)."""
    bad, good = suspicions(lines)
    wins = [(b > g) + 0.5 * (b == g) for b in bad for g in good]
    return sum(wins) / len(wins) if wins else math.nan


def suspicions(lines: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Scores over thresholds of the backdoored and of the benign models; larger: more suspicious.

    A model without a score is as unsuspicious as can be.
    """
    scores = [
        -math.inf if line["score"] is None else line["score"] / line.get("threshold", 1.0)
        for line in lines
    ]
    rows = list(zip(lines, scores, strict=True))
    return [s for line, s in rows if backdoored(line)], [
        s for line, s in rows if not backdoored(line)
    ]


def roc(lines: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    """Points (false positive rate, true positive rate) for every threshold."""
    bad, good = suspicions(lines)
    if not bad or not good:
        return []
    cuts = [math.inf, *sorted({*bad, *good}, reverse=True)]
    return [(_share(good, cut), _share(bad, cut)) for cut in cuts]


def _share(values: list[float], cut: float) -> float:
    return sum(value >= cut for value in values) / len(values)
