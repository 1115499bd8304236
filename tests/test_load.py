"""Model files: what is read, and the users' factories that build their networks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from guard.load import load_model, model_facts
from guard.model import Model
from guard.store import save_model
from tests.conftest import model_of, plain, spec_of, write_model, write_sidecar
from tests.load_files import SIDECAR, SPEC, as_safetensors, network, refusal


class Twice(nn.Module):
    """A module that holds a layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = plain(2)
        self.last = self.first[-1]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.first(x)
        return y


def saved(
    wrap: Callable[[dict[str, Tensor]], Any], suffix: str = ".pt"
) -> Callable[[dict[str, Tensor], Path], Path]:
    def save(state: dict[str, Tensor], path: Path) -> Path:
        torch.save(wrap(state), path.with_suffix(suffix))
        return path.with_suffix(suffix)

    return save


FORMATS = {
    "safetensors": as_safetensors,
    "state dict": saved(lambda s: s),
    "pth": saved(lambda s: s, ".pth"),
    "nested state_dict": saved(lambda s: {"state_dict": s, "epoch": 7, "note": "best"}),
    "nested model": saved(lambda s: {"model": s, "optimizer": {"lr": 0.1}}),
    "DataParallel": saved(lambda s: {f"module.{k}": v for k, v in s.items()}),
    "nested DataParallel": saved(lambda s: {"state_dict": {f"module.{k}": s[k] for k in s}}),
    "no step counters": saved(lambda s: {k: s[k] for k in s if "num_batches" not in k}),
}


@pytest.mark.parametrize("save", FORMATS.values(), ids=FORMATS)
def test_weights_are_read_whole(tmp_path: Path, save: Callable[..., Path]) -> None:
    made = network()
    path = save(made.state_dict(), tmp_path / "driver.v2")
    write_sidecar(path, SIDECAR)
    model = load_model(path)
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(model(x), made(x))
    assert model.split.layer == "fc"
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_computed_in_float32(
    tmp_path: Path, kind: torch.dtype
) -> None:
    made = network()
    state = {k: v.to(kind) if v.is_floating_point() else v for k, v in made.state_dict().items()}
    path = as_safetensors(state, tmp_path / "model")
    write_sidecar(path, SIDECAR)
    model = load_model(path)
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        y = model(x)
        assert y.dtype == torch.float32
        assert torch.allclose(y, made(x), atol=0.05)


def test_facts_name_format_hash_split_and_size(tmp_path: Path) -> None:
    path = write_model(tmp_path, network(), SPEC)
    facts = model_facts(load_model(path), path)
    assert facts["format"] == "safetensors"
    assert len(facts["sha256"]) == 64
    assert facts["split"] == {"layer": "fc", "features": 32, "reason": ""}
    assert facts["parameters"] == sum(p.numel() for p in network().parameters())


def test_a_module_under_two_names_is_written_and_read(tmp_path: Path) -> None:
    network = Twice()
    model = Model(network, spec_of(arch="tests.test_load:Twice"))
    path, _ = save_model(model, tmp_path / "model.safetensors")
    assert set(load_file(path)) == set(network.state_dict())
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(load_model(path)(x), model(x))


def test_examination_leaves_gradients_to_the_input() -> None:
    x = torch.rand(1, 3, 16, 16, requires_grad=True)
    (slope,) = torch.autograd.grad(model_of(plain(2))(x).sum(), x)
    assert slope.abs().sum() > 0


# --- factories -----------------------------------------------------------------------------------


class Tuple(nn.Module):
    """Answers a tuple, as detectors do; no dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv(x).mean(dim=(2, 3)), x


def with_layer(outputs: int) -> tuple[nn.Module, str]:
    """A factory that names the layer where H begins."""
    head = [nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, outputs)]
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(12, 16), *head), "3"


def giving_tuple() -> nn.Module:
    return Tuple()


def giving_vector() -> nn.Module:
    """One number an image, [N] instead of [N x 1]."""
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 1), nn.Flatten(0))


def giving_three() -> nn.Module:
    return plain(3)


def giving_number() -> int:
    return 3


def raising(outputs: int) -> nn.Module:
    raise RuntimeError("no network\nfor you")


def needing_more(outputs: int, vocabulary: int) -> nn.Module:
    return plain(outputs)


NO_FUNCTION = 3


@pytest.mark.parametrize("arch", ["tests.conftest:plain", "tests.test_load:with_layer"])
def test_a_factory_of_the_users_own_is_called_and_may_name_a_layer(
    tmp_path: Path, arch: str
) -> None:
    made = with_layer(2)[0] if arch.endswith("layer") else plain(2)
    model = load_model(write_model(tmp_path, made, spec_of(arch=arch)))
    assert model.split.layer == ("3" if arch.endswith("layer") else "7")


@pytest.mark.parametrize(
    "arch",
    [
        "no.such.module:build",
        "tests.test_load:no_such_function",
        "tests.test_load:NO_FUNCTION",
        "tests.test_load:giving_number",
        "tests.test_load:giving_tuple",
        "tests.test_load:raising",
        "tests.test_load:needing_more",
        "tests.test_load:",
        ":build",
        ".relative:build",
        "tests.broken_factory:build",
        "subprocess:run",
        "builtins:exit",
        "os.path:join",
    ],
)
def test_factories_that_do_not_work_are_refused(
    tmp_path: Path, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "tests_broken"
    broken.mkdir()
    (broken / "broken_factory.py").write_text("def build(:\n")
    monkeypatch.syspath_prepend(broken)
    path = write_model(tmp_path, network(), SPEC)
    write_sidecar(path, {**SIDECAR, "arch": arch.replace("tests.broken", "broken")})
    refusal(path)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (giving_tuple, "gives a tuple, not one tensor [N x outputs]"),
        (giving_vector, "gives a tensor [2] for two images, not [N x outputs]"),
        (giving_three, "gives 3 values an image, its JSON names 2 outputs"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_answers_of_another_form_are_refused_with_their_form(
    factory: Callable[[], nn.Module], said: str, tmp_path: Path
) -> None:
    spec = spec_of(arch=f"tests.test_load:{factory.__name__}")
    assert said in refusal(write_model(tmp_path, factory(), spec))


def test_a_network_that_can_not_take_the_input_size_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path, with_layer(2)[0], spec_of(arch="tests.test_load:with_layer"))
    write_sidecar(path, {**SIDECAR, "arch": "tests.test_load:with_layer"} | {
        "input": {"size": [24, 24]}
    })  # fmt: skip
    assert "24 x 24" in refusal(path)
