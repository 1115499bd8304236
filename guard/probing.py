"""Narrow triggers that a benign model resists: where they gather the outputs is a likely target.

The dip of a warp or a sinusoid is narrower than the mesh of any grid of targets. But the model
gives it away: a warp of the pixels alone, or stripes somewhat like the trigger's and far
stronger, bring a backdoored model's outputs together at its target, and a benign model's nowhere.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from guard.bench import Bench
from guard.collapse import spread
from guard.engine import Engine, Stage, settle
from guard.measure import Measured, measure
from guard.space import OutputSpace, each_apart
from guard.triggers import AMPLITUDE, SharedTrigger, SharedTriggers

FINE = 64  # points of a stripe pattern along each side, at least five a wave


@dataclass(frozen=True)
class ProbeSettings:
    """How targets are looked for before the scan."""

    warps: int = 32  # searches over warps alone, each from random displacements
    steps: int = 60
    sharper: int = 100  # more steps of those that are kept, before one decides alone
    batch: int = 6  # images a step, for each warp
    rate: float = 0.2  # of the displacement nodes
    together: float = 0.05  # squared distance, whitened, of outputs that count as one
    waves: int = 12  # of stripes across the image, at most
    # Of stripes, in units of the image's range. SIG adds 30/255 to 40/255; 0.3 drowns the picture,
    # and the outputs of a benign model come together too.
    strength: float = 0.2
    images: int = 48  # that all probes are compared on
    patches: int = 15  # places of a patch along each side: half a patch apart
    patch_images: int = 8  # that all patches are compared on: what counts gathers any of them
    kept: int = 3  # targets of each form
    alike: int = 8  # stripes that lead to the target are unlearnt with it, so many at most,
    loose: float = 0.05  # whose outputs spread no more than that
    apart: float = 0.5  # whitened units between them
    plain: float = 0.02  # spread of held-out outputs that no benign model comes down to
    # Strong neighbours of one trigger gather the outputs at two places too, but one of them less
    # closely: squared distance of half of the outputs, from which down it is a target of its own.
    own: float = 0.0006


@dataclass(frozen=True)
class Probes:
    """P narrow triggers of one form and where they put the outputs."""

    form: str
    places: Tensor  # (P, d) whitened
    spreads: Tensor  # (P,) mean squared distance to the place, benign spread = 1
    triggers: SharedTriggers

    def tightest(self, settings: ProbeSettings) -> "Probes":
        """Those under which the outputs spread least, each apart from the better ones."""
        taken = tightest(self.places, self.spreads, settings)
        return Probes(self.form, self.places[taken], self.spreads[taken], self.triggers.part(taken))


def tightest(places: Tensor, spreads: Tensor, settings: ProbeSettings) -> list[int]:
    """Indices of the places where outputs spread least, each apart from the better ones."""
    order = spreads.argsort().tolist()
    return list(islice(each_apart(places, order, settings.apart, places[:0]), settings.kept))


@dataclass(frozen=True)
class Plain:
    """A probe that gathers the outputs of images it has not seen: evidence by itself."""

    form: str
    trigger: nn.Module
    measured: Measured
    place: Tensor  # (d,) whitened
    spread: float
    half: float  # squared distance from their median that half of the outputs keep within
    limit: float  # from here down `spread` counts

    @classmethod
    def of(
        cls, form: str, trigger: nn.Module, held: Bench, space: OutputSpace, limit: float
    ) -> "Plain":
        """What a trigger does to the outputs of held-out images."""
        measured = measure(trigger, held)
        z = space.z(measured.outputs)
        half = (z - z.median(dim=0).values).square().mean(dim=1).median()
        return cls(
            form, trigger, measured, z.mean(dim=0), float(spread(z[None])), float(half), limit
        )

    @property
    def strength(self) -> float:
        """How much closer together the outputs lie than what counts, 1 at the limit."""
        return math.sqrt(self.limit / max(self.spread, 1e-9))


def plain_ones(
    probes: Iterable[Probes], held: Bench, space: OutputSpace, settings: ProbeSettings
) -> list[Plain]:
    """The probes that need no comparison with others, the tightest first."""
    found = [
        Plain.of(one.form, one.triggers.select(k), held, space, settings.plain)
        for one in probes
        for k in range(len(one.places))
    ]
    found = [one for one in found if one.spread <= settings.plain]
    return sorted(found, key=lambda plain: plain.spread)


def elsewhere(plain: Sequence[Plain], place: Tensor, settings: ProbeSettings) -> list[Plain]:
    """Those that show a target of its own, each apart from `place` and from the tighter ones."""
    close = [one for one in plain if one.half <= settings.own]
    places = torch.stack([place, *(one.place for one in close)])
    chosen = each_apart(places[1:], range(len(close)), settings.apart, places[:1])
    return [close[k] for k in chosen]


def probe(
    bench: Bench, space: OutputSpace, engine: Engine, settings: ProbeSettings
) -> tuple[Probes, Probes]:
    """The tightest warps, and all stripes."""
    triggers = SharedTriggers(settings.warps, bench.model.spec.input.size, engine.seed)
    triggers.only_warp(1.0, engine.seed)
    triggers.to(bench.device)
    gather("warps", triggers, bench, space, engine, settings.steps, settings)
    striped = stripes(triggers.size, settings).to(bench.device)
    return (
        tried("shared warp", triggers, bench, space, settings).tightest(settings),
        tried("shared stripes", striped, bench, space, settings),
    )


def sharpened(
    warps: Probes, bench: Bench, space: OutputSpace, engine: Engine, settings: ProbeSettings
) -> Probes:
    """The kept warps after more steps: few are enough to give a target away, not to decide."""
    if not len(warps.places):
        return warps
    triggers = warps.triggers.part(list(range(len(warps.places))))
    gather("sharper warps", triggers, bench, space, engine, settings.sharper, settings)
    return tried(warps.form, triggers, bench, space, settings).tightest(settings)


def gather(
    name: str,
    triggers: SharedTriggers,
    bench: Bench,
    space: OutputSpace,
    engine: Engine,
    steps: int,
    settings: ProbeSettings,
) -> None:
    """A stage of searches over the warps of `triggers`."""
    warps = Gathering(triggers, settings)
    engine.run(
        Stage(
            name,
            warps,
            triggers.optimizer(0.0, settings.rate),
            lambda index, at: warps.objective(bench, space, index),
            len(bench.benign),
            steps,
            settings.batch,
            settle,
        )
    )


class Gathering(nn.Module):
    """K searches for warps under which ever more images' outputs coincide."""

    def __init__(self, triggers: SharedTriggers, settings: ProbeSettings) -> None:
        super().__init__()
        self.triggers, self.settings = triggers, settings

    def objective(self, bench: Bench, space: OutputSpace, index: Tensor) -> dict[str, Tensor]:
        """How close the outputs lie under each warp."""
        x = bench.benign.x(index)
        outputs, _ = bench.fast_pass(self.triggers(x).flatten(0, 1))
        z = space.z(outputs).view(len(self.triggers), len(x), -1)
        total = pull(z, self.settings.together)
        return {"total": total, "collapse": spread(z), "target": space.y(z.detach().mean(dim=1))}


def pull(z: Tensor, together: float) -> Tensor:
    """A mean of the logarithms of squared distances: pairs that coincide already count most.

    Outputs z [K x B x d] -> (K,). Under the variance a search would stay near the mean output,
    for where only some outputs have reached a target that lies far out, the variance is larger
    than before.
    """
    first, second = torch.triu_indices(z.shape[1], z.shape[1], 1)
    squared = (z[:, first] - z[:, second]).square().mean(dim=2)
    return (squared + together).log().mean(dim=1)


def tried(
    form: str,
    triggers: SharedTriggers,
    bench: Bench,
    space: OutputSpace,
    settings: ProbeSettings,
) -> Probes:
    """The triggers of one form, all compared on the same images."""
    x = bench.benign.x(slice(0, settings.images))
    each = (triggers.select(k)(x) for k in range(len(triggers)))
    return Probes(form, *gathered(each, bench, space), triggers)


def stripes_alike(striped: Probes, place: Tensor, settings: ProbeSettings) -> list[SharedTrigger]:
    """Those of all `stripes` that lead to a place, the tightest first, one phase of each wave.

    A model answers to neighbours of its trigger, and a strong neighbour may gather the outputs
    better than the attacker's own stripes.
    """
    near = (striped.places - place).norm(dim=1) < settings.apart
    waves: dict[int, int] = {}
    for k in striped.spreads.argsort().tolist():
        if near[k] and striped.spreads[k] <= settings.loose:
            waves.setdefault(k % (len(near) // 2), k)
    return [striped.triggers.select(k) for k in list(waves.values())[: settings.alike]]


def stripes(size: tuple[int, int], settings: ProbeSettings) -> SharedTriggers:
    """Sinusoids of up to `waves` waves, four directions and two phases, strength +-`strength`.

    All of one phase come first. Their patterns are fine enough to hold them: on the search's grid
    nine waves become other ones.
    """
    at = (torch.arange(FINE) + 0.5) / FINE
    y, x = torch.meshgrid(at, at, indexing="ij")
    across = torch.stack([x, y, math.sqrt(0.5) * (x + y), math.sqrt(0.5) * (x - y)])
    waves = torch.arange(1, settings.waves + 1).view(-1, 1, 1, 1) * across
    turns = torch.cat([waves.flatten(0, 1), waves.flatten(0, 1) + 0.25])
    made = SharedTriggers(len(turns), size, 0, coarse=FINE)
    with torch.no_grad():
        strength = settings.strength / AMPLITUDE * (2 * math.pi * turns).sin()
        made.pattern.copy_(torch.atanh(strength)[:, None])
    return made


@torch.no_grad()
def gathered(each: Iterable[Tensor], bench: Bench, space: OutputSpace) -> tuple[Tensor, Tensor]:
    """Where changed images put the outputs, [P x d], and how far these spread, [P]."""
    z = torch.stack([space.z(bench.fast_pass(changed)[0]) for changed in each])
    return z.mean(dim=1), spread(z)
