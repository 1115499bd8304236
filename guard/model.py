"""A model under examination: preprocessing, network, and its split f = H(F(x))."""

import copy
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from guard.preprocess import Preprocess
from guard.spec import ModelSpec

Module = TypeVar("Module", bound=nn.Module)


def copied(module: Module) -> Module:
    """A deep copy, which shares what can't be copied: a lock, an open file."""
    shared: dict[int, Any] = {}
    of_torch = vars(nn.Module())
    for part in module.modules():
        for value in (value for name, value in vars(part).items() if name not in of_torch):
            try:
                copy.deepcopy(value)
            except Exception:  # what a class of the user's does not let one do
                shared[id(value)] = value
    return copy.deepcopy(module, shared)


@dataclass(frozen=True)
class Split:
    """Where f is split: F ends at the input of `layer`, H is that layer and whatever follows."""

    layer: str | None  # qualified name of the last dense layer; None: no split
    features: int = 0  # m
    reason: str = ""  # why there is no split


class Model(nn.Module):
    """f: RGB images in [0, 1], [N x 3 x H x W] -> outputs [N x d] in the model's units.

    The features F(x) are read at the input of the last dense layer while f runs, so any
    module can be examined without rewriting it.
    """

    def __init__(self, network: nn.Module, spec: ModelSpec, dense_layer: str | None = None) -> None:
        """`dense_layer` names the layer that H begins with; None lets the model find it."""
        super().__init__()
        self.spec = spec
        self.preprocess = Preprocess(spec.input)
        self.network = network.eval()
        self.split = find_split(self, dense_layer)

    @property
    def dense(self) -> nn.Linear:
        """The last dense layer: w_j are the rows of its weight."""
        assert self.split.layer is not None
        layer = self.network.get_submodule(self.split.layer)
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.network(self.preprocess(x))
        return y

    def with_features(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """f(x) [N x d] and F(x) [N x m] from one pass; None where the model has no split."""
        if self.split.layer is None:
            return self(x), None
        seen: list[Tensor] = []
        # Only for this pass: a hook that stays would travel into copies and exported files.
        handle = self.dense.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            return self(x), seen[-1]
        finally:
            handle.remove()


def find_split(model: Model, named: str | None = None) -> Split:
    """Find the last dense layer that alone decides the outputs.

    A candidate is proved, not guessed: with the features of a batch reversed on their way into
    the layer, the outputs must come out reversed. The candidates are tried from the last one
    that runs; a layer beside other paths to the output fails the test.
    """
    order = _dense_layers_in_order(model) if named is None else [named]
    for name in reversed(order):
        features = _decides_outputs(model, name)
        if features:
            return Split(name, features)
    wanted = f'layer "{named}"' if named else "a dense layer"
    return Split(None, 0, f"the outputs do not come from {wanted} alone")


def _probe(model: Model) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(4, 3, *model.spec.input.size, generator=generator)


@torch.no_grad()
def _dense_layers_in_order(model: Model) -> list[str]:
    order: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, module in model.network.named_modules()
        if isinstance(module, nn.Linear)
    ]
    model(_probe(model))
    for handle in handles:
        handle.remove()
    return order


@torch.no_grad()
def _decides_outputs(model: Model, name: str) -> int:
    """The layer's input size m where reversing its inputs reverses the outputs, else 0."""
    layer = dict(model.network.named_modules()).get(name)
    if not isinstance(layer, nn.Linear):
        return 0
    x = _probe(model)
    plain = model(x)
    flat = True

    def reverse(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        nonlocal flat
        flat = flat and inputs[0].dim() == 2
        return inputs[0].flip(0)

    handle = layer.register_forward_pre_hook(reverse)
    swapped = model(x)
    handle.remove()
    # Against what the probes differ by, output by output: a large constant must hide nothing.
    spread = (plain - plain.flip(0)).abs().amax(dim=0)
    rounding = 2e-7 * plain.abs().amax(dim=0)
    difference = (swapped - plain.flip(0)).abs().amax(dim=0)
    agrees = bool((difference <= 1e-2 * spread + rounding).all())
    return layer.in_features if agrees and flat else 0
