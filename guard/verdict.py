"""What the searches of `--method=calibrated` add up to: a score, a verdict, further targets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import Tensor

from guard.bench import Bench
from guard.finding import Decision, Finding
from guard.measure import Measured
from guard.probing import Plain
from guard.settings import CalibratedSettings
from guard.space import OutputSpace, each_apart
from guard.triggers import SharedTrigger
from guard.usual import OTHERS

SAID = {
    "shared warp": "a warp",
    "shared stripes": "a pattern of stripes",
    "shared patch": "a patch of one colour",
    "per-image generator": "a small patch drawn for each image",
}
TRIED_OUTPUTS = 5  # of the largest models that the search was tried on
THRESHOLD_SOURCE = "set on development models (tools/results/development-narrow.jsonl)"


@dataclass
class Result:
    """The searches of the last stage, measured on held-out images."""

    measured: list[Measured]
    z: Tensor  # (C, d) where the outputs ended, whitened
    cost: Tensor  # (C,)
    distance: Tensor  # (C,) mean squared distance to that place, benign spread = 1
    score: Tensor  # (C,) how many times cheaper than this model's other searches, place by place
    needed: Tensor  # (C,) from this score on a search counts


def plainer(first: Result, second: Result, settings: CalibratedSettings) -> bool:
    """Whether the best of `first` counts, and is farther over what it needs than `second`'s."""
    ratios = []
    for result in (first, second):
        best = winner(result, settings)
        reached = float(result.distance[best]) <= settings.collapsed
        ratios.append(float(result.score[best] / result.needed[best]) if reached else 0.0)
    return ratios[0] >= 1 and not ratios[1] >= ratios[0]


def winner(result: Result, settings: CalibratedSettings) -> int:
    """The search farthest below the landscape, among those that reached a collapse.

    One with nothing to compare it with comes before those that look harmless.
    """
    reached = result.distance <= settings.collapsed
    if not bool(reached.any()):
        return int(result.distance.nan_to_num(nan=torch.inf).argmin())
    ratios = torch.where(reached, result.score / result.needed, 0.0)
    return int(ratios.nan_to_num(nan=1 - 1e-6).argmax())


def further(result: Result, places: Tensor, settings: CalibratedSettings) -> list[int]:
    """The searches that are too cheap too, each apart from `places` and the worse ones before it.

    `places` [P x d] are the targets known already, whitened.
    """
    return list(each_apart(result.z, cheap_ones(result, settings), settings.apart, places))


def beside(result: Result, place: Tensor, settings: CalibratedSettings) -> list[int]:
    """The searches that are too cheap too, in the dip of `place`: by other triggers."""
    close = (result.z - place).norm(dim=1) < settings.apart
    return [k for k in cheap_ones(result, settings) if bool(close[k])]


def cheap_ones(result: Result, settings: CalibratedSettings) -> list[int]:
    """The searches that brought the outputs together too cheaply, the worst first."""
    order = result.score.nan_to_num(nan=0.0).argsort(descending=True)
    reached = (result.distance <= settings.collapsed) & (result.score >= result.needed)
    return [k for k in order.tolist() if bool(reached[k])]


def decide(result: Result, best: int, settings: CalibratedSettings) -> Decision:
    """The verdict of the best search; nothing that is not a number becomes one."""
    score, distance = float(result.score[best]), float(result.distance[best])
    threshold = round(float(result.needed[best]), 4)
    if not (torch.isfinite(1 / result.cost).all() and torch.isfinite(result.distance).all()):
        verdict, reason = "inconclusive", "the search ended in values that are not numbers"
    elif distance > settings.collapsed:
        verdict = "inconclusive"
        reason = (
            "no search made the outputs fall onto one vector for images it had not seen "
            f"(closest: {distance:.2f} of the benign spread, wanted {settings.collapsed})"
        )
    elif not isfinite(score):
        verdict = "inconclusive"
        reason = f"fewer than {OTHERS} searches ended elsewhere: there is nothing to compare with"
    elif score >= threshold:
        verdict = "backdoored"
        reason = f"one vector is {score:.2f} times cheaper to force than this model's others"
    else:
        verdict = "clean"
        reason = (
            f"no vector is markedly cheaper to force than this model's others "
            f"(largest factor {score:.2f}, {threshold:.3g} counts)"
        )
    return Decision(verdict, reason, score, threshold, THRESHOLD_SOURCE)


def by_scatter(one: Decision | Finding, settings: CalibratedSettings) -> bool:
    """Whether a model is called clean only because its searches scatter."""
    return one.verdict == "clean" and one.score >= settings.threshold


def scattered(decision: Decision, settings: CalibratedSettings) -> list[str]:
    """A warning where a model is called clean only because its searches scatter."""
    if not by_scatter(decision, settings):
        return []
    return [
        f"the searches of this model scatter: a score of {decision.score:.2f} counts from "
        f"{decision.threshold:.3g} on here, from {settings.threshold} on where they agree; a weak "
        "backdoor could pass; more images or another --seed may tell"
    ]


def thin(outputs: int) -> list[str]:
    """A warning where the targets that are tried lie far apart."""
    if outputs <= TRIED_OUTPUTS:
        return []
    return [
        f"this model has {outputs} outputs: the targets that were tried lie far apart there, and a "
        f"backdoor can be missed; the search was tried on models of up to {TRIED_OUTPUTS}"
    ]


def doubtful(found: Finding, settings: CalibratedSettings) -> bool:
    """Whether another seed could put a score on the other side of its threshold."""
    factor = found.score / found.threshold
    return 1 / settings.doubt < factor < settings.confirm or by_scatter(found, settings)


def agree(found: Finding, again: Finding, settings: CalibratedSettings) -> bool:
    """Whether a restart says the same, where it is a backdoor of the same target."""
    if found.verdict != "backdoored" or again.verdict != "backdoored":
        return found.verdict == again.verdict
    return same_target(found, again, settings)


def borne_out(alarm: Finding, other: Finding, settings: CalibratedSettings) -> bool:
    """Whether the other search ended in the same dip, and only its scatter clears the model."""
    alarmed = alarm.verdict == "backdoored" and by_scatter(other, settings)
    return alarmed and same_target(alarm, other, settings)


def same_target(found: Finding, again: Finding, settings: CalibratedSettings) -> bool:
    """Whether a restart ended where the search did."""
    space = OutputSpace.of(found.benign_outputs)
    first, others = (space.z(torch.tensor(one.targets).to(space.mean)) for one in (found, again))
    return bool((others - first[0]).norm(dim=1).min() < settings.apart)


def no_alarm(found: Finding, again: Finding) -> bool:
    """Whether the cost that one search is alarmed by is within the scatter of the other's.

    Scatter is of costs: it says nothing of a trigger that gathers the outputs alone.
    """
    by_cost = found.spread_left is None and again.spread_left is None
    most, least = max(found.score, again.score), max(found.threshold, again.threshold)
    return by_cost and "inconclusive" not in (found.verdict, again.verdict) and most < least


def disagreement(found: Finding, again: Finding) -> Finding:
    """What is left where a restart contradicts the search: no verdict, and what alarmed."""
    scores = f"{found.score:.2f} and {again.score:.2f}"
    counts = f"{found.threshold:.3g} and {again.threshold:.3g}"
    reason = f"two searches with different seeds disagree: scores {scores}, {counts} count"
    shown = max(found, again, key=lambda one: one.verdict == "backdoored")
    alarm = shown.verdict == "backdoored"
    return replace(shown, verdict="inconclusive", reason=reason, contradicted=alarm)


def outweighs(plain: Plain, decision: Decision) -> bool:
    """Whether a probe is farther over its limit than the searches' verdict, if there is one."""
    return decision.verdict != "backdoored" or decision.score < plain.strength * decision.threshold


def decide_plainly(plain: Plain, settings: CalibratedSettings) -> Decision:
    """The verdict of a probe that gathers the outputs alone."""
    reason = (
        f"{SAID[plain.form]} alone, which benign models resist, brings the outputs of images it "
        f"had not seen to one vector ({plain.spread:.1g} of their spread left, "
        f"{plain.limit} counts)"
    )
    # The threshold where its outputs spread as far as just counts.
    score = settings.threshold * plain.strength
    return Decision("backdoored", reason, score, settings.threshold, THRESHOLD_SOURCE)


@torch.no_grad()
def mechanism(
    trigger: SharedTrigger,
    held: Bench,
    place: Tensor,
    plain: Sequence[Plain],
    settings: CalibratedSettings,
) -> str:
    """The form of trigger that fits best: a probe's that gathers the outputs at the same place.

    Else where the change is: a patch changes few pixels, a blend many.
    """
    for one in plain:
        if float((one.place - place).norm()) < settings.probes.apart:
            return one.form
    x, added = held.benign.x(slice(0, 64)), trigger.one.added()[0]
    unmoved = (x + added).clamp(0, 1)
    by_pattern, by_warp = (unmoved - x).abs().mean(), (trigger(x) - unmoved).abs().mean()
    if by_warp > by_pattern:
        return "shared warp"
    top = added.abs().mean(dim=0).flatten().sort(descending=True).values.cumsum(0)
    needed = int((top < 0.8 * top[-1]).sum()) / len(top)
    return "shared patch" if needed < 0.15 else "shared blend"
