"""An ONNX graph as a torch module: differentiable, and its weights can be tuned."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from export.graph_dense import Dense, Layer
from export.graph_read import Program, Step
from export.graph_rounding import behind_rounding, makers, mostly

# The inputs of these operators that are weights, which tuning may change.
WEIGHTS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "BatchNormalization": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "Einsum": (0, 1),
    "PRelu": (1,),
}
ELEMENTWISE = ("Add", "Sub", "Mul", "Div")  # behind the first layer, their constants are weights
AS_NUMBERS = ("Clip", "Pad", "Resize")  # these read their other inputs as numbers, not tensors
QUANTIZED = ("QuantizeLinear", "DequantizeLinear")


class OnnxNetwork(nn.Module):
    """The steps of an ONNX graph, run one after the other.

    [N x 3 x H x W] as the file's input says -> [N x d]. With `pixels` the file takes uint8
    pictures [N x H x W x 3] and preprocesses them itself; this module takes
    [N x 3 x H x W] in [0, 1] all the same, so that a gradient reaches it.

    Weights are parameters under the names of the file (dots become underscores), a dense layer
    is an nn.Linear; statistics of batch normalisation and other floats are buffers.
    """

    def __init__(self, program: Program, input: str, output: str, *, pixels: bool = False) -> None:
        super().__init__()
        self.input, self.output, self.pixels = input, output, pixels
        self._values = {input, *(name for step in program.steps for name in step.outputs if name)}
        self._fixed: dict[str, Tensor] = {}  # stay on the CPU: mostly shapes
        self._places: dict[tuple[str, str], str] = {}  # a constant and its role -> its name here
        self._schedule = _schedule(self._place_all(program), output)

    def forward(self, x: Tensor) -> Tensor:
        if self.pixels:
            x = (255 * x).permute(0, 2, 3, 1)
        values = {**self.held(), self.input: x}
        for step, done in self._schedule:
            made = self.run(step, [values[name] if name else None for name in step.inputs])
            values.update(zip(step.outputs, made, strict=True))
            for name in done:  # free its memory
                del values[name]
        y: Tensor = values[self.output]
        return y

    def held(self) -> dict[str, Any]:
        """The values that do not depend on the picture, by name."""
        return {**self._fixed, **self._parameters, **self._buffers}

    def run(self, step: Step, given: list[Any]) -> tuple[Tensor, ...]:
        """The outputs of one step."""
        made = step.run(self, *given) if isinstance(step.run, Layer) else step.run(*given)
        return made if isinstance(made, tuple) else (made,)

    @property
    def steps(self) -> list[Step]:
        """All steps, in their order."""
        return [step for step, _ in self._schedule]

    @property
    def rounds(self) -> bool:
        """Whether its layers take rounded values, as a quantised file's do."""
        made_by = makers(self.steps)
        return mostly(self.steps, lambda layer: behind_rounding(layer, made_by, self._fixed))

    def settle(self, steps: list[Step], known: Mapping[str, Tensor]) -> None:
        """Take other steps that do the same; `known` are values that none of them makes."""
        self._fixed.update(known)
        self._schedule = _schedule(steps, self.output)

    def _place_all(self, program: Program) -> list[Step]:
        learned: set[str] = set()  # values behind a layer with weights
        steps = []
        for step, _ in _schedule(program.steps, self.output):
            behind = not learned.isdisjoint(step.inputs)
            if behind or step.op in WEIGHTS:
                learned.update(step.outputs)
            steps.append(self._place(step, program.constants, behind))
        return steps

    def _place(self, step: Step, constants: Mapping[str, Tensor], behind: bool) -> Step:
        """The step with its constants in their place in this module."""
        if isinstance(step.run, Dense):
            return replace(step, run=self._linear(step.run))
        inputs = list(step.inputs)
        for position, name in enumerate(inputs):
            if name in constants:
                role = _role(step.op, position, constants[name], behind)
                inputs[position] = self._hold(name, constants[name], role)
        return replace(step, inputs=tuple(inputs))

    def _hold(self, name: str, value: Tensor, role: str) -> str:
        """Keep a constant in its role; a statistic that equals a weight stays apart from it."""
        if (name, role) not in self._places:
            place = self._places[name, role] = self._free(name)
            if role == "weight":
                self.register_parameter(place, nn.Parameter(value.clone()))
            elif role == "buffer":
                self.register_buffer(place, value.float().clone())
            else:
                self._fixed[place] = value
        return self._places[name, role]

    def _linear(self, dense: Dense) -> Layer:
        outputs, features = dense.weight.shape
        layer = nn.Linear(features, outputs, bias=dense.bias is not None)
        with torch.no_grad():
            layer.weight.copy_(dense.weight)
            if dense.bias is not None:
                layer.bias.copy_(dense.bias)
        name = self._free(dense.name.partition(".weight")[0])
        self.add_module(name, layer)
        return Layer(name, dense.on_maps, dense.in_rows)

    def _free(self, name: str) -> str:
        """A name for this module that no value of the graph and no other part of it has."""
        plain = re.sub(r"\W+", "_", name).strip("_") or "value"
        plain = re.sub(r"^val_(?=\d)", "value_", plain)  # val_7 is a name of the exporter's own
        found, count = plain, 1
        while hasattr(self, found) or found in self._values or found in self._fixed:
            count += 1
            found = f"{plain}_{count}"
        return found


def _role(op: str, position: int, value: Tensor, behind: bool) -> str:
    """ "weight" (a parameter), "buffer" (moves with the module) or "fixed" (stays on the CPU)."""
    if op in QUANTIZED:
        return "buffer"  # its zero points are whole numbers
    if not value.is_floating_point() or op in AS_NUMBERS:
        return "fixed"
    shift = op in ELEMENTWISE and behind and value.numel() > 1
    return "weight" if shift or position in WEIGHTS.get(op, ()) else "buffer"


def _schedule(steps: list[Step], output: str) -> list[tuple[Step, set[str]]]:
    """The steps that the output needs, each with the values that no later one needs."""
    needed = {"", output}
    schedule = []
    for step in reversed(steps):
        if not needed.isdisjoint(step.outputs):
            schedule.append((step, set(step.inputs) - needed))
            needed.update(step.inputs)
    return schedule[::-1]
