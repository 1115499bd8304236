"""Parity: tampered files miss, files that can't be compared are refused, others' may pass."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export.metadata import KEY
from export.precision import export_files, image_digest
from export.subject import model_subject
from guard.errors import UnusableInput
from guard.spec import InputSpec
from tests.conftest import model_of, plain, spec_of
from tests.parity_files import (
    IMAGE,
    benign,
    failed,
    first_image_only,
    hard_batch,
    lived,
    model,
    nan_weight,
    network,
    one_weight,
    proof_of,
    second_input,
    shift_bias,
    state,
    tamper,
)


def dead_quantisation(proto: onnx.ModelProto) -> None:
    """A node of int8 that nothing needs, which can't make a wrong answer an int8 one."""
    shift_bias(proto)
    proto.graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float32), "step"))
    proto.graph.node.append(helper.make_node("QuantizeLinear", ["input", "step"], ["unused"]))


def dead_cast(proto: onnx.ModelProto) -> None:
    shift_bias(proto)
    proto.graph.node.append(helper.make_node("Cast", ["input"], ["unused"], to=TensorProto.FLOAT16))


def live_quantisation(proto: onnx.ModelProto) -> None:
    """In the graph of a file that says that it is fp32."""
    shift_bias(proto)
    graph = proto.graph
    graph.node[-1].output[0] = "answer"
    graph.initializer.append(numpy_helper.from_array(np.array(1e-6, np.float32), "step"))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), "zero"))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "nothing"))
    graph.node.extend(
        [
            helper.make_node("QuantizeLinear", ["answer", "step", "zero"], ["whole"]),
            helper.make_node("DequantizeLinear", ["whole", "step", "zero"], ["rounded"]),
            helper.make_node("Mul", ["rounded", "nothing"], ["zeros"]),
            helper.make_node("Add", ["answer", "zeros"], ["output"]),
        ]
    )


def chosen_judges(proto: onnx.ModelProto) -> None:
    """A file that lists the images on which it is wrong as those that calibrated it."""
    shift_bias(proto)
    (entry,) = (entry for entry in proto.metadata_props if entry.key == KEY)
    digests = [image_digest(image) for image in benign().images[:30]]
    entry.value = json.dumps({**json.loads(entry.value), "calibrated_on": digests})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dead_quantisation, "over"),
        (dead_cast, "over"),
        (live_quantisation, "over"),
        (chosen_judges, "over"),
        (one_weight, "over"),
        (nan_weight, "not finite"),
        (shift_bias, "over"),
        (hard_batch, "reshape"),
        (first_image_only, "over"),
        (state(color="rgb"), "over"),
        (state(range=[0, 1]), "over"),
        (state(mean=[104, 117, 124]), "over"),
        (state(std=[50, 60, 71]), "over"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_tampered_file_misses(
    exported: dict[str, Path],
    tmp_path: Path,
    change: Callable[[onnx.ModelProto], None],
    words: str,
) -> None:
    path = tamper(exported["fp32"], tmp_path / "m.onnx", change)
    reasons = failed(proof_of(path))
    assert reasons
    assert words in reasons[0].lower()


@pytest.mark.parametrize("batch", [1, 2])
def test_what_is_wrong_in_larger_batches_is_seen_there(
    exported: dict[str, Path], tmp_path: Path, batch: int
) -> None:
    change = first_image_only if batch == 1 else hard_batch
    path = tamper(exported["fp32"], tmp_path / "m.onnx", change)
    rows = proof_of(path).rows
    assert {row["batch"] for row in rows if row["passed"]} == {batch}


def test_another_model_s_file_misses(tmp_path: Path, exported: dict[str, Path]) -> None:
    torch.manual_seed(5)
    proof = proof_of(exported["fp32"], model_subject(model_of(lived(plain(2)), input=IMAGE)))
    assert len(failed(proof)) == len(proof.rows)


def test_an_int8_file_with_a_wrong_scale_misses(exported: dict[str, Path], tmp_path: Path) -> None:
    def stretch(proto: onnx.ModelProto) -> None:
        scale = next(n for n in proto.graph.node if n.op_type == "QuantizeLinear").input[1]
        (tensor,) = [t for t in proto.graph.initializer if t.name == scale]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) / 8, scale))

    assert not failed(proof_of(exported["int8"]))
    assert failed(proof_of(tamper(exported["int8"], tmp_path / "m.onnx", stretch)))


def test_an_answer_that_is_nan_on_both_sides_is_no_parity(exported: dict[str, Path]) -> None:
    broken = network()
    with torch.no_grad():
        broken.get_parameter("7.bias").fill_(math.nan)
    subject = replace(model_subject(model()), module=model_of(broken, input=IMAGE))
    proof = proof_of(exported["fp32"], subject)
    assert set(failed(proof)) == {"the torch model's own answers are not finite"}
    assert len(failed(proof)) == len(proof.rows)


# --- files of others -----------------------------------------------------------------------------


def test_a_file_that_preprocesses_by_itself_passes(tmp_path: Path) -> None:
    export_files(model(), tmp_path / "m.onnx", embed_preprocessing=True)
    assert not failed(proof_of(tmp_path / "m.onnx"))


def test_a_file_without_metadata_is_fed_as_the_model_is(
    exported: dict[str, Path], tmp_path: Path
) -> None:
    path = tamper(exported["fp32"], tmp_path / "m.onnx", lambda p: p.ClearField("metadata_props"))
    assert not failed(proof_of(path))
    stated = {**spec_of().to_json(), "input": {"size": [16, 16]}}
    path.with_suffix(".json").write_text(json.dumps(stated))
    assert failed(proof_of(path))  # the JSON beside it asks for other preprocessing


def test_a_file_with_other_preprocessing_and_weights_to_match_passes(tmp_path: Path) -> None:
    """A file is fed as it asks: what counts is what it computes of the same picture."""
    spec = InputSpec((16, 16), range=(0.0, 255.0))
    one, other = Plainer(1.0), Plainer(255.0)
    export_files(model_of(other, input=spec), tmp_path / "m.onnx")
    assert not failed(proof_of(tmp_path / "m.onnx", model_subject(model_of(one))))


class Plainer(nn.Module):
    """Linear in the picture's columns, whatever range it comes in."""

    def __init__(self, white: float) -> None:
        super().__init__()
        self.white, self.fc = white, nn.Linear(48, 2)
        with torch.no_grad():
            self.fc.weight.copy_(torch.linspace(-0.1, 0.1, 96).view(2, 48))
            self.fc.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.fc((x / self.white).mean(dim=2).flatten(1))
        return answer


def other_size(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 20
    del proto.graph.value_info[:]


def new_opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 99


def three_outputs(proto: onnx.ModelProto) -> None:
    graph = proto.graph
    graph.node[-1].output[0] = "answer"
    graph.node.append(helper.make_node("Concat", ["answer", "answer"], ["output"], axis=1))
    graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4


def other_units(proto: onnx.ModelProto) -> None:
    (entry,) = proto.metadata_props
    assert entry.key == KEY
    entry.value = json.dumps({**json.loads(entry.value), "units": "deg"})


def no_metadata_of_size(proto: onnx.ModelProto) -> None:
    (entry,) = proto.metadata_props
    entry.value = '{"task": "gaze"}'


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_size, r"20, 16"),
        (second_input, "2 inputs"),
        (new_opset, "opset 99"),
        (three_outputs, r"shape \[4\]"),
        (other_units, "units is deg"),
        (no_metadata_of_size, "missing"),
    ],
)
def test_files_that_can_not_be_compared_are_refused_in_one_line(
    exported: dict[str, Path],
    tmp_path: Path,
    change: Callable[[onnx.ModelProto], None],
    words: str,
) -> None:
    path = tamper(exported["fp32"], tmp_path / "m.onnx", change)
    with pytest.raises(UnusableInput, match=words) as caught:
        proof_of(path)
    assert "\n" not in str(caught.value)
    assert "m.onnx" in str(caught.value)
