"""What a search works on: the model, the benign set, and what is computed of them only once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from guard.benign import BenignSet
from guard.device import search_autocast, too_far_for_bf16
from guard.folding import folded
from guard.model import Model
from guard.terms import B, variance


@dataclass
class Bench:
    """A model beside the benign images it is examined on.

    f and D_be are fixed, so the benign outputs, features and variances are computed once, in
    float32.
    """

    model: Model
    benign: BenignSet

    @property
    def device(self) -> torch.device:
        return self.benign.device

    def fast(self, module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """A pass of a trigger model in bf16 where that is faster; given as float32."""
        with search_autocast(self.device):
            result = module(x)
        return result.float()

    def fast_pass(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """f(x) and F(x) with gradients to x, in bf16 where that is faster; given as float32.

        For the steps of a search or a lesson: figures that decide come from float32 passes.
        """
        with search_autocast(self.device, exact=self.exact):
            y, h = self._folded.with_features(x)
        return y.float(), None if h is None else h.float()

    @cached_property
    def _folded(self) -> Model:
        return folded(self.model)

    @cached_property
    def exact(self) -> bool:
        """Whether no bf16 will do."""
        return too_far_for_bf16(self.outputs)

    @cached_property
    def _passes(self) -> tuple[Tensor, Tensor | None]:
        with torch.no_grad():
            parts = [
                self.model.with_features(self.benign.x(index)) for index in self.benign.batches()
            ]
        features = [h for _, h in parts if h is not None]
        return torch.cat([y for y, _ in parts]), torch.cat(features) if features else None

    @property
    def outputs(self) -> Tensor:
        """f(x_i) of the benign images, [N x d]."""
        return self._passes[0]

    @property
    def features(self) -> Tensor | None:
        """F(x_i) of the benign images, [N x m]; None where f has no dense layer at the end."""
        return self._passes[1]

    @cached_property
    def weights(self) -> Tensor | None:
        """w_j, the rows of H's dense layer, [d x m]."""
        return None if self.features is None else self.model.dense.weight.detach().float()

    @cached_property
    def angles(self) -> Tensor | None:
        """B(F(x_i), w_j) in radians, [N x d]."""
        if self.features is None or self.weights is None:
            return None
        return B(self.features, self.weights)

    @cached_property
    def angle_variance(self) -> Tensor | None:
        """sigma^2 of the benign angles, [d]: the denominator of r_f and RAV."""
        return None if self.angles is None else variance(self.angles)

    @cached_property
    def largest_image(self) -> float:
        """mean |x^|: the largest mean value of a benign image, in [0, 1] (section 3.4)."""
        # A batch at a time: the whole set as floats would take four times its memory.
        images = self.benign.images
        means = [images[index].float().mean(dim=(1, 2, 3)) for index in self.benign.batches()]
        return float(torch.cat(means).max() / 255.0)
