"""From the nodes of an ONNX graph to the steps of a torch module, and the values they start from.

What does not depend on the image is computed here, once: a weight behind DequantizeLinear is a
float weight afterwards.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor

from export.graph_dense import as_dense, with_bias
from export.graph_node import Node, shown
from export.graph_values import to_torch
from export.operators import build
from guard.errors import UnusableInput

LARGEST = 2**28  # numbers in a constant: 1 GiB; no weight of a network in a car comes near


@dataclass(frozen=True)
class Step:
    """One node that depends on the image, or a MatMul with the Add behind it."""

    op: str
    run: Any  # what computes it, or a Dense layer
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    where: str = ""  # the node, for messages


@dataclass
class Program:
    """The steps in their order, and the values that do not depend on the image, by name."""

    uses: Counter[str]  # how often each value is used
    steps: list[Step] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)


def read_program(graph: onnx.GraphProto, path: Path, opset: int, batch: int | None) -> Program:
    """The steps of a checked graph with inferred shapes; `batch` is the one that it fixes.

    Raises UnusableInput for the first operator, attribute or type that is not known.
    """
    outputs = [output.name for output in graph.output]
    program = Program(Counter([*outputs, *(name for n in graph.node for name in n.input)]))
    for tensor in graph.initializer:
        program.constants[tensor.name] = to_torch(tensor, f"{path}: {shown(tensor.name)}")
    pixels, doubles = _values_of_one_pixel(graph), _values_in_double(graph)
    for proto in graph.node:
        node = _node(proto, program.constants, path, opset, batch)
        if node.op == "Constant":
            program.constants[node.outputs[0]] = _constant(node)
        else:
            _add(node, program, pixels, doubles)
    return program


def _node(
    proto: onnx.NodeProto, constants: dict[str, Tensor], path: Path, opset: int, batch: int | None
) -> Node:
    name, op = shown(proto.name or proto.output[0]), shown(proto.op_type)
    if proto.domain not in ("", "ai.onnx"):
        op = f"{shown(proto.domain)}.{op}"
    return Node(
        where=f"{path}: node {name} ({op})",
        op=op,
        opset=opset,
        inputs=tuple(proto.input),
        # A part of a Split that nobody wants has its place all the same.
        outputs=tuple(name for name in proto.output if name or op == "Split"),
        attributes={a.name: _attribute(a) for a in proto.attribute},
        constants=constants,
        batch=batch,
    )


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _constant(node: Node) -> Tensor:
    name, value = next(iter(node.attributes.items()))
    if name == "value":
        return to_torch(value, node.where)
    if name not in ("value_int", "value_ints", "value_float", "value_floats"):
        raise node.refusal(f"the attribute {name}")
    return torch.tensor(value)


def _values_of_one_pixel(graph: onnx.GraphProto) -> set[str]:
    """Names of the values that are maps of one pixel, [N x C x 1 x 1]."""
    sides = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in graph.value_info
    }
    return {name for name, known in sides.items() if len(known) == 4 and known[2:] == [1, 1]}


def _values_in_double(graph: onnx.GraphProto) -> set[str]:
    """Names of the values in DOUBLE, the output of the graph aside: it may be cast to that."""
    kind = onnx.TensorProto.DOUBLE
    made = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == kind}
    made |= {tensor.name for tensor in graph.initializer if tensor.data_type == kind}
    return made - {output.name for output in graph.output}


def _add(node: Node, program: Program, pixels: set[str], doubles: set[str]) -> None:
    run = build(node)
    given = [program.constants.get(name) for name in node.inputs]
    if all(value is not None or not name for name, value in zip(node.inputs, given, strict=True)):
        program.constants.update(zip(node.outputs, _computed(node, run, given), strict=True))
        return
    if not doubles.isdisjoint((*node.inputs, *node.outputs)):  # here it would be float32
        raise node.refusal("computing with pictures in DOUBLE")
    if _joins_dense(node, program):
        return
    dense = as_dense(node, pixels)
    inputs = node.inputs[:1] if dense else node.inputs
    program.steps.append(Step(node.op, dense or run, inputs, node.outputs, node.where))


def _computed(node: Node, run: Callable[..., Any], given: list[Tensor | None]) -> list[Tensor]:
    """The outputs of a node whose inputs are all known."""
    try:
        made = run(*given)
    except Exception as error:  # of torch, from values that do not fit one another
        raise UnusableInput(f"{node.where}: fails ({shown(str(error))})") from None
    values = made if isinstance(made, tuple) else (made,)
    if any(value.numel() > LARGEST for value in values):
        raise UnusableInput(f"{node.where}: makes a constant of more than {LARGEST} numbers")
    if len(values) != len(node.outputs):
        raise UnusableInput(f"{node.where}: gives {len(values)} of {len(node.outputs)} outputs")
    # Copies: weights that are one tensor under two names may be tuned apart.
    return [value.clone() for value in values]


def _joins_dense(node: Node, program: Program) -> bool:
    """Whether the node is the Add behind a MatMul; then its constant became the bias."""
    if node.op != "Add":
        return False
    for value, bias in (node.inputs, node.inputs[::-1]):
        for place, step in enumerate(program.steps):
            if step.outputs != (value,) or step.op != "MatMul" or program.uses[value] > 1:
                continue
            dense = with_bias(step.run, program.constants.get(bias))
            if dense is not None:
                program.steps[place] = Step("Gemm", dense, step.inputs, node.outputs, node.where)
                return True
    return False
