"""`--method=calibrated`: the paper's search with the model as its own control.

Scan a grid of targets over and beyond the benign outputs, read the cost landscape, let the most
suspicious searches go on, each to where it is cheapest for its place, and compare the best of them
with the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from guard import verdict
from guard.bench import Bench
from guard.collapse import Collapse
from guard.dynamic import draw_triggers
from guard.engine import Engine
from guard.finding import Decision, Finding, FurtherTarget
from guard.measure import AMPLIFIED, Measured, target_of
from guard.patches import patches
from guard.probing import Plain, Probes, elsewhere, plain_ones, probe, sharpened, stripes_alike
from guard.settings import CalibratedSettings
from guard.space import OutputSpace
from guard.stages import Ended, Scan, Work, as_scanned, refine, scan_all
from guard.triggers import SharedTrigger


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
    for alarm, other in ((found, again), (again, found)):
        if verdict.borne_out(alarm, other, settings):
            return alarm
    return verdict.disagreement(found, again)


def search_once(bench: Bench, held: Bench, engine: Engine, settings: CalibratedSettings) -> Finding:
    """One search over all targets, with its verdict."""
    work = Work(bench, held, OutputSpace.of(bench.outputs), engine, settings)
    warps, striped = probe(bench, work.space, engine, settings.probes)
    probes = [warps, striped.tightest(settings.probes)]
    scan = scan_all(work, probes)
    refined = ended = refine(scan, work)
    scanned = as_scanned(scan, work)
    if scanned and verdict.plainer(scanned.result, refined.result, settings):
        ended = scanned
    plain = plain_ones(narrow(probes, work), held, work.space, settings.probes)
    ruling = rule(ended, plain, work)
    finding = Finding.of(
        "calibrated",
        ruling.decision,
        ruling.trigger,
        ruling.measured,
        held,
        mechanism=ruling.mechanism,
        curves=ended.curves.of_search(ruling.best),
        restarts=scan_rows(scan, work) + free_rows(refined, work),
    )
    completed(finding, ruling, ended, plain, work)
    if finding.verdict == "backdoored":
        finding.beside += stripes_alike(striped, ruling.place, settings.probes)
    return finding


def narrow(probes: Sequence[Probes], work: Work) -> list[Probes]:
    """What may decide alone: the warps that gave targets away, stripes, and patches."""
    (warps, striped), settings = probes, work.settings.probes
    warps = sharpened(warps, work.bench, work.space, work.engine, settings)
    return [warps, striped, patches(work.bench, work.space, settings)]


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
) -> None:
    """Add the target, further targets, and what else leads to them."""
    if finding.verdict == "backdoored":
        # A probe's change is not the smallest one: more of it would lead past the target.
        finding.target = target_of(ruling.trigger, work.held, 1.0 if ruling.plain else AMPLIFIED)
    finding.warnings += verdict.scattered(ruling.decision, work.settings)
    finding.warnings += verdict.thin(work.bench.outputs.shape[1])
    if ruling.plain:
        finding.spread_left, finding.spread_limit = ruling.plain.spread, ruling.plain.limit
    served = elsewhere(plain, ruling.place, work.settings.probes)
    places = torch.stack([ruling.place, *(one.place for one in served)])
    others = verdict.further(ended.result, places, work.settings)
    finding.further = [own_target(one, work) for one in served]
    finding.further += [further_target(k, ended, work.held) for k in others]
    told = [id(one) for one in (ruling.plain, *served)]
    finding.beside = [one.trigger for one in plain if id(one) not in told]
    finding.beside += same_dip(ruling, ended, work.settings)


def same_dip(ruling: Ruling, ended: Ended, settings: CalibratedSettings) -> list[SharedTrigger]:
    """The triggers of other searches that lead to the decisive target."""
    found = verdict.beside(ended.result, ruling.place, settings)
    others = [k for k in found if ruling.plain or k != ruling.best]
    return [ended.searches.triggers.select(k) for k in others]


def own_target(one: Plain, work: Work) -> FurtherTarget:
    """What a probe found that does not lead to the decisive target."""
    score = verdict.decide_plainly(one, work.settings).score
    return FurtherTarget(target_of(one.trigger, work.held, 1.0), score, one.trigger)


def further_target(k: int, ended: Ended, held: Bench) -> FurtherTarget:
    """What search k found."""
    trigger = ended.searches.triggers.select(k)
    return FurtherTarget(target_of(trigger, held), float(ended.result.score[k]), trigger)


def scan_rows(scan: Scan, work: Work) -> list[dict[str, Any]]:
    """One row a search of the scan for the report."""
    ended, usual = scan.searches, scan.landscape.cost(scan.searches.places)
    figures = [ended.places, ended.change, usual, ended.collapse]
    return rows("scan", work.settings.scan_steps, ended, figures, work)


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
