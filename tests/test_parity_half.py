"""Parity of fp16: what onnxruntime's CPU computes in float32 is run in real half floats too."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from export.graph_file import read_onnx
from export.half import HALF, MOST, HalfSession
from export.parity import Proof
from export.precision import export_files
from export.session import CPU
from export.subject import model_subject
from guard.spec import InputSpec
from tests.conftest import benign_of, model_of
from tests.onnx_files import FLOAT, by_hand, node
from tests.onnx_files import HALF as HALF_FLOAT
from tests.parity_files import network, proof_of

SIDE = 16


def half_graph(half_io: bool) -> onnx.ModelProto:
    """Of three channels one is exact in half floats, one too large, one loses its last bits."""
    kind = HALF_FLOAT if half_io else FLOAT
    nodes = [
        node("Cast", "input", "a", to=HALF_FLOAT),
        node("Conv", "a weight", "b"),
        node("Mul", "b scale", "c"),
        node("Add", "c shift", "d"),
        node("Sub", "d shift", "e"),
        node("ReduceMax", "e", "f", axes=[2, 3], keepdims=0),
        node("Cast", "f", "output", to=kind),
    ]
    weights = {
        "weight": np.arange(9).reshape(3, 3, 1, 1) / 4 + 1,
        "scale": np.array([1, 9000, 1]).reshape(3, 1, 1),
        "shift": np.array([0, 0, 2048]).reshape(3, 1, 1),
    }
    half = {name: value.astype(np.float16) for name, value in weights.items()}
    return by_hand(nodes, half, opset=13, gives=("n", 3), kinds=(kind, kind))


@pytest.mark.parametrize("half_io", [False, True])
def test_half_floats_are_those_of_the_onnx_reference(half_io: bool, tmp_path: Path) -> None:
    proto = half_graph(half_io)
    onnx.save(proto, tmp_path / "a.onnx")
    x = np.random.default_rng(0).integers(0, 8, (4, 3, SIDE, SIDE))
    x = x.astype(np.float16 if half_io else np.float32)
    (ours,) = HalfSession(read_onnx(tmp_path / "a.onnx")).run(["output"], {"input": x})
    made: Any = ReferenceEvaluator(proto).run(None, {"input": x})
    theirs = made[0]
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)
    assert np.isinf(theirs[:, 1]).all()
    assert set(theirs[:, 2] % 2) == {0}  # steps of 2 from 2048 on


class Normed(nn.Module):
    """A network that divides a picture by its length, whose square is no half float."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, x: Tensor) -> Tensor:
        length = x.square().sum((1, 2, 3), keepdim=True).sqrt()
        answer: Tensor = self.body(30 * x / (length + 1e-3))
        return answer


def proof_of_half(made: nn.Module, folder: Path) -> Proof:
    opened = model_of(made, input=InputSpec((SIDE, SIDE), range=(0.0, 255.0)))
    (path,) = export_files(opened, folder / "m.onnx", ["fp16"])
    return proof_of(path, model_subject(opened), benign=benign_of(opened, 20))


def test_what_overflows_in_real_half_floats_misses(tmp_path: Path) -> None:
    torch.manual_seed(1)
    rows = proof_of_half(Normed(), tmp_path).rows
    assert {row["provider"] for row in rows if row["passed"]} == {CPU}
    (missed,) = [row for row in rows if not row["passed"]]
    assert (missed["provider"], missed["n"]) == (HALF, MOST)
    assert "over" in missed["reason"]


def test_a_file_that_the_interpreter_can_not_read_says_so(tmp_path: Path) -> None:
    opened = model_of(network())
    (path,) = export_files(opened, tmp_path / "m.onnx", ["fp16"])
    proto = onnx.load(path)
    proto.graph.node[-1].input[0], before = "same", proto.graph.node[-1].input[0]
    proto.graph.node.insert(len(proto.graph.node) - 1, node("Sinh", before, "sinh"))
    proto.graph.node.insert(len(proto.graph.node) - 1, node("Asinh", "sinh", "same"))
    onnx.save(proto, path)
    proof = proof_of(path, model_subject(opened), benign=benign_of(opened, 5))
    assert HALF not in {row["provider"] for row in proof.rows}
    (line,) = proof.not_running
    assert line.startswith(HALF)
    assert "Sinh" in line
