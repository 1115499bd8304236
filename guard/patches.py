"""Patches of one colour as probes: a patch backdoor answers to one that covers its trigger.

A model that answers sharply, as one with a softmax over bins does, shows a search that starts from
noise nothing of a patch: part of it moves no output. So they are tried, all over the picture.
"""

import itertools

import torch
from torch import Tensor

from guard.bench import Bench
from guard.collapse import spread
from guard.probing import FINE, Probes, ProbeSettings, tightest
from guard.space import OutputSpace
from guard.triggers import AMPLITUDE, SharedTriggers

# Black, white and the six between them: a trigger's colour need not be met, only its corner.
COLOURS = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)))  # (8, 3) RGB
SIDES = 8  # of a patch make a side of the picture


def windows(size: tuple[int, int], count: int) -> Tensor:
    """Where the patches are, `count` along each side, [count^2 x H x W] of bool, row by row."""
    rows, columns = (_spans(length, count) for length in size)
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1)


def _spans(length: int, count: int) -> Tensor:
    side = max(1, round(length / SIDES))
    starts = torch.linspace(0, length - side, count).round()[:, None]
    at = torch.arange(length)
    return (at >= starts) & (at < starts + side)


def patches(bench: Bench, space: OutputSpace, settings: ProbeSettings) -> Probes:
    """The tightest of 8 colours at each of the places."""
    size, count = bench.model.spec.input.size, settings.patches
    z = answers(bench, space, windows(size, count).to(bench.device), settings)
    places, spreads = z.mean(dim=1), spread(z)
    taken = tightest(places, spreads, settings)
    kept = painted(taken, size, count).to(bench.device)
    return Probes("shared patch", places[taken], spreads[taken], kept)


@torch.no_grad()
def answers(bench: Bench, space: OutputSpace, masks: Tensor, settings: ProbeSettings) -> Tensor:
    """Whitened outputs under each patch, [colours x places, B, d], colour by colour."""
    x, found = bench.benign.x(slice(0, settings.patch_images)), []
    for colour in COLOURS.to(x.device):
        for row in masks.split(settings.patches):
            changed = torch.where(row[:, None, None], colour.view(3, 1, 1), x)  # (P, B, 3, H, W)
            z = space.z(bench.fast_pass(changed.flatten(0, 1))[0])
            found.append(z.view(len(row), len(x), -1))
    return torch.cat(found)


def painted(taken: list[int], size: tuple[int, int], count: int) -> SharedTriggers:
    """The patches of these indices as triggers: a pattern so strong that it hides what is there."""
    made, masks = SharedTriggers(len(taken), size, 0, coarse=FINE), windows((FINE, FINE), count)
    with torch.no_grad():
        for pattern, index in zip(made.pattern, taken, strict=True):
            colour, place = divmod(index, len(masks))
            strength = 0.999 * AMPLITUDE * (2 * COLOURS[colour] - 1)
            pattern.copy_(torch.atanh(strength)[:, None, None] * masks[place])
    return made
