"""The stages of the calibrated search: a scan over all targets, then the suspicious ones go on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from guard.bench import Bench
from guard.collapse import Collapse
from guard.engine import Engine, Stage, settle
from guard.finding import Curves
from guard.landscape import Baseline, target_grid
from guard.measure import measure
from guard.probing import Probes
from guard.settings import CalibratedSettings
from guard.space import OutputSpace
from guard.triggers import SharedTriggers
from guard.usual import Ends, itself, others
from guard.verdict import Result

# where searches ended, distances left -> the usual factor, from which score one counts
Scale = Callable[[Ends, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Work:
    """What the stages of one screening share."""

    bench: Bench  # the images to search on
    held: Bench  # those to measure on
    space: OutputSpace
    engine: Engine
    settings: CalibratedSettings


@dataclass(frozen=True)
class Scan:
    """The scan's searches, the landscape of their costs, and which of them go on."""

    searches: Collapse
    curves: Curves  # side by side
    landscape: Baseline
    ends: Ends  # on the images that the searches saw
    chosen: Tensor  # (C,) indices


@dataclass(frozen=True)
class Ended:
    """The searches that one stage leaves to the verdict."""

    searches: Collapse
    result: Result
    curves: Curves  # side by side


def scan_all(work: Work, probes: Sequence[Probes]) -> Scan:
    """Search for all targets, each held where it is."""
    searches = begin(work, probes)
    curves = run("scan", searches, work, work.settings.scan_steps, work.settings.scan_batch)
    landscape = Baseline.fit(searches.places, searches.change)
    ends = Ends(searches.places, landscape.cost(searches.places) / searches.change)
    return Scan(searches, curves, landscape, ends, choose(ends, work.settings))


def refine(scan: Scan, work: Work) -> Ended:
    """The chosen searches go on, each to where it is cheapest for its place."""
    settings, chosen = work.settings, scan.chosen
    searches = scan.searches.continued(chosen, settings.refine_reach, scan.landscape)
    curves = run("refine", searches, work, settings.refine_steps, settings.refine_batch)
    scale = partial(others, scan=scan.ends, settings=settings)
    result = measure_all(searches, scan.landscape, work, scale)
    return Ended(searches, result, scan.curves.of_searches(chosen.tolist()).then(curves))


def as_scanned(scan: Scan, work: Work) -> Ended | None:
    """The chosen ones in a deep dip, as the scan left them: going on can lose it again."""
    dips = scan.chosen[scan.ends.factor[scan.chosen] >= work.settings.dip]
    if not len(dips):
        return None
    searches = scan.searches.continued(dips, work.settings.refine_reach, scan.landscape)
    result = measure_all(
        searches, scan.landscape, work, lambda ends, _: itself(ends, work.settings)
    )
    return Ended(searches, result, scan.curves.of_searches(dips.tolist()))


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


def choose(scan: Ends, settings: CalibratedSettings) -> Tensor:
    """Which searches go on: those that ended farthest below the landscape, (C,) indices.

    A dip takes in only a few of them, so that others are left to compare it with.
    """
    order = scan.factor.argsort(descending=True)
    close = torch.cdist(scan.z, scan.z) < settings.apart
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
    usual, needed = scale(Ends(z, factor), distance)
    score = factor / usual if work.settings.controls else factor
    return Result(measured, z, cost, distance, score, needed)
