"""The sizes that a graph computes from its picture, settled: all are known but for the batch's.

A module runs with sizes that are computed as tensors, but no exporter follows these into a shape.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from export.graph import OnnxNetwork
from export.graph_batch import Value
from export.graph_read import Step

SHAPED = {"Reshape": 2, "Resize": 4}  # these go to a shape, the last of so many inputs


def settle(network: OnnxNetwork, known: Mapping[str, Value]) -> None:
    """Put constants in the place of computed sizes, and for the batch's the picture's own.

    `known` are all values, as `check_batch` gives them. It has shown that what goes to a shape is
    the same in every batch or a multiple of the batch size.
    """
    fixed: dict[str, Tensor] = {}
    steps: list[Step] = []
    for step in network.steps:
        made = {name: known[name] for name in step.outputs if name}
        if not all(_is_size(value) for value in made.values()):
            steps.append(_to_known_shape(step, known, network))
            continue
        fixed |= {name: value.one for name, value in made.items() if not value.varies.any()}
        steps += [
            Step("Sizes", _of_batch(value), (network.input,), (name,), step.where)
            for name, value in made.items()
            if name not in fixed
        ]
    network.settle(steps, fixed)


def _is_size(value: Value) -> bool:
    """Whether it is a row of sizes, or a choice between some: nothing that a picture changes."""
    return not value.outer and not value.one.is_floating_point()


def _of_batch(value: Value) -> Callable[[Tensor], list[int]]:
    """The sizes for a batch of pictures; one that varies is a multiple of the batch size."""
    sizes, varies = value.one.flatten().tolist(), value.varies.flatten().tolist()
    return partial(_listed, list(zip(sizes, varies, strict=True)))


def _listed(sizes: list[tuple[int, bool]], pictures: Tensor) -> list[int]:
    return [size * pictures.shape[0] if varies else size for size, varies in sizes]


def _to_known_shape(step: Step, known: Mapping[str, Value], network: OnnxNetwork) -> Step:
    """A step that goes to a computed shape with a constant instead, -1 for the batch."""
    if len(step.inputs) != SHAPED.get(step.op):
        return step
    if step.inputs[-1] not in known or step.inputs[-1] in network.held():
        return step
    one, many = known[step.outputs[0]].one.shape, known[step.outputs[0]].many.shape
    shape = torch.tensor([a if a == b else -1 for a, b in zip(one, many, strict=True)])
    if int((shape == -1).sum()) > 1:
        return step
    return replace(step, run=partial(_with_last, step.run, shape), inputs=step.inputs[:-1])


def _with_last(run: Callable[..., Any], last: Tensor, *given: Any) -> Any:
    return run(*given, last)
