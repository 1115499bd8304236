"""Parity: files that compute what the model computes pass, each by its own tolerance."""

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from export.groups import BENIGN, CALIBRATION, LIMITS, TRIGGERED, image_groups, limit_images
from export.half import BATCH as HALF_BATCH
from export.half import HALF
from export.latency import LEAST, latency
from export.parity import BATCHES, prove, prove_against
from export.precision import calibration_part, export_files
from export.session import CPU, CUDA, uses_tf32
from export.subject import model_subject, reference, trigger_subject
from export.tolerance import CAPS, LARGEST, MULTIPLE, UNLIKE, tolerance
from export.write import export_trigger
from guard.benign import BenignSet
from guard.device import set_precision
from guard.dynamic import ImageTrigger
from guard.errors import UnusableInput
from guard.generator import Generator
from guard.load import load_model
from guard.paper import MomentumTrigger
from guard.settings import PaperSettings
from tests.conftest import benign_of, model_of, stirred
from tests.parity_files import (
    IMAGE,
    NETS,
    benign,
    failed,
    hard_batch,
    lived,
    model,
    network,
    proof_of,
    shift_bias,
    tamper,
)
from tools.datasets.reader import read
from tools.sample import DATA, MODELS

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


def per_image() -> nn.Module:
    torch.manual_seed(0)
    return ImageTrigger().eval()


@pytest.mark.parametrize("make", [shared, paper, per_image])
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


def with_faint_trigger() -> dict[str, BenignSet]:
    """The groups with a trigger so faint that int8, calibrated on benign images, holds it."""
    faint = stirred(1, (16, 16), seed=4, strength=0.0)
    with torch.no_grad():
        faint.pattern.mul_(0.2)
    return image_groups(benign(), faint.select(0))


def test_a_row_for_each_batch_and_group(exported: dict[str, Path]) -> None:
    proof = prove(model_subject(model()), list(exported.values()), with_faint_trigger())
    assert proof.passed
    found = [(row["precision"], row["batch"], row["images"]) for row in proof.rows]
    ways = [(p, b) for p in CAPS for b in (*BATCHES, *([HALF_BATCH] if p == "fp16" else []))]
    wanted = itertools.product(ways, (BENIGN, TRIGGERED, LIMITS, CALIBRATION))
    assert found == [(*way, g) for way, g in wanted if way[0] == "int8" or g != CALIBRATION]
    for row in proof.rows:
        assert row["provider"] == (HALF if row["batch"] == HALF_BATCH else CPU)
        assert set(row["per_output"]) == {"pitch", "yaw"}
        largest = max(output["max_abs"] for output in row["per_output"].values())
        assert row["max_abs"] == largest
        assert 0 <= row["mean_task_error"] <= row["max_task_error"]
        assert ("benign_error_after" in row) is (row["images"] == BENIGN)


def test_the_figures_of_a_row_are_those_of_the_two_answers(exported: dict[str, Path]) -> None:
    """Against a file whose pitch is 0.01 rad too high."""
    path = exported["fp32"].with_name("shifted.onnx")
    tamper(exported["fp32"], path, shift_bias)
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


def test_images_that_calibrated_a_file_measure_it_apart(exported: dict[str, Path]) -> None:
    rows = prove(model_subject(model()), [exported["int8"]], with_faint_trigger()).rows
    assert {row["n"] for row in rows if row["images"] != LIMITS} == {20}
    assert "calibration" in {row["images"] for row in rows}
    with pytest.raises(UnusableInput, match="calibrated on all 20"):
        prove(
            model_subject(model()),
            [exported["int8"]],
            image_groups(calibration_part(benign())),
        )


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
    assert found.largest == (LARGEST * value if statistic == "mean" else value)
    assert f"{CAPS[precision]:g} deg" in found.reason


def test_in_other_units_the_caps_are_shares_of_the_spread() -> None:
    found = tolerance("fp32", 1.0, unit="years", spread=20.0)
    assert found.value == pytest.approx(0.02)  # as 0.01 degrees of 10
    assert "spread of 20 years" in found.reason
    alone = tolerance("fp32", 1e-8, unit="years", spread=0.0)  # of one image
    assert alone.value == pytest.approx(MULTIPLE * 1e-8)


def test_pictures_that_no_camera_gives_are_judged_more_mildly_in_int8_and_real_half() -> None:
    at_limits = tolerance("int8", 0.0, unit="deg", spread=15.0, limits=True)
    assert (at_limits.value, at_limits.statistic) == (LARGEST * CAPS["int8"], "max")
    for precision in ("fp32", "fp16"):
        found = tolerance(precision, 1.0, unit="deg", spread=15.0, limits=True)
        assert found.value == CAPS[precision]
    real = tolerance("fp16", 1.0, unit="deg", spread=15.0, limits=True, real=True)
    assert real.value == real.largest == UNLIKE * CAPS["fp16"]
    assert tolerance("fp16", 1.0, unit="deg", spread=15.0, real=True).value == CAPS["fp16"]


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
    """Insists on float32, whatever it is given, or on being given it."""

    def __init__(self, refusal: type[Exception] | None) -> None:
        super().__init__()
        self.fc, self.refusal = nn.Linear(3, 2), refusal

    def forward(self, x: Tensor) -> Tensor:
        if self.refusal is not None and x.dtype != torch.float32:
            raise self.refusal
        answer: Tensor = self.fc(x.mean(dim=(2, 3)).float())
        return answer


@pytest.mark.parametrize("refusal", [None, AssertionError, TypeError])
def test_a_model_without_a_float64_twin_is_held_to_the_cap(
    refusal: type[Exception] | None, tmp_path: Path
) -> None:
    opened = model_of(Float32Only(refusal))
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
    exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("here CUDA may really run")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    proof = proof_of(exported["fp32"])
    assert {row["provider"] for row in proof.rows} == {CPU}
    (line,) = proof.not_running
    assert line.startswith(CUDA)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_both_providers_are_proved_or_the_missing_one_is_named(
    exported: dict[str, Path],
) -> None:
    proof = prove(model_subject(model()), list(exported.values()), image_groups(benign()))
    assert not failed(proof)
    providers = {row["provider"] for row in proof.rows}
    assert (CUDA in providers) is not any(line.startswith(CUDA) for line in proof.not_running)


def test_tf32_is_off_during_the_proof_and_back_afterwards(exported: dict[str, Path]) -> None:
    set_precision(tf32=True)
    try:
        proof = proof_of(exported["fp32"], limits=limit_images((16, 16)))
        assert proof.tf32 == {"matmul": False, "cudnn": False}
        assert torch.backends.cuda.matmul.allow_tf32 is True
    finally:
        set_precision(tf32=False)


def test_tf32_is_recorded_as_it_was(exported: dict[str, Path]) -> None:
    subject, images = model_subject(model()), limit_images((16, 16))
    references = {LIMITS: reference(subject, images)}
    set_precision(tf32=True)
    try:
        proof = prove_against(subject, [exported["fp32"]], references, (1,))
    finally:
        set_precision(tf32=False)
    assert proof.tf32 == {"matmul": True, "cudnn": True}
    assert proof.options == {CPU: {}}


@pytest.mark.parametrize(
    ("options", "used"),
    [
        ({CPU: {}}, False),
        ({CPU: {}, CUDA: {"use_tf32": "0"}}, False),
        ({CUDA: {"use_tf32": "1"}}, True),
        ({CUDA: {}}, True),  # its default
    ],
    ids=str,
)
def test_what_a_provider_states_tells_of_tf32(options: Any, used: bool) -> None:
    assert uses_tf32(options) is used


def test_latency_is_given_for_one_image_and_for_eight(exported: dict[str, Path]) -> None:
    rows = [row for path in exported.values() for row in latency(model_subject(model()), path)]
    found = [(row["precision"], row["provider"], row["batch"]) for row in rows]
    assert found == list(itertools.product(CAPS, [CPU], (1, 8)))
    for row in rows:
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["runs"] >= LEAST
        assert row["threads"] == torch.get_num_threads()
        assert row["warm_up"] > 0


def test_a_batch_that_does_not_run_has_no_latency(
    exported: dict[str, Path], tmp_path: Path
) -> None:
    path = tamper(exported["fp32"], tmp_path / "m.onnx", hard_batch)
    assert latency(model_subject(model()), path) == []
