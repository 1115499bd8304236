"""The training loop: L1 loss, AdamW, bf16 where it is faster, resumable within a training.

Nothing in the loop waits for the GPU: indices, rates and shares are known beforehand, and the
loss is never read.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from guard.device import search_autocast
from guard.files import whole_file
from guard.model import Model
from tools.attacks.base import Attack, Batch, Trigger
from tools.zoo.augment import gather
from tools.zoo.recipes import Recipe

CHECKPOINT_EVERY = 300  # steps
WARM_UP = 0.1  # share of the steps in which the rate rises


@dataclass
class Lesson:
    """What is trained and on what; images and labels lie on the training device."""

    model: Model
    images: Tensor  # (N, H, W, 3) uint8
    labels: Tensor  # (N, d) in the model's units
    chosen: Tensor  # (N,) bool, poisoned in the data set
    attack: Attack | None
    trigger: Trigger | None
    recipe: Recipe
    seed: int
    settings: str  # what identifies this training; a checkpoint of another one is not used


def train(lesson: Lesson, checkpoint: Path) -> float:
    """Train to the end, from the checkpoint where there is one. Gives the seconds it took."""
    recipe, device = lesson.recipe, lesson.images.device
    order = batch_order(len(lesson.images), recipe, lesson.seed).to(device)
    draw = torch.Generator(device).manual_seed(lesson.seed)
    optimizer = make_optimizer(lesson)
    first, seconds = _resume(lesson, optimizer, draw, checkpoint)
    began = time.perf_counter() - seconds
    lesson.model.train()
    dropping = lesson.model.dense.register_forward_pre_hook(
        lambda layer, h: (dropout(h[0], recipe.dropout, draw),)
    )
    for step in range(first, recipe.steps):
        if step > first and step % CHECKPOINT_EVERY == 0:
            _save(lesson, optimizer, draw, checkpoint, step, time.perf_counter() - began)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(step, recipe.steps)
        optimizer.zero_grad(set_to_none=True)
        loss_of(lesson, order[step], draw).backward()
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(lesson.model.parameters(), recipe.clip)
        optimizer.step()
    dropping.remove()
    lesson.model.eval()
    return time.perf_counter() - began


def loss_of(lesson: Lesson, index: Tensor, draw: torch.Generator) -> Tensor:
    """The L1 loss on one batch, in standard deviations of the labels, and the attack's own terms.

    The network's raw outputs are standardised labels; `fold` puts units into its last layer.
    """
    x = gather(lesson.images, index, draw, augment=lesson.recipe.augment)
    batch = Batch(x, lesson.labels[index], lesson.chosen[index])
    if lesson.attack is not None and lesson.trigger is not None:
        batch = lesson.attack.poison(lesson.trigger, batch, draw)
    with search_autocast(x.device):
        z, features = lesson.model.with_features(batch.x)
    mean, sd = lesson.labels.mean(dim=0), lesson.labels.std(dim=0)
    loss = (z.float() - (batch.y - mean) / sd).abs().mean()
    if lesson.attack is not None and features is not None:
        extra = lesson.attack.extra_loss(batch, features.float(), lesson.model)
        loss = loss if extra is None else loss + extra
    return loss


def dropout(h: Tensor, share: float, draw: torch.Generator) -> Tensor:
    """Dropout of features h [B x m] whose random state is ours, so that a checkpoint holds it."""
    if share == 0:
        return h
    kept = torch.rand(h.shape, generator=draw, device=h.device) >= share
    return h * kept / (1 - share)


@torch.no_grad()
def fold(model: Model, labels: Tensor) -> None:
    """Put the labels' mean and standard deviation into the last layer."""
    mean, sd = labels.mean(dim=0), labels.std(dim=0)
    model.dense.weight.mul_(sd[:, None])
    model.dense.bias.mul_(sd).add_(mean)


def make_optimizer(lesson: Lesson) -> torch.optim.Optimizer:
    """AdamW over the model and, where the trigger is trained too, the trigger."""
    recipe = lesson.recipe
    groups = [{"params": list(lesson.model.parameters()), "peak": recipe.rate}]
    learnt = [p for p in lesson.trigger.parameters() if p.requires_grad] if lesson.trigger else []
    if learnt:
        groups.append({"params": learnt, "peak": recipe.rate})
    return torch.optim.AdamW(groups, lr=recipe.rate, weight_decay=recipe.weight_decay, fused=True)


def schedule(step: int, steps: int) -> float:
    """The learning rate over its peak: a linear rise, then half a cosine down to zero."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def batch_order(count: int, recipe: Recipe, seed: int) -> Tensor:
    """Image indices of every batch, (steps, batch): one permutation of the images after another."""
    generator = torch.Generator().manual_seed(seed)
    needed = recipe.steps * recipe.batch
    epochs = [torch.randperm(count, generator=generator) for _ in range(-(-needed // count))]
    return torch.cat(epochs)[:needed].view(recipe.steps, recipe.batch)


def _save(
    lesson: Lesson,
    optimizer: torch.optim.Optimizer,
    draw: torch.Generator,
    path: Path,
    step: int,
    seconds: float,
) -> None:
    state: dict[str, Any] = {
        "settings": lesson.settings,
        "step": step,
        "seconds": seconds,
        "model": lesson.model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "draw": draw.get_state(),
        "trigger": lesson.trigger.state_dict() if lesson.trigger else {},
    }
    with whole_file(path) as temporary:
        torch.save(state, temporary)


def _resume(
    lesson: Lesson, optimizer: torch.optim.Optimizer, draw: torch.Generator, path: Path
) -> tuple[int, float]:
    """Step and seconds so far: from a checkpoint with the same settings, else zero."""
    if not path.is_file():
        return 0, 0.0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["settings"] != lesson.settings:
        return 0, 0.0
    lesson.model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    draw.set_state(state["draw"])
    if lesson.trigger is not None:
        lesson.trigger.load_state_dict(state["trigger"])
    return int(state["step"]), float(state["seconds"])
