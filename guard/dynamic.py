"""Triggers drawn for each image: the paper's G, kept from writing adversarial noise.

An attack whose trigger is another one for each image leaves no shared change to be found. So G
draws a coarse pattern and a mask for each image and lays the one over it through the other. At
this resolution it can't write noise, and its mask covers too little to repaint a face: a benign
model's outputs stay as they are, and a backdoored one's come together at its target.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.bench import Bench
from guard.collapse import spread
from guard.engine import Engine, Stage, settle
from guard.probing import Plain, pull
from guard.space import OutputSpace

SIDE = 32  # of the image that G sees, and twice that of what it draws
CHANNELS = 16


@dataclass(frozen=True)
class DynamicSettings:
    """How a trigger for each image is searched for where no shared one was found."""

    count: int = 2  # searches, each from other weights
    steps: int = 300
    batch: int = 16  # images a step, for each search
    rate: float = 3e-3  # of Adam
    together: float = 0.05  # squared distance, whitened, of outputs that count as one
    # Outputs come together under a wide mask first; begun with a narrow one, no search gets there.
    begun: float = 0.6  # share of the image that a mask may cover at the start
    covered: float = 0.08  # and from `narrowed` of the steps on
    narrowed: float = 0.6
    strict: float = 100.0  # weight of what a mask covers beyond that
    plain: float = 0.3  # spread of held-out outputs that no benign model comes down to


class ImageTrigger(nn.Module):
    """x' = x + (p(x) - x) m(x). [N x 3 x H x W] in [0, 1] -> the same."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(3, CHANNELS), (CHANNELS, 2 * CHANNELS), (2 * CHANNELS, 2 * CHANNELS)]
        first, second, third = (_stage(*pair) for pair in widths)
        shrink, grow = nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear")
        last = [*_stage(2 * CHANNELS, CHANNELS), nn.Conv2d(CHANNELS, 4, 3, padding=1)]
        self.net = nn.Sequential(*first, shrink, *second, shrink, *third, grow, *last)

    def draw(self, x: Tensor) -> Tensor:
        """Pattern and mask before they are enlarged, [N x 4 x SIDE/2 x SIDE/2]."""
        seen = functional.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        drawn: Tensor = self.net(seen)
        return drawn

    @staticmethod
    def lay(x: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """x' and the mask m [N x 1 x H x W]."""
        fine = functional.interpolate(drawn, size=x.shape[-2:], mode="bilinear")
        p, m = torch.tanh(fine[:, :3]) / 2 + 0.5, torch.sigmoid(4 * fine[:, 3:])
        return x + (p - x) * m, m

    def forward(self, x: Tensor) -> Tensor:
        return self.lay(x, self.draw(x))[0]


def _stage(before: int, after: int) -> list[nn.Module]:
    # Not batch norm: an image's trigger must not depend on the images beside it.
    return [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(1, after), nn.ReLU()]


class Drawing(nn.Module):
    """Searches for triggers drawn for each image under which ever more outputs coincide."""

    def __init__(self, settings: DynamicSettings, seed: int) -> None:
        super().__init__()
        self.settings = settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.each = [ImageTrigger() for _ in range(settings.count)]
        self.triggers = nn.ModuleList(self.each)

    def objective(
        self, bench: Bench, space: OutputSpace, index: Tensor, at: float
    ) -> dict[str, Tensor]:
        """What `Gathering` makes small, and what a mask covers beyond what it may by now."""
        s, x = self.settings, bench.benign.x(index)
        laid = [ImageTrigger.lay(x, bench.fast(one.draw, x)) for one in self.each]
        covered = torch.stack([m.mean() for _, m in laid])
        outputs, _ = bench.fast_pass(torch.cat([changed for changed, _ in laid]))
        z = space.z(outputs).view(len(laid), len(x), -1)
        allowed = s.covered + (s.begun - s.covered) * max(0.0, 1 - at / s.narrowed)
        total = pull(z, s.together) + s.strict * (covered - allowed).clamp_min(0)
        return {"total": total, "collapse": spread(z), "target": space.y(z.detach().mean(dim=1))}


def draw_triggers(
    bench: Bench, held: Bench, space: OutputSpace, engine: Engine, settings: DynamicSettings
) -> Plain | None:
    """The trigger under which the outputs of held-out images lie closest; None if not close."""
    searches = Drawing(settings, engine.seed).to(bench.device)
    stage = Stage(
        "per image",
        searches,
        torch.optim.Adam(searches.parameters(), lr=settings.rate),
        lambda index, at: searches.objective(bench, space, index, at),
        len(bench.benign),
        settings.steps,
        settings.batch,
        settle,
    )
    engine.run(stage)
    made = searches.eval().requires_grad_(False).each
    found = [Plain.of("per-image generator", one, held, space, settings.plain) for one in made]
    best = min(found, key=lambda one: one.spread if math.isfinite(one.spread) else math.inf)
    return best if best.spread <= settings.plain else None
