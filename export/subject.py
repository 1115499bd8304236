"""The torch side of a proof: what a file must compute, and how answers are compared."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export.graph import OnnxNetwork
from export.write import written_part
from guard.benign import BenignSet
from guard.model import Model, copied
from guard.spec import InputSpec, ModelSpec
from guard.tasks import errors

BATCH = 64
NOISE_IMAGES = 64  # float64 is slow: so many images of a group give its rounding noise


@dataclass(frozen=True)
class Subject:
    """A module RGB [N x 3 x H x W] in [0, 1] -> answers: outputs [N x d], or pictures."""

    module: nn.Module
    spec: ModelSpec  # whose task and unit judge
    judged: Callable[[Tensor], Tensor]  # answers -> outputs [N x d] of the model
    outputs: tuple[str, ...]  # names along dimension 1 of the answers
    shape: tuple[int, ...]  # of one answer
    input: InputSpec  # what a file takes that says nothing of itself
    rounds: bool = False  # to the steps of int8, where a rounding can fall the other way

    @property
    def unit(self) -> str:
        """The unit of `distance`."""
        return self.spec.error_unit

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """How far two answers to each image lie apart in the task's error, (N,)."""
        return errors(self.spec, self.judged(first), self.judged(second))

    def spread(self, answers: Tensor) -> float:
        """The standard deviation of the outputs, as an error of the task."""
        outputs = self.judged(answers)
        middle = outputs.mean(dim=0, keepdim=True).expand_as(outputs)
        return float(errors(self.spec, outputs, middle).square().mean().sqrt())


@dataclass(frozen=True)
class Reference:
    """What the torch side answers to a group of images, and how far it rounds."""

    images: BenignSet
    answers: Tensor  # [N x d], float32, on the CPU
    noise: float  # largest float32-against-float64 difference in the subject's unit; inf: unknown

    def part(self, chosen: Tensor) -> "Reference":
        """Only the images where `chosen` [N] is True."""
        index = chosen.nonzero()[:, 0]
        return Reference(self.images.part(index), self.answers[index], self.noise)


def model_subject(model: Model) -> Subject:
    """A model, judged by its outputs."""
    spec, names = model.spec, model.spec.outputs
    return Subject(model, spec, lambda y: y, names, (len(names),), spec.input, rounds(model))


def rounds(model: Model) -> bool:
    """Whether it came as a quantised ONNX file."""
    return isinstance(model.network, OnnxNetwork) and model.network.rounds


def trigger_subject(trigger: nn.Module, model: Model) -> Subject:
    """The part of a trigger that ONNX holds, judged by what the model makes of its pictures."""

    @torch.no_grad()
    def judged(pictures: Tensor) -> Tensor:
        return torch.cat([_run(model, part) for part in pictures.split(BATCH)])

    part, size, names = written_part(trigger), model.spec.input.size, ("red", "green", "blue")
    return Subject(part, model.spec, judged, names, (3, *size), InputSpec(size), rounds(model))


def reference(subject: Subject, images: BenignSet) -> Reference:
    """Answer all images in float32 and some in float64; TF32 must be off."""
    answers = _answers(subject.module, images, torch.float32)
    return Reference(images, answers, _noise(subject, images, answers))


def _noise(subject: Subject, images: BenignSet, answers: Tensor) -> float:
    """The largest float32-against-float64 difference; infinite where float64 can't be had."""
    some = images.part(torch.arange(min(NOISE_IMAGES, len(images))))
    try:
        exact = _answers(copied(subject.module).double(), some, torch.float64)
    except Exception:  # a module of others may insist on float32 inside, each in its own way
        return math.inf
    measured = subject.distance(answers[: len(exact)].double(), exact).max()
    # An answer that happens to be exact still comes in steps of float32.
    step = subject.distance(exact, exact * (1 + torch.finfo(torch.float32).eps)).max()
    return float(torch.maximum(measured, step))


@torch.no_grad()
def _answers(module: nn.Module, images: BenignSet, dtype: torch.dtype) -> Tensor:
    parts = [_run(module, images.x(i).to(dtype)) for i in images.batches(BATCH)]
    return torch.cat(parts)


def _run(module: nn.Module, x: Tensor) -> Tensor:
    """module(x) on the CPU, whatever device and precision the module works in."""
    tensors = [*module.parameters(), *module.buffers()]
    own = next((t for t in tensors if t.is_floating_point()), x)
    y: Tensor = module(x.to(own.device, own.dtype))
    return y.cpu()
