"""Proof at load time that the answer to a picture is its own, whoever is in its batch.

Screening asks for pictures in batches, a car for one at a time: a graph in which the batch size or
the other pictures reach the answers could hide a backdoor from the one and show it to the other.
Each step is run alone, on noise: for a picture by itself, and for the same picture among others
that are NaN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan, prod

import torch
from torch import Tensor

from export.graph import OnnxNetwork
from export.graph_read import Step
from guard.errors import UnusableInput

COUNT = 3  # pictures in a batch
OFTEN = 8  # noise of 0 and 1 may be the same by chance; NaN needs no second time
TOLERANCE = 1e-4  # of a step's largest value: kernels sum batches of other sizes in other orders
# Among the inputs of an operator, those where a size may be (a multiple of) the batch size: of
# steps that only move and multiply sizes, so that 1 and COUNT tell of every batch size ...
MOVED: dict[str, Sequence[int]] = {
    **dict.fromkeys(("Abs", "Cast", "ConstantOfShape", "Gather", "Identity", "Reshape"), (0,)),
    **dict.fromkeys(("Shape", "Slice", "Squeeze", "Unsqueeze"), (0,)),
    **{"Concat": range(99), "Equal": (0, 1), "Expand": (1,), "Mul": (0, 1), "Tile": (1,)},
    "Where": (1, 2),
}
# ... and of steps that take pictures, whose results show what the size did. (Where the bounds of a
# Slice are multiples of it, the same is left of a fixed side for 1 and COUNT only if for all.)
SHAPED: dict[str, Sequence[int]] = {
    "Expand": (1,),
    "Reshape": (1,),
    "Resize": (3,),
    "Slice": (1, 2),
}
WHOLE = (torch.int64, torch.int32)
LARGEST = 2**31 - 1  # a product of two such sizes does not wrap around in int64


@dataclass(frozen=True)
class Value:
    """A value in a batch of one and of COUNT; of what holds pictures only shape and type."""

    one: Tensor
    many: Tensor
    outer: int = 0  # in so many blocks of memory the pictures stand side by side; 0: holds none

    @property
    def varies(self) -> Tensor:
        """Which of these sizes depend on the batch size."""
        same = self.outer or self.one is self.many
        return torch.zeros((), dtype=torch.bool) if same else self.one != self.many


Given = list[Value | None]  # the inputs of a step
Run = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]  # its outputs for a picture alone, and among


@torch.no_grad()
def check_batch(network: OnnxNetwork, size: tuple[int, int]) -> dict[str, Value]:
    """All values in a batch of one and of COUNT pictures of height and width `size`, by name.

    Raises UnusableInput where the answer to a picture would depend on its batch.
    """
    draw = torch.Generator()
    draw.seed()  # no file can be made for the noise that it will meet
    known = {name: Value(value, value) for name, value in network.held().items()}
    sides = (*size, 3) if network.pixels else (3, *size)
    known[network.input] = Value(torch.empty(1, *sides), torch.empty(COUNT, *sides), 1)
    for step in network.steps:
        made = _tried(network, step, [known.get(name) for name in step.inputs], draw)
        known.update(zip(step.outputs, made, strict=True))
    answer = known[network.output]
    if answer.outer != 1 or answer.one.dim() != 2 or len(answer.many) != COUNT:
        found = f"gives a tensor {list(answer.one.shape)} for one image, not [N x outputs]"
        raise UnusableInput(f"{step.where}: {found}")
    return known


def _tried(network: OnnxNetwork, step: Step, given: Given, draw: torch.Generator) -> list[Value]:
    pictures = [value for value in given if value is not None and value.outer]
    _check_sizes(step, given, SHAPED if pictures else MOVED)
    if step.op == "Shape" or not pictures:
        ones = network.run(step, [value and value.one for value in given])
        manys = network.run(step, [value and value.many for value in given])
        if all(one.shape == many.shape for one, many in zip(ones, manys, strict=True)):
            return [Value(*pair) for pair in zip(ones, manys, strict=True)]
        runs = [(ones, manys)] * COUNT
    else:
        exact = not all(value.one.is_floating_point() for value in pictures)
        places = [*range(COUNT)] * (OFTEN if exact else 1)
        runs = [_alone_and_among(network, step, given, place, draw) for place in places]
    return [_settled(step, [(a[i], b[i]) for a, b in runs]) for i in range(len(runs[0][0]))]


def _check_sizes(step: Step, given: Given, where: Mapping[str, Sequence[int]]) -> None:
    for place, value in enumerate(given):
        if value is None or not value.varies.any():
            continue
        others = [other for other in given if other is not None and other is not value]
        if place not in where.get(step.op, ()) or not _only_moved(step, value, others):
            raise UnusableInput(
                f"{step.where}: computes with the batch size, so the answer to a picture could "
                "depend on how many are asked at once; ask for a file without it"
            )


def _only_moved(step: Step, value: Value, others: list[Value]) -> bool:
    """Whether the step leaves a multiple of the batch size one, in every batch size."""
    sizes = torch.cat([side[value.varies] for side in (value.one, value.many)])
    if sizes.dtype not in (WHOLE if step.op != "Mul" else WHOLE[:1]):
        return False
    if step.op == "Cast" and step.run(sizes).dtype not in WHOLE:  # there it could wrap around
        return False
    if step.op == "Equal" and not all(int(other.many.max()) < 1 for other in others):
        return False  # to -1, which no size is: so old exporters write an Expand
    return int(sizes.min()) >= 1 and int(sizes.max()) <= LARGEST


def _alone_and_among(
    network: OnnxNetwork, step: Step, given: Given, place: int, draw: torch.Generator
) -> Run:
    """What the step makes of a picture alone, and of this one in its place among others."""
    alone: list[Tensor | None] = []
    among: list[Tensor | None] = []
    for value in given:
        own, all_of_them = (None, None) if value is None else (value.one, value.many)
        if value is not None and value.outer:
            own, other = _noise(value.one, draw), _noise(value.one, draw)
            if own.is_floating_point():
                other.fill_(nan)  # reaches whatever is computed with it, however small its share
            parts = [(own if i == place else other).reshape(value.outer, -1) for i in range(COUNT)]
            all_of_them = torch.stack(parts, 1).reshape(value.many.shape)
        alone.append(own)
        among.append(all_of_them)
    return network.run(step, alone), network.run(step, among)


def _noise(like: Tensor, draw: torch.Generator) -> Tensor:
    if like.is_floating_point():
        return torch.randn(like.shape, generator=draw)
    return torch.randint(0, 2, like.shape, generator=draw).to(like.dtype)


def _settled(step: Step, runs: list[tuple[Tensor, Tensor]]) -> Value:
    """Where the pictures stand in an output: each block must be what the picture gives alone."""
    one, many = runs[0]
    for outer in _blocks(one.shape, many.shape):
        if all(
            _same(alone.reshape(outer, -1), among.reshape(outer, COUNT, -1)[:, place % COUNT])
            for place, (alone, among) in enumerate(runs)
        ):
            return Value(one.to("meta"), many.to("meta"), outer)
    raise UnusableInput(
        f"{step.where}: mixes the pictures of a batch, so the answer to one could depend on the "
        "others; ask for a file without it"
    )


def _blocks(one: torch.Size, many: torch.Size) -> list[int]:
    """In how many blocks the pictures may stand, by the shapes alone and among others."""
    if many == (COUNT, *one):  # behind a Squeeze
        return [1]
    longer = [place for place, side in enumerate(one) if many[place : place + 1] != (side,)]
    if len(one) != len(many) or len(longer) != 1 or many[longer[0]] != COUNT * one[longer[0]]:
        return []
    before, side = prod(one[: longer[0]]), one[longer[0]]
    return [before * part for part in range(1, side + 1) if side % part == 0]


def _same(first: Tensor, second: Tensor) -> bool:
    if not first.is_floating_point():
        return torch.equal(first, second)
    largest = float(first.nan_to_num(0, 0, 0).abs().max())
    return torch.allclose(first, second, rtol=0, atol=TOLERANCE * largest, equal_nan=True)
