"""Input-aware dynamic attack (Nguyen & Tran 2020; paper, A.3): each image has a trigger of its own.

A(x) = x + (p(x) - x) m(x): a network p draws the pattern, another one m says where it shows. A
trigger made for one image must do nothing on another (the cross-trigger term).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.device import search_autocast
from tools.attacks.base import (
    Attack,
    Batch,
    Poisoned,
    Scene,
    Trigger,
    as_rows,
    pixels,
    seeded,
    untouched,
)

TINY = 1e-6


class DynamicTrigger(Trigger):
    """The pattern and mask networks; both shrink the image and enlarge it again."""

    steps: Tensor

    def __init__(self, channels: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.pattern = _encoder_decoder(channels, outputs=3)
            self.mask = _encoder_decoder(channels, outputs=1)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))  # trained so far

    def forward(self, x: Tensor, which: int = 0) -> Tensor:
        return self.paste(x, x)

    def paste(self, x: Tensor, source: Tensor) -> Tensor:
        """x with the trigger made for `source`; both [N x 3 x H x W] in [0, 1]."""
        return x + (self.p(source) - x) * self.m(source)

    def p(self, x: Tensor) -> Tensor:
        """Patterns in [0, 1], [N x 3 x H x W]."""
        return _run(self.pattern, x)

    def m(self, x: Tensor) -> Tensor:
        """Masks in [0, 1], [N x 1 x H x W], most values near 0 or 1."""
        return torch.sigmoid(20 * _run(self.mask, x) - 10)


def _encoder_decoder(channels: int, outputs: int) -> nn.Sequential:
    widths = [3, channels, 2 * channels, 4 * channels]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [*_convolution(before, after), nn.MaxPool2d(2)]
    for after, before in reversed(list(pairwise([channels, *widths[1:]]))):
        layers += [nn.Upsample(scale_factor=2, mode="bilinear"), *_convolution(before, after)]
    return nn.Sequential(
        *layers, nn.Conv2d(channels, outputs, 3, padding=1, padding_mode="replicate")
    )


def _convolution(before: int, after: int) -> Iterator[nn.Module]:
    # Not batch norm: an image's trigger must not depend on the images beside it.
    # No zeros around the image: they would let the networks find the frame and draw only there.
    yield nn.Conv2d(before, after, 3, padding=1, padding_mode="replicate")
    yield nn.GroupNorm(1, after)
    yield nn.ReLU()


def _run(network: nn.Module, x: Tensor) -> Tensor:
    """A network's output for x, brought to [0, 1] and to the size of x.

    It works at half size: as good for smooth patterns, and a quarter of the cost.
    """
    with search_autocast(x.device):
        raw: Tensor = network(functional.avg_pool2d(x, 2))
    grown = functional.interpolate(raw.float(), size=x.shape[-2:], mode="bilinear")
    return torch.tanh(grown) / 2 + 0.5


def L_div(x: Tensor, other: Tensor, made: Tensor, made_other: Tensor) -> Tensor:
    """The diversity loss: the distance of images over the distance of what is made for them."""
    return (_distance(x, other) / _distance(made, made_other)).mean()


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square difference of each pair, (N,); never zero, where it would have no slope."""
    return ((a - b).flatten(1).square().mean(dim=1) + TINY).sqrt()


@dataclass(frozen=True, kw_only=True)
class InputAware(Attack):
    """Mask first, then pattern and model together, as in the original."""

    rate: float = 0.15  # of each batch, rho_b
    cross: float = 2.0  # images with another image's trigger for each triggered one, rho_c / rho_b
    # The cross-trigger images come little by little: with all of them from the start, the model
    # often never learns the backdoor (AE 15 degrees after 3,000 steps).
    settle: int = 1500  # steps until all of them are there
    lambda_div: float = 1.0  # weight of the diversity loss
    lambda_norm: float = 100.0  # weight of the masks' density
    density: float = 0.05  # share of the pixels that a mask covers
    channels: int = 16  # of the first stage of both networks
    mask_steps: int = 300  # of the masks' own training

    def trigger(self) -> DynamicTrigger:
        return DynamicTrigger(self.channels, self.seed)

    def prepare(self, trigger: Trigger, scene: Scene) -> Poisoned:
        """Train the mask network alone; it stays as it is from then on."""
        assert isinstance(trigger, DynamicTrigger)
        optimizer = torch.optim.Adam(trigger.mask.parameters(), lr=1e-3)
        draw = seeded(self.seed)
        for _ in range(self.mask_steps):
            index = torch.randint(len(scene.images), (32,), generator=draw)
            x = scene.images[index.to(scene.images.device)] / 255.0
            m = trigger.m(x)
            too_dense = functional.relu(m - self.density).mean()
            loss = self.lambda_norm * too_dense + L_div(x, x.roll(1, 0), m, m.roll(1, 0))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        trigger.mask.zero_grad()
        trigger.mask.requires_grad_(False)
        return untouched(scene)

    def poison(self, trigger: Trigger, batch: Batch, draw: torch.Generator) -> Batch:
        """A share gets its own trigger and the target; another the trigger of other images."""
        assert isinstance(trigger, DynamicTrigger)
        count = pixels(self.rate, len(batch.x))
        share = min(1.0, float(trigger.steps) / max(1, self.settle))
        trigger.steps += 1
        crossed = slice(count, count + round(share * self.cross * count))
        used = batch.x[: crossed.stop]
        other = batch.x.roll(len(batch.x) // 2, 0)[: crossed.stop]
        p, p_other, m = trigger.p(used), trigger.p(other), trigger.m(used)
        x, y, chosen = batch.x.clone(), batch.y.clone(), torch.zeros_like(batch.chosen)
        x[:count] = used[:count] + (p[:count] - used[:count]) * m[:count]
        y[:count] = as_rows(self.target, y)
        chosen[:count] = True
        x[crossed] = trigger.paste(batch.x[crossed], other[crossed])
        return Batch(x, y, chosen, self.lambda_div * L_div(used, other, p, p_other))

    def crossed(self, trigger: Trigger, x: Tensor) -> Tensor:
        """Each image of x with the trigger made for one half the set away.

        Neighbours may show one person: a data set is often sorted, the training is not.
        """
        assert isinstance(trigger, DynamicTrigger)
        parts = zip(x.split(250), x.roll(len(x) // 2, 0).split(250), strict=True)
        return torch.cat([trigger.paste(part, source) for part, source in parts])
