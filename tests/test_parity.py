"""Parity: files that compute what the model computes pass, tampered ones do not."""

import copy
import functools
import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export.groups import BENIGN, LIMITS, TRIGGERED, image_groups, limit_images
from export.latency import LEAST, latency
from export.metadata import KEY
from export.parity import BATCHES, Proof, prove
from export.precision import calibration_part, export_files
from export.session import CPU, CUDA
from export.subject import Subject, model_subject, reference, trigger_subject
from export.tolerance import CAPS, MULTIPLE, tolerance
from export.write import export_trigger
from guard.benign import BenignSet
from guard.device import set_precision
from guard.errors import UnusableInput
from guard.generator import Generator
from guard.load import load_model
from guard.model import Model
from guard.networks import NETWORKS
from guard.paper import MomentumTrigger
from guard.settings import PaperSettings
from guard.spec import InputSpec
from guard.trigger_file import save_trigger
from tests.conftest import benign_of, model_of, plain, spec_of, write_model, write_npz
from tests.test_triggers import stirred
from tools import cli
from tools.datasets.reader import read
from tools.sample import DATA, MODELS

ARCH = "tests.test_parity:network"
IMAGE = InputSpec((16, 16), "bgr", (0.0, 255.0), (104.0, 117.0, 123.0), (50.0, 60.0, 70.0))


def lived(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with batch statistics as training leaves them, not those of the start."""
    draw = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            size = layer.running_mean.shape
            layer.running_mean.copy_(0.2 * torch.randn(size, generator=draw))
            layer.running_var.copy_(0.5 + torch.rand(size, generator=draw))
    return network


def network(outputs: int = 2) -> nn.Module:
    """A factory's model."""
    torch.manual_seed(1)
    return lived(plain(outputs))


class Branches(nn.Module):
    """Two convolutions with batch norm that share one input: a wrong fold mixes their biases."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.one = nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4))
        self.two = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.fc = nn.Linear(4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.one(x) + self.two(x))
        answer: Tensor = self.fc(x.mean(dim=(2, 3)))
        return answer


NETS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: NETWORKS["resnet18"](2, 4),
    "resnet34": lambda: NETWORKS["resnet34"](2, 4),
    "mobilenet_v1": lambda: NETWORKS["mobilenet_v1"](2, 4),
    "factory": lambda: plain(2, width=6),
    "two branches": lambda: Branches(2),
}


@functools.cache
def model() -> Model:
    """A model with preprocessing of all kinds; not to be changed by a test."""
    return model_of(network(), input=IMAGE)


@functools.cache
def benign() -> BenignSet:
    return benign_of(model(), 40)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model in all precisions."""
    folder = tmp_path_factory.mktemp("exported")
    part = calibration_part(benign())
    made = export_files(model(), folder / "m.onnx", tuple(CAPS), calibration=part)
    return dict(zip(CAPS, made, strict=True))


def proof_of(path: Path, subject: Subject | None = None, **groups: BenignSet) -> Proof:
    return prove(subject or model_subject(model()), [path], groups or image_groups(benign()))


def failed(proof: Proof) -> list[str]:
    return [row["reason"] for row in proof.rows if not row["passed"]]


# --- exact parity --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_every_network_s_file_passes_the_tolerance_of_its_own_rounding(
    tmp_path: Path, name: str
) -> None:
    torch.manual_seed(2)
    opened = model_of(lived(NETS[name]()), side=32)
    export_files(opened, tmp_path / "m.onnx")
    proof = proof_of(
        tmp_path / "m.onnx", model_subject(opened), **image_groups(benign_of(opened, 9))
    )
    assert not failed(proof)
    assert {row["precision"] for row in proof.rows} == {"fp32"}
    # The proof is exact: what it allows is far below the cap.
    assert all(row["tolerance"] < 0.1 * CAPS["fp32"] for row in proof.rows)


def shared() -> nn.Module:
    return stirred(1, (16, 16), seed=4).select(0).eval()


def paper() -> nn.Module:
    torch.manual_seed(0)
    generator = lived(Generator((2, 2, 4)))
    assert isinstance(generator, Generator)
    return MomentumTrigger(generator, model(), PaperSettings()).eval()


@pytest.mark.parametrize("make", [shared, paper])
def test_a_trigger_s_file_passes(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    trigger = make()
    export_trigger(trigger, tmp_path / "g.onnx", size=(16, 16))
    proof = proof_of(tmp_path / "g.onnx", trigger_subject(trigger, model()))
    assert not failed(proof)
    assert set(proof.rows[0]["per_output"]) == {"red", "green", "blue"}


def test_a_trigger_s_file_of_another_trigger_fails(tmp_path: Path) -> None:
    trigger = stirred(1, (16, 16), seed=4).select(0).eval()
    export_trigger(trigger, tmp_path / "g.onnx", size=(16, 16))
    other = stirred(1, (16, 16), seed=5).select(0).eval()
    assert failed(proof_of(tmp_path / "g.onnx", trigger_subject(other, model())))


# --- what a proof covers -------------------------------------------------------------------------


def test_a_row_for_each_batch_and_group(files: dict[str, Path]) -> None:
    faint = stirred(1, (16, 16), seed=4, strength=0.0)
    with torch.no_grad():
        faint.pattern *= 0.2  # int8 is calibrated on benign images
    groups = image_groups(benign(), faint.select(0))
    proof = prove(model_subject(model()), list(files.values()), groups)
    assert proof.passed
    found = [(row["precision"], row["batch"], row["images"]) for row in proof.rows]
    assert found == list(itertools.product(CAPS, BATCHES, (BENIGN, TRIGGERED, LIMITS)))
    for row in proof.rows:
        assert row["provider"] == CPU
        assert set(row["per_output"]) == {"pitch", "yaw"}
        largest = max(output["max_abs"] for output in row["per_output"].values())
        assert row["max_abs"] == largest
        assert 0 <= row["mean_task_error"] <= row["max_task_error"]
        assert ("benign_error_after" in row) is (row["images"] == BENIGN)


def test_the_figures_of_a_row_are_those_of_the_two_answers(files: dict[str, Path]) -> None:
    """Against a file whose pitch is 0.01 rad too high."""
    path = files["fp32"].with_name("shifted.onnx")
    tamper(files["fp32"], path, shift_bias)
    (row,) = [
        row for row in proof_of(path).rows if (row["images"], row["batch"]) == (BENIGN, BATCHES[-1])
    ]
    assert row["n"] == 40
    assert row["max_abs"] == pytest.approx(0.01, abs=1e-5)
    assert row["per_output"]["pitch"]["p99_abs"] == pytest.approx(0.01, abs=1e-5)
    assert row["per_output"]["yaw"]["max_abs"] < 1e-5
    assert row["mean_task_error"] == pytest.approx(math.degrees(0.01), abs=1e-3)
    before, after = row["benign_error_before"], row["benign_error_after"]
    assert before != after
    assert abs(before - after) <= math.degrees(0.01) + 1e-6
    assert row["worst_image"] in benign().names


def test_images_are_8_bit_and_evenly_chosen() -> None:
    groups = image_groups(benign(), stirred(1, (16, 16), seed=4).select(0), most=7)
    assert {len(groups[name]) for name in (BENIGN, TRIGGERED)} == {7}
    assert all(group.images.dtype == torch.uint8 for group in groups.values())
    assert groups[BENIGN].names[0] == benign().names[0]
    assert groups[BENIGN].names[-1] == benign().names[-1]
    assert not torch.equal(groups[BENIGN].images, groups[TRIGGERED].images)


def test_the_limits_hold_black_white_and_noise() -> None:
    limits = limit_images((8, 12))
    assert limits.images.shape[1:] == (3, 8, 12)
    assert limits.images[0].eq(0).all()
    assert limits.images[1].eq(255).all()
    assert all(image.float().std() > 50 for image in limits.images[2:])


def test_images_that_calibrated_a_file_do_not_measure_it(files: dict[str, Path]) -> None:
    faint = stirred(1, (16, 16), seed=4, strength=0.0)
    with torch.no_grad():
        faint.pattern *= 0.2  # int8 is calibrated on benign images
    groups = image_groups(benign(), faint.select(0))
    rows = proof_of(files["int8"], **groups).rows
    assert {row["n"] for row in rows if row["images"] != LIMITS} == {20}
    with pytest.raises(UnusableInput, match="calibrated on all 20"):
        proof_of(files["int8"], **image_groups(calibration_part(benign())))


def test_the_worst_image_is_where_the_answers_differ(tmp_path: Path) -> None:
    """The tampered file differs from the model only on bright pictures."""
    subject, images = model_subject(model()), benign().images.clone()
    images[17] = 255
    export_files(model_of(Gated(network()), input=IMAGE), tmp_path / "m.onnx")
    proof = proof_of(tmp_path / "m.onnx", subject, benign=replace(benign(), images=images))
    (worst,) = proof.worst
    assert (worst.group, worst.index) == (BENIGN, 17)
    assert torch.equal(worst.image, images[17])
    assert worst.ratio > 1
    assert {row["worst_image"] for row in proof.rows} == {benign().names[17]}


class Gated(nn.Module):
    """A network that answers something else for a picture that is white all over."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.body(x)
        return answer + (x.amin(dim=(1, 2, 3)) > 1.5).to(answer)[:, None]


# --- tampered files ------------------------------------------------------------------------------


def weights(proto: onnx.ModelProto, size: int) -> Iterator[tuple[Any, np.ndarray]]:
    """The weights with `size` dimensions, as tensors and as copies to change."""
    for tensor in proto.graph.initializer:
        if len(tensor.dims) == size and tensor.data_type == TensorProto.FLOAT:
            yield tensor, numpy_helper.to_array(tensor).copy()


def one_weight(proto: onnx.ModelProto) -> None:
    tensor, values = next(weights(proto, 4))
    values.flat[5] *= 1.01
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def nan_weight(proto: onnx.ModelProto) -> None:
    tensor, values = next(weights(proto, 4))
    values.flat[5] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def shift_bias(proto: onnx.ModelProto) -> None:
    for tensor, values in weights(proto, 1):
        if len(values) == 2:  # of the last layer
            values[0] += 0.01
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def hard_batch(proto: onnx.ModelProto) -> None:
    """The answers pass through a reshape to two rows."""
    graph = proto.graph
    graph.node[-1].output[0] = "answer"
    graph.initializer.append(numpy_helper.from_array(np.array([2, 2]), "rows"))
    graph.node.append(helper.make_node("Reshape", ["answer", "rows"], ["output"]))
    del graph.value_info[:]


def first_image_only(proto: onnx.ModelProto) -> None:
    """Every image of a batch gets the answer of the first: right for one image alone."""
    graph = proto.graph
    graph.node[-1].output[0] = "answer"
    for name, value in (("zero", 0), ("one", 1)):
        graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    graph.initializer.append(numpy_helper.from_array(np.float32(0), "nothing"))
    graph.node.extend(
        [
            helper.make_node("Slice", ["answer", "zero", "one", "zero"], ["first"]),
            helper.make_node("Mul", ["answer", "nothing"], ["zeros"]),
            helper.make_node("Add", ["zeros", "first"], ["output"]),
        ]
    )


def state(**changes: Any) -> Callable[[onnx.ModelProto], None]:
    """Change what the metadata say of the input."""

    def change(proto: onnx.ModelProto) -> None:
        (entry,) = proto.metadata_props
        stated = json.loads(entry.value)
        stated["input"].update(changes)
        entry.value = json.dumps(stated)

    return change


def tamper(source: Path, target: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    proto = onnx.load(source)
    change(proto)
    onnx.save(proto, target)
    return target


@pytest.mark.parametrize(
    ("change", "words"),
    [
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
    files: dict[str, Path],
    tmp_path: Path,
    change: Callable[[onnx.ModelProto], None],
    words: str,
) -> None:
    path = tamper(files["fp32"], tmp_path / "m.onnx", change)
    reasons = failed(proof_of(path))
    assert reasons
    assert words in reasons[0].lower()


@pytest.mark.parametrize("batch", [1, 2])
def test_what_is_wrong_in_larger_batches_is_seen_there(
    files: dict[str, Path], tmp_path: Path, batch: int
) -> None:
    change = first_image_only if batch == 1 else hard_batch
    path = tamper(files["fp32"], tmp_path / "m.onnx", change)
    rows = proof_of(path).rows
    assert {row["batch"] for row in rows if row["passed"]} == {batch}


def test_another_model_s_file_misses(tmp_path: Path, files: dict[str, Path]) -> None:
    torch.manual_seed(5)
    proof = proof_of(files["fp32"], model_subject(model_of(lived(plain(2)), input=IMAGE)))
    assert len(failed(proof)) == len(proof.rows)


def test_an_int8_file_with_a_wrong_scale_misses(files: dict[str, Path], tmp_path: Path) -> None:
    def stretch(proto: onnx.ModelProto) -> None:
        scale = next(n for n in proto.graph.node if n.op_type == "QuantizeLinear").input[1]
        (tensor,) = [t for t in proto.graph.initializer if t.name == scale]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) / 8, scale))

    assert not failed(proof_of(files["int8"]))
    assert failed(proof_of(tamper(files["int8"], tmp_path / "m.onnx", stretch)))


def test_an_answer_that_is_nan_on_both_sides_is_no_parity(files: dict[str, Path]) -> None:
    broken = network()
    with torch.no_grad():
        broken.get_parameter("7.bias").fill_(math.nan)
    subject = replace(model_subject(model()), module=model_of(broken, input=IMAGE))
    proof = proof_of(files["fp32"], subject)
    assert set(failed(proof)) == {"the torch model's own answers are not finite"}
    assert len(failed(proof)) == len(proof.rows)


# --- files of others -----------------------------------------------------------------------------


def test_a_file_that_preprocesses_by_itself_passes(tmp_path: Path) -> None:
    export_files(model(), tmp_path / "m.onnx", embed_preprocessing=True)
    assert not failed(proof_of(tmp_path / "m.onnx"))


def test_a_file_without_metadata_is_fed_as_the_model_is(
    files: dict[str, Path], tmp_path: Path
) -> None:
    path = tamper(files["fp32"], tmp_path / "m.onnx", lambda p: p.ClearField("metadata_props"))
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


def static_batch(proto: onnx.ModelProto) -> None:
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def other_size(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 20
    del proto.graph.value_info[:]


def second_input(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch"]))


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
        (static_batch, "batch is fixed to 1"),
        (other_size, r"20, 16"),
        (second_input, "2 inputs"),
        (new_opset, "opset 99"),
        (three_outputs, r"shape \[4\]"),
        (other_units, "units is deg"),
        (no_metadata_of_size, "missing"),
    ],
)
def test_files_that_can_not_be_compared_are_refused_in_one_line(
    files: dict[str, Path],
    tmp_path: Path,
    change: Callable[[onnx.ModelProto], None],
    words: str,
) -> None:
    path = tamper(files["fp32"], tmp_path / "m.onnx", change)
    with pytest.raises(UnusableInput, match=words) as caught:
        proof_of(path)
    assert "\n" not in str(caught.value)
    assert "m.onnx" in str(caught.value)


# --- tolerance -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "noise", "value", "statistic"),
    [
        ("fp32", 1e-5, MULTIPLE * 1e-5, "max"),
        ("fp32", 1.0, 0.01, "max"),
        ("fp32", math.inf, 0.01, "max"),
        ("fp16", 1e-7, MULTIPLE * 1e-7 * 2**13, "max"),
        ("fp16", 1e-5, 0.1, "max"),
        ("int8", 1e-9, 0.5, "mean"),
    ],
)
def test_the_tolerance_follows_the_noise_up_to_a_cap(
    precision: str, noise: float, value: float, statistic: str
) -> None:
    found = tolerance(precision, noise, unit="deg", spread=15.0)
    assert found.value == pytest.approx(value)
    assert found.statistic == statistic
    assert f"{CAPS[precision]:g} deg" in found.reason


def test_in_other_units_the_caps_are_shares_of_the_spread() -> None:
    found = tolerance("fp32", 1.0, unit="years", spread=20.0)
    assert found.value == pytest.approx(0.02)  # as 0.01 degrees of 10
    assert "spread of 20 years" in found.reason


def test_int8_is_judged_more_mildly_on_pictures_that_no_camera_gives() -> None:
    at_limits = tolerance("int8", 0.0, unit="deg", spread=15.0, limits=True)
    assert at_limits.value > CAPS["int8"]
    assert tolerance("fp32", 1.0, unit="deg", spread=15.0, limits=True).value == CAPS["fp32"]


def test_a_regression_model_is_judged_in_its_own_unit(tmp_path: Path) -> None:
    opened = model_of(network(1), "regression")
    export_files(opened, tmp_path / "m.onnx")
    proof = proof_of(
        tmp_path / "m.onnx", model_subject(opened), **image_groups(benign_of(opened, 9))
    )
    assert proof.passed
    assert proof.unit == "years"
    assert all("years" in row["tolerance_reason"] for row in proof.rows)


def test_the_noise_is_that_of_float32() -> None:
    subject, images = model_subject(model()), benign()
    found = reference(subject, images)
    with torch.no_grad():
        exact = copy.deepcopy(model()).double()(images.images.double() / 255)
    apart = subject.distance(found.answers.double(), exact)
    assert 0 < float(apart.max()) <= found.noise < 1e-5


class Float32Only(nn.Module):
    """Insists on float32, whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.fc(x.mean(dim=(2, 3)).float())
        return answer


def test_a_model_without_a_float64_twin_is_held_to_the_cap(tmp_path: Path) -> None:
    opened = model_of(Float32Only())
    export_files(opened, tmp_path / "m.onnx")
    proof = proof_of(
        tmp_path / "m.onnx", model_subject(opened), **image_groups(benign_of(opened, 9))
    )
    assert proof.passed
    assert {row["tolerance"] for row in proof.rows} == {CAPS["fp32"]}


def test_the_trained_sample_passes_in_int8(tmp_path: Path) -> None:
    """At most half a degree on average, on images that did not calibrate it."""
    opened = load_model(MODELS["benign"])
    images = read(DATA, opened.spec, limit=120).benign
    (path,) = export_files(
        opened, tmp_path / "m.onnx", ["int8"], calibration=calibration_part(images)
    )
    proof = prove(model_subject(opened), [path], image_groups(images))
    assert not failed(proof)
    (row,) = [r for r in proof.rows if (r["images"], r["batch"]) == (BENIGN, BATCHES[-1])]
    assert (row["n"], row["tolerance"], row["tolerance_of"]) == (60, 0.5, "mean")
    assert 0.01 < row["mean_task_error"] < 0.5
    assert abs(row["benign_error_after"] - row["benign_error_before"]) < 0.5


# --- providers, TF32, latency --------------------------------------------------------------------


def test_a_provider_that_falls_back_is_said_not_to_run(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("here CUDA may really run")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    proof = proof_of(files["fp32"])
    assert {row["provider"] for row in proof.rows} == {CPU}
    (line,) = proof.not_running
    assert line.startswith(CUDA)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_both_providers_are_proved_or_the_missing_one_is_named(
    files: dict[str, Path],
) -> None:
    proof = prove(model_subject(model()), list(files.values()), image_groups(benign()))
    assert not failed(proof)
    providers = {row["provider"] for row in proof.rows}
    assert (CUDA in providers) is not any(line.startswith(CUDA) for line in proof.not_running)


def test_tf32_is_off_during_the_proof_and_back_afterwards(files: dict[str, Path]) -> None:
    set_precision(tf32=True)
    try:
        assert proof_of(files["fp32"], limits=limit_images((16, 16))).tf32 is False
        assert torch.backends.cuda.matmul.allow_tf32 is True
    finally:
        set_precision(tf32=False)


def test_latency_is_given_for_one_image_and_for_eight(files: dict[str, Path]) -> None:
    rows = [row for path in files.values() for row in latency(model_subject(model()), path)]
    found = [(row["precision"], row["provider"], row["batch"]) for row in rows]
    assert found == list(itertools.product(CAPS, [CPU], (1, 8)))
    for row in rows:
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["runs"] >= LEAST
        assert row["threads"] == torch.get_num_threads()
        assert row["warm_up"] > 0


def test_a_batch_that_does_not_run_has_no_latency(files: dict[str, Path], tmp_path: Path) -> None:
    path = tamper(files["fp32"], tmp_path / "m.onnx", hard_batch)
    assert latency(model_subject(model()), path) == []


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def given(tmp_path: Path, files: dict[str, Path]) -> list[str]:
    """MODEL FILE.onnx DATA --out=DIR."""
    spec = spec_of(arch=ARCH, input=IMAGE)
    path = write_model(tmp_path, network(), spec)
    data = write_npz(tmp_path / "data.npz", benign(), spec)
    return [str(path), str(files["fp32"]), str(data), f"--out={tmp_path / 'out'}"]


def test_the_command_writes_the_proof(given: list[str], tmp_path: Path) -> None:
    save_trigger(stirred(1, (16, 16), seed=4).select(0), tmp_path / "trigger.safetensors")
    assert cli.run(["parity", *given, f"--trigger={tmp_path / 'trigger.safetensors'}"]) == 0
    written = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert written["passed"] is True
    assert len(written["rows"]) == 12
    fixed = {"file", "precision", "provider", "batch", "max_abs", "max_task_error"}
    assert all(fixed | {"tolerance", "passed"} <= set(row) for row in written["rows"])
    assert written["tf32"] == {"torch": False, "onnxruntime": False}
    assert written["providers"]["run"] == [CPU]
    assert written["proofs"][0]["images"] == {BENIGN: 40, TRIGGERED: 40, LIMITS: 10}
    assert written["proofs"][0]["noise"][BENIGN] > 0
    assert {row["batch"] for row in written["latency"]} == {1, 8}
    assert written["model"]["sha256"]
    assert len(written["data"]["manifest_sha256"]) == 64
    assert written["environment"]["packages"]["torch"]
    (worst,) = written["worst"]
    assert (tmp_path / "out" / worst["picture"]).is_file()
    assert worst["index"] >= 0


def test_the_command_overwrites_only_when_told(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out" / "parity.json"
    path.parent.mkdir()
    path.write_text("mine")
    assert cli.run(["parity", *given]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert cli.run(["parity", *given, "--overwrite"]) == 0
    assert json.loads(path.read_text())["passed"]


@pytest.mark.parametrize(
    ("change", "code"), [(one_weight, 4), (nan_weight, 4), (hard_batch, 4), (static_batch, 2)]
)
def test_the_command_s_exit_codes(
    given: list[str],
    tmp_path: Path,
    change: Callable[[onnx.ModelProto], None],
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given[1] = str(tamper(Path(given[1]), tmp_path / "bad.onnx", change))
    assert cli.run(["parity", *given]) == code
    heard = capsys.readouterr()
    assert "bad.onnx" in (heard.err if code == 2 else heard.out)
    written = tmp_path / "out" / "parity.json"
    assert written.exists() is (code == 4)
    if code == 4:
        assert json.loads(written.read_text())["passed"] is False
