"""`--method=calibrated`: the paper's search with the model as its own control.

Scan a grid of targets over and beyond the benign outputs, read the cost landscape, let the most
suspicious searches go on, each to where it is cheapest for its place, and compare the best of them
with the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from guard import verdict
from guard.bench import Bench
from guard.collapse import Collapse
from guard.dynamic import draw_triggers
from guard.engine import Engine, Stage, settle
from guard.finding import Curves, Decision, Finding, FurtherTarget
from guard.landscape import Baseline, target_grid
from guard.measure import AMPLIFIED, Measured, measure, target_of
from guard.probing import Plain, Probes, plain_ones, probe
from guard.settings import CalibratedSettings
from guard.space import OutputSpace
from guard.triggers import SharedTriggers
from guard.verdict import Result

# factors below the landscape, places, distances -> the usual factor, from which score one counts
Scale = Callable[[Tensor, Tensor, Tensor, CalibratedSettings], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Work:
    """What the stages of one screening share."""

    bench: Bench  # the images to search on
    held: Bench  # those to measure on
    space: OutputSpace
    engine: Engine
    settings: CalibratedSettings


def search(bench: Bench, held: Bench, engine: Engine, settings: CalibratedSettings) -> Finding:
    """Search on the images of `bench`, measure on those of `held`; twice where it is a near thing.

    Restarts that disagree make no verdict.
    """
    found = search_once(bench, held, engine, settings)
    if not verdict.doubtful(found, settings):
        return found
    again = search_once(bench, held, engine.again(), settings)
    if verdict.agree(found, again, settings):
        return found
    if verdict.no_alarm(found, again):
        return found if found.verdict == "clean" else again
    return verdict.disagreement(found, again)


@dataclass(frozen=True)
class Ended:
    """The searches that one stage leaves to the verdict."""

    searches: Collapse
    result: Result
    curves: Curves  # side by side


def search_once(bench: Bench, held: Bench, engine: Engine, settings: CalibratedSettings) -> Finding:
    """One search over all targets, with its verdict."""
    work = Work(bench, held, OutputSpace.of(bench.outputs), engine, settings)
    probes = probe(bench, work.space, engine, settings.probes)
    scan = begin(work, probes)
    course = run("scan", scan, work, settings.scan_steps, settings.scan_batch)
    landscape = Baseline.fit(scan.places, scan.change)
    chosen = choose(scan, landscape, settings)
    refined = refine(scan, chosen, course, landscape, work)
    ended = as_scanned(scan, chosen, course, landscape, work)
    if ended is None or not verdict.plainer(ended.result, refined.result, settings):
        ended = refined
    plain = plain_ones(probes, held, work.space, settings.probes)
    ruling = rule(ended, plain, work)
    finding = Finding.of(
        "calibrated",
        ruling.decision,
        ruling.trigger,
        ruling.measured,
        held,
        mechanism=ruling.mechanism,
        curves=ended.curves.of_search(ruling.best),
        restarts=scan_rows(scan, landscape, work) + free_rows(refined, work),
    )
    return completed(finding, ruling, ended, plain, work)


def refine(
    scan: Collapse, chosen: Tensor, course: Curves, landscape: Baseline, work: Work
) -> Ended:
    """The searches of `chosen` go on, each to where it is cheapest for its place."""
    settings = work.settings
    searches = scan.continued(chosen, settings.refine_reach, landscape)
    curves = run("refine", searches, work, settings.refine_steps, settings.refine_batch)
    result = measure_all(searches, landscape, work, verdict.others)
    return Ended(searches, result, course.of_searches(chosen.tolist()).then(curves))


def as_scanned(
    scan: Collapse, chosen: Tensor, course: Curves, landscape: Baseline, work: Work
) -> Ended | None:
    """Those of `chosen` that lie in a dip, as the scan left them: going on can lose it again."""
    factors = (landscape.cost(scan.places) / scan.change)[chosen]
    dips = chosen[factors >= work.settings.dip]
    if not len(dips):
        return None
    searches = scan.continued(dips, work.settings.refine_reach, landscape)
    result = measure_all(searches, landscape, work, verdict.scanned)
    return Ended(searches, result, course.of_searches(dips.tolist()))


@dataclass(frozen=True)
class Ruling:
    """What decides, and what it rests on."""

    decision: Decision
    best: int  # of the searches
    trigger: nn.Module
    measured: Measured
    place: Tensor  # (d,) where it puts the outputs, whitened
    mechanism: str
    plain: Plain | None  # where it, and no search, decides


def rule(ended: Ended, plain: Sequence[Plain], work: Work) -> Ruling:
    """The best search decides, or a probe that is plainer, or a trigger drawn for each image."""
    result, best = ended.result, verdict.winner(ended.result, work.settings)
    decision = verdict.decide(result, best, work.settings)
    shared = ended.searches.triggers.select(best)
    alone = plain[0] if plain and verdict.outweighs(plain[0], decision) else None
    if alone is None and decision.verdict != "backdoored":  # no shared change explains one
        alone = draw_triggers(work.bench, work.held, work.space, work.engine, work.settings.dynamic)
    if alone:
        decision = verdict.decide_plainly(alone, work.settings)
        return Ruling(decision, best, alone.trigger, alone.measured, alone.place, alone.form, alone)
    place = result.z[best]
    form = verdict.mechanism(shared, work.held, place, plain, work.settings)
    return Ruling(decision, best, shared, result.measured[best], place, form, None)


def completed(
    finding: Finding, ruling: Ruling, ended: Ended, plain: Sequence[Plain], work: Work
) -> Finding:
    """With the target, further targets, and what else leads to them."""
    if finding.verdict == "backdoored":
        # A probe's change is not the smallest one: more of it would lead past the target.
        finding.target = target_of(ruling.trigger, work.held, 1.0 if ruling.plain else AMPLIFIED)
    finding.warnings += verdict.scattered(ruling.decision, work.settings)
    finding.warnings += verdict.thin(work.bench.outputs.shape[1])
    others = verdict.further(ended.result, ruling.place, work.settings)
    finding.further = [further_target(k, ended, work.held) for k in others]
    if ruling.plain:
        finding.spread_left, finding.spread_limit = ruling.plain.spread, ruling.plain.limit
    finding.beside = [one.trigger for one in plain if one is not ruling.plain]
    same = verdict.beside(ended.result, ruling.place, work.settings)
    others = [k for k in same if ruling.plain or k != ruling.best]
    finding.beside += [ended.searches.triggers.select(k) for k in others]
    return finding


def begin(work: Work, probes: Sequence[Probes]) -> Collapse:
    """A search for each target of the grid and, from what gave it away, for each probe's."""
    grid = target_grid(work.bench.outputs.shape[1]).to(work.bench.device)
    targets = torch.cat([grid, *(one.places for one in probes)])
    triggers = SharedTriggers(len(targets), work.bench.model.spec.input.size, work.engine.seed)
    begun = [one.triggers.drawn_on(triggers.pattern.shape[-1]) for one in probes]
    with torch.no_grad():
        triggers.pattern[len(grid) :] += torch.cat([one.pattern for one in begun]).cpu()
        triggers.nodes[len(grid) :] = torch.cat([one.nodes for one in begun]).cpu()
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
        settle,  # costs are compared once they have settled
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


def measure_all(searches: Collapse, landscape: Baseline, work: Work, scale: Scale) -> Result:
    """The figures of each search over all held-out images."""
    triggers = [searches.triggers.select(k) for k in range(len(searches.targets))]
    measured = [measure(trigger, work.held) for trigger in triggers]
    outputs = work.space.z(torch.stack([m.outputs for m in measured]))  # (C, N, d)
    z = outputs.mean(dim=1)
    distance = (outputs - z[:, None]).square().mean(dim=(1, 2))
    cost = torch.tensor([m.perturbation for m in measured], device=outputs.device)
    factor = landscape.cost(z) / cost
    usual, needed = scale(factor, z, distance, work.settings)
    score = factor / usual if work.settings.controls else factor
    return Result(measured, z, cost, distance, score, needed)


def further_target(k: int, ended: Ended, held: Bench) -> FurtherTarget:
    """What search k found."""
    trigger = ended.searches.triggers.select(k)
    return FurtherTarget(target_of(trigger, held), float(ended.result.score[k]), trigger)


def scan_rows(scan: Collapse, landscape: Baseline, work: Work) -> list[dict[str, Any]]:
    """One row a search of the scan for the report."""
    figures = [scan.places, scan.change, landscape.cost(scan.places), scan.collapse]
    return rows("scan", work.settings.scan_steps, scan, figures, work)


def free_rows(refined: Ended, work: Work) -> list[dict[str, Any]]:
    """One row a search that went on."""
    result, settings = refined.result, work.settings
    figures = [result.z, result.cost, result.score * result.cost, result.distance]
    return rows(
        "free", settings.scan_steps + settings.refine_steps, refined.searches, figures, work
    )


def rows(
    role: str, steps: int, searches: Collapse, figures: list[Tensor], work: Work
) -> list[dict[str, Any]]:
    """`figures`: places, costs, what is usual, distances left."""
    names = ("target", "found", "cost", "baseline", "distance")
    columns = [work.space.y(searches.targets), work.space.y(figures[0]), *figures[1:]]
    values = zip(*[column.tolist() for column in columns], strict=True)
    kept = [{"role": role, "steps": steps, **dict(zip(names, row, strict=True))} for row in values]
    return [row | {"converged": row["distance"] <= work.settings.collapsed} for row in kept]
