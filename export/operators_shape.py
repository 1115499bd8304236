"""ONNX operators that rearrange values or compute with shapes.

Shapes are int64 tensors on the CPU, whatever the device of the picture. Where the batch size is in
one it may be a list, for an exporter follows only that.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from export.graph_node import Node
from export.graph_values import to_torch

Sizes = Tensor | list[int]


def listed(sizes: Sizes) -> list[int]:
    return sizes.tolist() if isinstance(sizes, Tensor) else sizes


def concat(node: Node) -> Callable[..., Tensor]:
    axis = node.take("axis")
    return lambda *parts: torch.cat(parts, axis)


def flatten(node: Node) -> Callable[..., Tensor]:
    axis = node.take("axis", 1)
    if axis == 1:
        return lambda x: x.flatten(1)
    return lambda x: x.reshape(math.prod(x.shape[:axis]), -1)


def reshape(node: Node) -> Callable[..., Tensor]:
    """A batch that the file fixes stands for the batch that comes; load_onnx proves it."""
    keep_zero = bool(node.only("allowzero", 0, 1))
    target = node.constant(1)
    fixed = node.batch is not None and target is not None and target[:1].tolist() == [node.batch]

    def run(x: Tensor, target: Sizes) -> Tensor:
        sides = [
            x.shape[place] if side == 0 and not keep_zero else side
            for place, side in enumerate(listed(target))
        ]
        if fixed:
            sides[0] = x.shape[0]
        return x.reshape(sides)

    return run


def transpose(node: Node) -> Callable[..., Tensor]:
    order = node.take("perm")
    return lambda x: x.permute(order or tuple(reversed(range(x.dim()))))


def squeeze(node: Node) -> Callable[..., Tensor]:
    given = node.take("axes")

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        named = given if axes is None else axes.tolist()
        return x.squeeze() if named is None else x.squeeze(tuple(named))

    return run


def unsqueeze(node: Node) -> Callable[..., Tensor]:
    given = node.take("axes")

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        named = given if axes is None else axes.tolist()
        for axis in sorted(place % (x.dim() + len(named)) for place in named):
            x = x.unsqueeze(axis)
        return x

    return run


def reduce(function: Callable[..., Tensor]) -> Callable[[Node], Callable[..., Tensor]]:
    """What brings some dimensions, or all, to one value; `function` as torch.mean takes them."""

    def build(node: Node) -> Callable[..., Tensor]:
        given, keep = node.take("axes"), bool(node.only("keepdims", 1, 0))
        empty_is_none = bool(node.only("noop_with_empty_axes", 0, 1))

        def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
            named = given if axes is None else axes.tolist()
            if not named and empty_is_none:
                return x
            return function(x, dim=tuple(named or range(x.dim())), keepdim=keep)

        return run

    return build


def expand(x: Tensor, sides: Sizes) -> Tensor:
    """Both ways: a side of 1 in the shape leaves that of x."""
    return x.expand(torch.broadcast_shapes(x.shape, tuple(listed(sides))))


def tile(x: Tensor, repeats: Sizes) -> Tensor:
    return x.repeat(*listed(repeats))


def constant_of_shape(node: Node) -> Callable[..., Tensor]:
    given = node.take("value")
    value = torch.zeros(1) if given is None else to_torch(given, node.where)
    return lambda sides: value.reshape(()).expand(listed(sides))  # takes no memory yet


def shape_of(node: Node) -> Callable[..., Tensor]:
    start, end = node.take("start", 0), node.take("end")
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64)


def gather(node: Node) -> Callable[..., Tensor]:
    axis = node.take("axis", 0)

    def run(x: Tensor, places: Tensor) -> Tensor:
        flat = places.flatten().to(x.device)
        along = axis % x.dim()
        taken = x.index_select(along, torch.where(flat < 0, flat + x.shape[along], flat))
        return taken.reshape((*x.shape[:along], *places.shape, *x.shape[along + 1 :]))

    return run


def gather_nd(node: Node) -> Callable[..., Tensor]:
    """Single places, an index for each of the first dimensions."""
    node.only("batch_dims", 0)
    return lambda x, places: x[tuple(places.to(x.device).unbind(-1))]


def depth_to_space(node: Node) -> Callable[..., Tensor]:
    """Blocks of pixels out of channels; DCR names the place in a block first, CRD the channel."""
    side, mode = node.take("blocksize"), node.only("mode", "DCR", "CRD")

    def run(x: Tensor) -> Tensor:
        if mode == "DCR":
            x = x.unflatten(1, (side * side, -1)).transpose(1, 2).flatten(1, 2)
        return functional.pixel_shuffle(x, side)

    return run


def space_to_depth(node: Node) -> Callable[..., Tensor]:
    """The other way round."""
    side = node.take("blocksize")

    def run(x: Tensor) -> Tensor:
        apart = functional.pixel_unshuffle(x, side).unflatten(1, (-1, side * side))
        return apart.transpose(1, 2).flatten(1, 2)

    return run


def numbers(start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    """From `start` on, below `end`."""
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def slice_of(node: Node) -> Callable[..., Tensor]:
    def run(
        x: Tensor, starts: Sizes, ends: Sizes, axes: Tensor | None = None, *steps: Tensor
    ) -> Tensor:
        named = range(len(starts)) if axes is None else axes.tolist()
        strides = steps[0].tolist() if steps else [1] * len(starts)
        for axis, start, end, step in zip(
            named, listed(starts), listed(ends), strides, strict=True
        ):
            x = _cut(x, axis, slice(start, end, step))
        return x

    return run


def _cut(x: Tensor, axis: int, part: slice) -> Tensor:
    """Python's rules for ends beyond the last index are those of ONNX."""
    if part.step > 0:
        start = None if part.start == -(2**63) else part.start  # torch warns of that one
        return x[*(slice(None),) * (axis % x.dim()), start : part.stop : part.step]
    kept = range(x.shape[axis])[part]  # torch takes no steps backwards
    return x.index_select(axis, torch.tensor(kept, dtype=torch.int64, device=x.device))


def split(node: Node) -> Callable[..., tuple[Tensor, ...]]:
    """Into parts of given sizes, or into equal ones, of which the last may be smaller."""
    axis, given = node.take("axis", 0), node.take("split")
    count = node.take("num_outputs", len(node.outputs))

    def run(x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        named = given if sizes is None else sizes.tolist()
        most = -(-x.shape[axis] // count)
        if named or isinstance(most, int):
            return x.split(named or most, axis)
        # While it is exported: no exporter follows a share of the batch's side into x.split.
        return tuple(_cut(x, axis, slice(k * most, (k + 1) * most, 1)) for k in range(count))

    return run
