"""What a file answers where half floats are real: onnxruntime's CPU computes them in float32."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from onnx import TensorProto
from torch import Tensor

from export.graph import OnnxNetwork
from export.graph_file import OnnxFile
from export.graph_read import Step, read_program

HALF = "half (reference)"  # stands among the providers
BATCH = 8
MOST = 16  # images of a group
ABOUT = (
    "this tool's own interpreter, every half value rounded to 11 bits and infinite beyond 65504; "
    "a node itself computes in float32, as hardware sums"
)


class HalfSession:
    """A file in torch, each half value rounded when its node is done; run as a session is.

    Raises UnusableInput for an operator that is not known.
    """

    def __init__(self, file: OnnxFile) -> None:
        program = read_program(file.proto.graph, file.path, file.opset, file.batch)
        half = half_values(file.proto.graph)
        for name in half & program.constants.keys():
            program.constants[name] = rounded(program.constants[name])
        steps = []
        for step in program.steps:
            behind = [Step("Cast", rounded, (n,), (n,)) for n in step.outputs if n in half]
            steps += [step, *behind]
        program.steps = steps
        self._input, self._half_output = file.input, file.output in half
        self._network = OnnxNetwork(program, file.input, file.output)

    @torch.no_grad()
    def run(self, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The one output, float32 or float16 as the file gives it."""
        x = torch.from_numpy(feeds[self._input])
        y = self._network(x.float() if x.dtype == torch.float16 else x).numpy()
        return [y.astype(np.float16) if self._half_output else y]


def half_values(graph: onnx.GraphProto) -> set[str]:
    """Names of the half floats in a graph with inferred types."""
    values = (*graph.input, *graph.value_info, *graph.output)
    return {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT16}


def rounded(x: Tensor) -> Tensor:
    """To the nearest half float, held as float32."""
    return x.half().float()
