"""Model files that are refused, each in one line that names the file."""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from guard.errors import UnusableInput
from guard.load import load_model
from tests.conftest import write_model, write_sidecar
from tests.load_files import SIDECAR, SPEC, network, refusal


def reshaped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "fc.weight": state["fc.weight"][:, :-1].clone()}


def lacking(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if not k.startswith("layer3")}


def with_more(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "decoder.weight": torch.ones(2)}


def with_nan(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "fc.bias": torch.tensor([0.0, math.nan])}


def with_infinity(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "bn1.running_var": torch.full((4,), math.inf)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (reshaped, "fc.weight"),
        (lacking, "layer3"),
        (with_more, "decoder.weight"),
        (with_nan, "NaN"),
        (with_infinity, "infinite"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, change: Callable[..., dict[str, Tensor]], words: str, suffix: str
) -> None:
    path = tmp_path / f"model{suffix}"
    state = change(network().state_dict())
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    write_sidecar(path, SIDECAR)
    assert words in refusal(path)


@pytest.mark.parametrize(
    "content",
    [3, [torch.ones(2)], {"state_dict": {"weight": "text"}}, {"epoch": 3, "lr": 0.1}],
    ids=["a number", "a list", "texts", "no tensors"],
)
def test_files_without_a_state_dict_are_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "model.pt"
    torch.save(content, path)
    write_sidecar(path, SIDECAR)
    assert "state dict" in refusal(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("content", [b"", b"junk bytes, no model at all\n" * 9, b"PK\x03\x04junk"])
@pytest.mark.parametrize("trust", [False, True])
def test_junk_is_refused(tmp_path: Path, content: bytes, suffix: str, trust: bool) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    write_sidecar(path, SIDECAR)
    line = refusal(path, trust_code=trust)
    assert "not a readable" in line
    assert "--trust-code" not in line


@pytest.mark.parametrize("content", [b"\xff" * 8, b"x" * 1000, b"PK\x05\x06" + b"\xff" * 18])
def test_no_one_is_asked_to_trust_what_can_not_be_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    write_sidecar(path, SIDECAR)
    assert "not a readable" in refusal(path)


@pytest.mark.parametrize("change", [torch.Tensor.to_sparse, lambda w: w.to(torch.float8_e4m3fn)])
def test_weights_that_nothing_computes_with_are_refused_or_read(
    tmp_path: Path, change: Callable[[Tensor], Tensor]
) -> None:
    path, state = tmp_path / "model.pt", network().state_dict()
    torch.save({**state, "fc.weight": change(state["fc.weight"])}, path)
    write_sidecar(path, SIDECAR)
    with contextlib.suppress(UnusableInput):  # one line, or a model
        assert load_model(path).spec.arch == "resnet18"


def test_a_cut_off_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path, network(), SPEC)
    path.write_bytes(path.read_bytes()[:-100])
    assert "not a readable" in refusal(path)


def test_a_cut_off_state_dict_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-500])
    write_sidecar(path, SIDECAR)
    refusal(path)


@pytest.mark.parametrize("name", ["model.h5", "model", "model.pkl", "model.bin"])
def test_unknown_formats_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"anything")
    write_sidecar(path, SIDECAR)
    assert "safetensors" in refusal(path)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    assert "no such" in refusal(tmp_path / "model.safetensors")
    (tmp_path / "folder.pt").mkdir()
    refusal(tmp_path / "folder.pt")
