"""`--method=calibrated`: the paper's search with the model as its own control.

Scan a grid of targets over and beyond the benign outputs, read the cost landscape, let the most
suspicious searches go on, each to where it is cheapest for its place, and compare the best of them
with the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from typing import Any

import torch
from torch import Tensor

from guard.bench import Bench
from guard.collapse import Collapse, CollapseSettings
from guard.engine import Engine, Stage
from guard.finding import Curves, Decision, Finding, FurtherTarget
from guard.landscape import Baseline, target_grid
from guard.measure import Measured, measure
from guard.probing import Probes, ProbeSettings, probe
from guard.space import OutputSpace
from guard.triggers import SharedTrigger, SharedTriggers

OTHERS = 3  # fewer searches to compare with make no verdict
THRESHOLD_SOURCE = "set on development models (tools/results/development.jsonl)"


@dataclass(frozen=True)
class CalibratedSettings:
    """One setting for every data set, image size, task and architecture."""

    # Many steps of few images: at the same cost, 300 x 5 shows a dip of a factor 5 where 90 x 16
    # shows none, because the change shrinks by steps and not by images.
    scan_steps: int = 300
    scan_batch: int = 5  # images a step, for each target
    refine_steps: int = 300
    refine_batch: int = 6
    # How far from its target a search may end, whitened: begun half a spread beside its dip, a
    # search with a fixed target sees nothing of a warp.
    scan_reach: float = 0.5
    refine_reach: float = 0.7
    candidates: int = 13  # searches that go on; all but the best of them are its controls
    crowd: int = 5  # of them that may start as close together as `apart`
    learning_rate: float = 0.1  # of the pattern
    warp_rate: float = 0.03  # of the displacement nodes
    threshold: float = 1.45  # n times cheaper than the other searches, place by place
    apart: float = 1.5  # whitened units between two targets of one model; nearer ones are one dip
    collapsed: float = 0.15  # held-out mean squared distance to their place that still counts
    collapse: CollapseSettings = field(default_factory=CollapseSettings)
    probes: ProbeSettings = field(default_factory=ProbeSettings)


@dataclass
class Result:
    """The searches of the last stage, measured on held-out images."""

    measured: list[Measured]
    z: Tensor  # (C, d) where the outputs ended, whitened
    cost: Tensor  # (C,)
    distance: Tensor  # (C,) mean squared distance to that place, benign spread = 1
    score: Tensor  # (C,) how many times cheaper than this model's other searches, place by place


@dataclass(frozen=True)
class Work:
    """What the stages of one screening share."""

    bench: Bench  # the images to search on
    space: OutputSpace
    engine: Engine
    settings: CalibratedSettings


def search(bench: Bench, held: Bench, engine: Engine, settings: CalibratedSettings) -> Finding:
    """Search on the images of `bench`, measure on those of `held`."""
    work = Work(bench, OutputSpace.of(bench.outputs), engine, settings)
    probes = probe(bench, work.space, engine, settings.probes)
    scan = begin(work, probes)
    scan_curves = run("scan", scan, work, settings.scan_steps, settings.scan_batch)
    landscape = Baseline.fit(scan.places, scan.change)
    chosen = choose(scan, landscape, settings)
    refine = scan.continued(chosen, settings.refine_reach, landscape)
    curves = run("refine", refine, work, settings.refine_steps, settings.refine_batch)
    result = measure_all(refine, held, work, landscape)
    best = winner(result, settings)
    trigger = refine.triggers.select(best)
    narrow = {one.form: one.explaining(result.z[best], settings.probes) for one in probes}
    scanned = [scan.places, scan.change, landscape.cost(scan.places), scan.collapse]
    ended = [result.z, result.cost, result.score * result.cost, result.distance]
    finding = Finding.of(
        "calibrated",
        decide(result, best, settings),
        trigger,
        result.measured[best],
        held,
        mechanism=mechanism(trigger, held, [form for form, found in narrow.items() if found]),
        curves=scan_curves.of_search(int(chosen[best])).then(curves.of_search(best)),
        restarts=rows("scan", scan, work, scanned) + rows("free", refine, work, ended),
    )
    finding.further = [target_of(k, refine, result) for k in further(result, best, settings)]
    finding.narrow = [trigger for found in narrow.values() for trigger in found]
    return finding


def begin(work: Work, probes: Sequence[Probes]) -> Collapse:
    """A search for each target of the grid and, from what gave it away, for each probe's."""
    grid = target_grid(work.bench.outputs.shape[1]).to(work.bench.device)
    targets = torch.cat([grid, *(one.places for one in probes)])
    triggers = SharedTriggers(len(targets), work.bench.model.spec.input.size, work.engine.seed)
    with torch.no_grad():
        triggers.pattern[len(grid) :] += torch.cat([one.triggers.pattern for one in probes]).cpu()
        triggers.nodes[len(grid) :] = torch.cat([one.triggers.nodes for one in probes])
    settings = work.settings
    return Collapse(triggers, targets, settings.collapse, settings.scan_reach).to(work.bench.device)


def run(name: str, searches: Collapse, work: Work, steps: int, batch: int) -> Curves:
    """One stage of the engine over searches that run side by side."""
    stage = Stage(
        name,
        searches,
        searches.triggers.optimizer(work.settings.learning_rate, work.settings.warp_rate),
        lambda index, at: searches.objective(work.bench, work.space, index),
        len(work.bench.benign),
        steps,
        batch,
        lambda at: min(1.0, 2 * (1 - at)),  # costs are compared once they have settled
    )
    return work.engine.run(stage)


def choose(scan: Collapse, landscape: Baseline, settings: CalibratedSettings) -> Tensor:
    """Which searches go on: those that ended farthest below the landscape, (C,) indices.

    A dip takes in only a few of them, so that others are left to compare it with.
    """
    order = (landscape.cost(scan.places) / scan.change).argsort(descending=True)
    close = torch.cdist(scan.places, scan.places) < settings.apart
    taken: list[int] = []
    for k in order.tolist():
        if int(close[k, taken].sum()) < settings.crowd:
            taken.append(k)
    rest = [k for k in order.tolist() if k not in taken]
    return order.new_tensor((taken + rest)[: settings.candidates])


def measure_all(refine: Collapse, held: Bench, work: Work, landscape: Baseline) -> Result:
    """The figures of each search over all held-out images."""
    measured = [measure(refine.triggers.select(k), held) for k in range(len(refine.targets))]
    outputs = work.space.z(torch.stack([m.outputs for m in measured]))  # (C, N, d)
    z = outputs.mean(dim=1)
    distance = (outputs - z[:, None]).square().mean(dim=(1, 2))
    cost = torch.tensor([m.perturbation for m in measured], device=outputs.device)
    factor = landscape.cost(z) / cost
    score = factor / usual(factor, z, work.settings.apart)
    return Result(measured, z, cost, distance, score)


def usual(factor: Tensor, z: Tensor, apart: float) -> Tensor:
    """How far below the landscape searches end by their freedom alone, for each search, (C,).

    The median of the others that ended apart from it: they chose their places in the same way,
    so what is only the best of many does not stand out. One that has not brought its outputs
    together yet would cost more than it does, which makes the score smaller. NaN where the
    others are few.
    """
    others = torch.cdist(z, z) >= apart
    medians = torch.where(others, factor, nan).nanmedian(dim=1).values
    return torch.where(others.sum(dim=1) < OTHERS, nan, medians)


def winner(result: Result, settings: CalibratedSettings) -> int:
    """The search farthest below the landscape, among those that reached a collapse.

    One with nothing to compare it with comes before those that look harmless.
    """
    reached = result.distance <= settings.collapsed
    if not bool(reached.any()):
        return int(result.distance.nan_to_num(nan=torch.inf).argmin())
    scores = torch.where(reached, result.score, 0.0)
    return int(scores.nan_to_num(nan=settings.threshold * (1 - 1e-6)).argmax())


def further(result: Result, best: int, settings: CalibratedSettings) -> list[int]:
    """The other searches that are too cheap, each apart from the worse ones before it."""
    reached = (result.distance <= settings.collapsed) & (result.score >= settings.threshold)
    taken = [best]
    for k in result.score.nan_to_num(nan=0.0).argsort(descending=True).tolist():
        distances = (result.z[taken] - result.z[k]).norm(dim=1)
        if bool(reached[k]) and bool((distances >= settings.apart).all()):
            taken.append(k)
    return taken[1:]


def target_of(k: int, refine: Collapse, result: Result) -> FurtherTarget:
    """What search k found."""
    target = result.measured[k].outputs.mean(dim=0).tolist()
    return FurtherTarget(target, float(result.score[k]), refine.triggers.select(k))


def decide(result: Result, best: int, settings: CalibratedSettings) -> Decision:
    """The verdict of the best search; nothing that is not a number becomes one."""
    score, distance = float(result.score[best]), float(result.distance[best])
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
        reason = (
            f"fewer than {OTHERS} searches ended elsewhere, so there is nothing to compare with"
        )
    elif score >= settings.threshold:
        verdict = "backdoored"
        reason = f"one vector is {score:.2f} times cheaper to force than this model's others"
    else:
        verdict = "clean"
        reason = (
            f"no vector is markedly cheaper to force than this model's others "
            f"(largest factor {score:.2f}, {settings.threshold} counts)"
        )
    return Decision(verdict, reason, score, settings.threshold, THRESHOLD_SOURCE)


@torch.no_grad()
def mechanism(trigger: SharedTrigger, held: Bench, explained: Sequence[str]) -> str:
    """The form of trigger that fits best: what explains the target alone, else where the change is.

    A patch changes few pixels, a blend many.
    """
    if explained:
        return explained[0]
    x, added = held.benign.x(slice(0, 64)), trigger.one.added()[0]
    unmoved = (x + added).clamp(0, 1)
    by_pattern, by_warp = (unmoved - x).abs().mean(), (trigger(x) - unmoved).abs().mean()
    if by_warp > by_pattern:
        return "shared warp"
    top = added.abs().mean(dim=0).flatten().sort(descending=True).values.cumsum(0)
    needed = int((top < 0.8 * top[-1]).sum()) / len(top)
    return "shared patch" if needed < 0.15 else "shared blend"


def rows(role: str, searches: Collapse, work: Work, ended: list[Tensor]) -> list[dict[str, Any]]:
    """One row a search for the report; `ended`: places, costs, what is usual, distances left."""
    steps = work.settings.scan_steps + (role == "free") * work.settings.refine_steps
    names = ("target", "found", "cost", "baseline", "distance")
    columns = [work.space.y(searches.targets), work.space.y(ended[0]), *ended[1:]]
    values = zip(*[column.tolist() for column in columns], strict=True)
    kept = [{"role": role, "steps": steps, **dict(zip(names, row, strict=True))} for row in values]
    return [row | {"converged": row["distance"] <= work.settings.collapsed} for row in kept]
