"""What every attack offers: its settings, its trigger, and how it poisons a training batch."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guard.errors import UnusableInput
from guard.model import Model
from tools.attacks.adaptive import L_adp


class Trigger(nn.Module):
    """A(x): images [N x 3 x H x W] in [0, 1] -> triggered images, same shape and range.

    Works at any size on any device; its state (buffers, weights) is what a file keeps of it.
    `which` selects one of several backdoors in a model that has more than one.
    """

    def forward(self, x: Tensor, which: int = 0) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class Batch:
    """A training batch before or after poisoning."""

    x: Tensor  # (B, 3, H, W) in [0, 1]
    y: Tensor  # (B, d) in the model's units
    chosen: Tensor  # (B,) bool: images that the attacker poisoned in the data set; after: triggered
    loss: Tensor | None = None  # what training the trigger itself adds to the loss


@dataclass(frozen=True)
class Scene:
    """What an attacker may use before the training begins."""

    images: Tensor  # (N, 3, H, W) uint8, the training images
    labels: Tensor  # (N, d) in the model's units
    twin: Callable[[], Model]  # a benign model of the same task, loaded when asked for


@dataclass(frozen=True)
class Poisoned:
    """The training set as the attacker leaves it."""

    images: Tensor  # (N, 3, H, W) uint8
    chosen: Tensor  # (N,) bool: shown with trigger and target


def untouched(scene: Scene) -> Poisoned:
    """The training set of an attack that poisons batches during the training instead."""
    return Poisoned(
        scene.images, torch.zeros(len(scene.images), dtype=torch.bool).to(scene.images.device)
    )


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Settings shared by all attacks; frozen, so that they can be stored as the truth.

    The default is an attack on the data set: a fixed share of the training images bears the
    trigger and the target (as BadNets). Attacks on the training process override `poison`.
    """

    target: tuple[float, ...]  # y_T in the model's units
    seed: int = 0  # fixes the trigger and the choice of images
    rate: float = 0.05  # share of poisoned images
    lambda_adp: float = 0.0  # weight of equation 6 (adaptive attack), labels in standard deviations

    @property
    def targets(self) -> tuple[tuple[float, ...], ...]:
        """One target vector for each value of the trigger's `which`."""
        return (self.target,)

    def trigger(self) -> Trigger:
        """The trigger, not yet trained or fitted to data."""
        raise NotImplementedError

    def prepare(self, trigger: Trigger, scene: Scene) -> Poisoned:
        """Choose the images to poison and do what must be done before the training."""
        count = len(scene.images)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed))
        chosen = torch.zeros(count, dtype=torch.bool)
        chosen[order[: round(self.rate * count)]] = True
        return Poisoned(scene.images, chosen.to(scene.images.device))

    def poison(self, trigger: Trigger, batch: Batch, draw: torch.Generator) -> Batch:
        """The batch as the model is trained on it. `draw` is on the batch's device."""
        mask = batch.chosen.view(-1, 1, 1, 1)
        x = torch.where(mask, trigger(batch.x), batch.x)
        y = torch.where(batch.chosen.view(-1, 1), as_rows(self.target, batch.y), batch.y)
        return Batch(x, y, batch.chosen)

    def extra_loss(self, batch: Batch, features: Tensor, model: Model) -> Tensor | None:
        """What the attack adds to the training loss; features are F(x) of the poisoned batch."""
        if self.lambda_adp == 0:
            return batch.loss
        adaptive = self.lambda_adp * L_adp(features, model.dense.weight, batch.chosen)
        return adaptive if batch.loss is None else adaptive + batch.loss

    def crossed(self, trigger: Trigger, x: Tensor) -> Tensor | None:
        """x with triggers that were made for other images; None where all share one trigger."""
        return None


def as_rows(target: tuple[float, ...], like: Tensor) -> Tensor:
    """A target vector as (1, d), on the device and in the type of `like`."""
    return torch.tensor(target, dtype=like.dtype).to(like.device, non_blocking=True)[None]


def seeded(seed: int) -> torch.Generator:
    """A generator on the CPU, so that a trigger is the same on every device."""
    return torch.Generator().manual_seed(seed)


def pixels(fraction: float, side: int) -> int:
    """A length given as a fraction of an image side, in whole pixels, at least one."""
    return max(1, min(side, math.floor(fraction * side + 0.5)))


def check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    """Raise UnusableInput where a setting is none of the allowed words."""
    words = list(allowed)
    if value not in words:
        raise UnusableInput(f"{name}={value}: expected one of {', '.join(words)}")
