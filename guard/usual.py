"""What is usual in a model: what its other searches say of a place, and how far off they may be."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from guard.settings import CalibratedSettings

OTHERS = 3  # fewer searches to compare with say nothing
ROUNDS = 60  # of reweighting; the fit stands still long before
FREEDOM = 3.0  # degrees of it: a residual of several deviations has little say
STEEP = 0.1  # of log f for each whitened unit: how steep the trend is, by order of magnitude
LEAST = 0.04  # no smaller spread of log f is believed: a few searches may agree by chance


@dataclass(frozen=True)
class Ends:
    """Where the searches of one stage ended, and how far below the landscape."""

    z: Tensor  # (C, d) whitened
    factor: Tensor  # (C,) what the landscape says for the place, over the cost

    def apart(self, place: Tensor, least: float) -> "Ends":
        """Those at least so far from a place."""
        kept = ((self.z - place).norm(dim=1) >= least) & self.factor.log().isfinite()
        return Ends(self.z[kept], self.factor[kept])


def others(
    ends: Ends, distance: Tensor, scan: Ends, settings: CalibratedSettings
) -> tuple[Tensor, Tensor]:
    """What the searches that ended apart from each say of it: what is usual, what it needs, (C,).

    Usual is what their factors come to at its place, by their trend: they chose their places in the
    same way, so what is only the best of many does not stand out. One that has not brought its
    outputs together yet would cost more than it does, which makes the score smaller. NaN where the
    others are few.

    Needed is a score of at least the threshold, and more where the others scatter about their
    trend or say little of the place: as many standard deviations as `scatter` says (NaN counts as
    none). But a search pays for no more collapse than it must: where outputs lie far closer
    together than in the others, they are drawn to one vector, and scatter does not explain that.
    """
    apart = torch.cdist(ends.z, ends.z) >= settings.apart
    said = [said_of(place, [ends, scan], settings.apart) for place in ends.z]
    usual, deviation = torch.tensor(said).to(ends.z).T
    least = (settings.scatter * deviation).exp().nan_to_num(nan=0.0)
    drawn = distance <= settings.drawn * torch.where(apart, distance, nan).nanmedian(dim=1).values
    return usual.exp(), least.masked_fill(drawn, 0.0).clamp_min(settings.threshold)


def itself(ends: Ends, settings: CalibratedSettings) -> tuple[Tensor, Tensor]:
    """The same for searches of the scan: all of it made the landscape, so a factor of 1 is usual.

    They have not moved away from where the grid put them, so there are fewer ways to be cheap by
    chance: what they need does not follow their scatter.
    """
    return torch.ones_like(ends.factor), torch.full_like(ends.factor, settings.dip)


def said_of(place: Tensor, stages: Sequence[Ends], least: float) -> tuple[float, float]:
    """log f that one more search of the first stage would have at `place`; its standard deviation.

    NaN where few of that stage ended apart from it. The further stages, where enough of them did,
    know the other side: where half of the searches share a dip, the others may all lie on one.
    """
    first, *rest = (ends.apart(place, least) for ends in stages)
    if len(first.factor) < OTHERS:
        return nan, nan
    return trend([first, *(ends for ends in rest if len(ends.factor) >= OTHERS)], place)


def trend(stages: Sequence[Ends], place: Tensor) -> tuple[float, float]:
    """log f = a + b . (z - place): a of the first stage, and how far one more search may lie off.

    A stage has its own a and its own spread about the trend; all share b, which is taken to be
    normal with deviation STEEP. Residuals are those of Student's t; fitted by reweighted least
    squares from the medians on (Lange, Little and Taylor, "Robust statistical modeling using the t
    distribution", 1989).
    """
    stage = torch.cat([torch.full((len(e.factor),), k) for k, e in enumerate(stages)])
    level = one_hot(stage).double()  # (n, stages)
    z = torch.cat([ends.z for ends in stages]).double().cpu() - place.double().cpu()
    logs = torch.cat([ends.factor for ends in stages]).double().cpu().log()
    columns = torch.cat([level, z], dim=1)
    ridge = torch.cat([torch.zeros(len(stages)), torch.full((z.shape[1],), STEEP**-2)]).diag()
    residuals = logs - torch.stack([logs[stage == k].median() for k in range(len(stages))])[stage]
    spread = deviation(residuals, torch.ones_like(logs), 1 / level.sum(dim=0)[stage], level)
    for _ in range(ROUNDS):
        each = level @ spread
        say = (FREEDOM + 1) / (FREEDOM + (residuals / each).square())
        weighted = columns * (say / each.square())[:, None]
        covariance = torch.linalg.inv(columns.T @ weighted + ridge)
        solution = covariance @ (weighted.T @ logs)
        residuals = logs - columns @ solution
        spread = deviation(residuals, say, (columns @ covariance * weighted).sum(dim=1), level)
    return float(solution[0]), float((spread[0].square() + covariance[0, 0]).sqrt())


def deviation(residuals: Tensor, say: Tensor, taken: Tensor, level: Tensor) -> Tensor:
    """The spread of each stage's residuals; `taken` (n,) is what the fit takes of each."""
    left = (level.sum(dim=0) - taken @ level).clamp_min(1.0)
    return ((say * residuals.square()) @ level / left).sqrt().clamp_min(LEAST)
