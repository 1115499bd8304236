"""No code comes along with weights, and `--trust-code` opens what can't do without."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from guard.load import load_model
from tests.conftest import plain, spec_of, write_model, write_sidecar
from tests.load_files import SIDECAR, SPEC, network, refusal


def pickled(path: Path) -> None:
    torch.save(plain(2), path)


def scripted(path: Path) -> None:
    torch.jit.save(torch.jit.trace(plain(2).eval(), torch.zeros(2, 3, 16, 16)), path)


def any_bytes(path: Path) -> None:
    path.write_bytes(b"never looked into")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("write", "suffix"),
    [
        (pickled, ".pt"),
        (pickled, ".pth"),
        (scripted, ".pt"),
        (scripted, ".ts"),
        (any_bytes, ".pt2"),
        (any_bytes, ".torchscript"),
    ],
)
def test_formats_that_run_code_are_refused_with_the_way_out(
    tmp_path: Path, write: Callable[[Path], None], suffix: str
) -> None:
    path = tmp_path / f"model{suffix}"
    write(path)
    write_sidecar(path, SIDECAR)
    line = refusal(path)
    assert "--trust-code" in line
    assert "safetensors" in line


class Touch:
    """Its unpickling creates a file: what a malicious checkpoint would do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_loading_runs_no_code_of_a_pickle(tmp_path: Path, nested: bool, legacy: bool) -> None:
    mark, path = tmp_path / "was-here", tmp_path / "model.pt"
    content = {"state_dict": network().state_dict(), "x": Touch(mark)} if nested else Touch(mark)
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    write_sidecar(path, SIDECAR)
    refusal(path)
    assert not mark.exists()


def test_a_sidecar_can_not_call_the_standard_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Any] = []
    monkeypatch.setattr(os, "system", lambda *words, **more: called.append(words))
    path = write_model(tmp_path, plain(2), SPEC)
    write_sidecar(path, {**SIDECAR, "arch": "os:system"})
    refusal(path)
    assert called == []


def test_loading_weights_imports_no_factory(tmp_path: Path) -> None:
    """A built-in arch needs none of the user's code."""
    before = set(sys.modules)
    load_model(write_model(tmp_path, network(), SPEC))
    assert not {name for name in set(sys.modules) - before if name.startswith(("tests", "tools"))}


def test_trust_code_opens_a_pickled_module(tmp_path: Path) -> None:
    made, path = plain(2).eval(), tmp_path / "model.pt"
    torch.save(made, path)
    write_sidecar(path, SIDECAR)
    model = load_model(path, trust_code=True)
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(model(x), made(x))
    assert model.split.layer == "7"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_trust_code_opens_torchscript(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    scripted(path)
    write_sidecar(path, SIDECAR)
    model = load_model(path, trust_code=True)
    with torch.no_grad():
        assert model(torch.rand(4, 3, 16, 16)).shape == (4, 2)


@pytest.mark.filterwarnings("ignore")
def test_trust_code_opens_a_pt2_program(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    network_ = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)).eval()
    shapes = {"input": {0: torch.export.Dim("n")}}
    program = torch.export.export(network_, (torch.zeros(3, 3, 16, 16),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    write_sidecar(path, SIDECAR)
    model = load_model(path, trust_code=True)
    with torch.no_grad():
        assert model(torch.rand(4, 3, 16, 16)).shape == (4, 2)


def test_trust_code_refuses_a_pickle_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(spec_of(), path)
    write_sidecar(path, SIDECAR)
    assert "ModelSpec" in refusal(path, trust_code=True)
