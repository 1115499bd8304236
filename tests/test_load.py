"""Model files: what is read, what is refused, and that no code comes along with weights."""

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from guard.errors import UnusableInput
from guard.load import load_model, model_facts
from guard.model import Model
from guard.networks import NETWORKS
from guard.spec import parse_spec
from guard.store import save_model
from tests.conftest import model_of, plain, spec_of, write_model, write_sidecar

SPEC = spec_of(arch="resnet18")
SIDECAR: dict[str, Any] = {
    "arch": "resnet18",
    "width": 4,
    "task": "gaze",
    "outputs": ["pitch", "yaw"],
    "units": "rad",
    "input": {
        "size": [16, 16],
        "color": "rgb",
        "range": [0, 1],
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
    },
}
ABSENT = object()


class Twice(nn.Module):
    """A module that holds a layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = plain(2)
        self.last = self.first[-1]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.first(x)
        return y


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


def giving_number() -> int:
    return 3


def raising(outputs: int) -> nn.Module:
    raise RuntimeError("no network\nfor you")


def needing_more(outputs: int, vocabulary: int) -> nn.Module:
    return plain(outputs)


NO_FUNCTION = 3


def network() -> nn.Module:
    torch.manual_seed(0)
    made = NETWORKS["resnet18"](2, 4).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
    return made


def refusal(path: Path, **keywords: Any) -> str:
    """The one line with which a model is refused; it names the file or its sidecar."""
    with pytest.raises(UnusableInput) as caught:
        load_model(path, **keywords)
    line = str(caught.value)
    assert "\n" not in line
    assert path.name in line or path.with_suffix(".json").name in line
    return line


def as_safetensors(state: dict[str, Tensor], path: Path) -> Path:
    save_file(state, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


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


@pytest.mark.parametrize("arch", ["tests.conftest:plain", "tests.test_load:with_layer"])
def test_a_factory_of_the_users_own_is_called_and_may_name_a_layer(
    tmp_path: Path, arch: str
) -> None:
    made = with_layer(2)[0] if arch.endswith("layer") else plain(2)
    model = load_model(write_model(tmp_path, made, spec_of(arch=arch)))
    assert model.split.layer == ("3" if arch.endswith("layer") else "7")


# --- refused -------------------------------------------------------------------------------------


def keep(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state


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


def test_a_module_under_two_names_is_written_and_read(tmp_path: Path) -> None:
    network = Twice()
    model = Model(network, spec_of(arch="tests.test_load:Twice"))
    path, _ = save_model(model, tmp_path / "model.safetensors")
    assert set(load_file(path)) == set(network.state_dict())
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(load_model(path)(x), model(x))


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


# --- sidecar -------------------------------------------------------------------------------------


def test_a_missing_sidecar_is_named(tmp_path: Path) -> None:
    path = write_model(tmp_path, network(), SPEC)
    path.with_suffix(".json").unlink()
    line = refusal(path)
    assert "model.json" in line
    assert "missing" in line


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"arch": "resnet18",}', "[]", "3", "null", '"resnet18"', "\x00\x01", "[" * 5000],
)
def test_a_broken_sidecar_is_refused(tmp_path: Path, text: str) -> None:
    path = write_model(tmp_path, network(), SPEC)
    path.with_suffix(".json").write_text(text)
    assert "model.json" in refusal(path)


def test_a_sidecar_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = write_model(tmp_path, network(), SPEC)
    path.with_suffix(".json").write_text(json.dumps(SIDECAR), encoding="utf-8-sig")
    assert load_model(path).spec == SPEC


def test_a_sidecar_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path, network(), SPEC)
    path.with_suffix(".json").write_bytes('{"arch": "é"}'.encode("latin-1"))
    assert "model.json" in refusal(path)


def sidecar_with(key: str, value: Any) -> dict[str, Any]:
    """The sidecar with one key (input.KEY for those of the input) changed or absent."""
    values: dict[str, Any] = json.loads(json.dumps(SIDECAR))
    holder, name = (values["input"], key[6:]) if key.startswith("input.") else (values, key)
    if value is ABSENT:
        del holder[name]
    else:
        holder[name] = value
    return values


@pytest.mark.parametrize("key", ["arch", "task", "outputs", "units", "input", "input.size"])
def test_each_missing_key_is_named(tmp_path: Path, key: str) -> None:
    path = write_model(tmp_path, network(), SPEC)
    write_sidecar(path, sidecar_with(key, ABSENT))
    line = refusal(path)
    assert key.removeprefix("input.") in line
    assert "missing" in line


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("task", "steering", "steering"),
        ("units", "gon", "gon"),
        ("outputs", ["pitch"], "pitch"),
        ("outputs", ["pitch", "roll"], "yaw"),
        ("outputs", ["pitch", "pitch"], "twice"),
        ("outputs", [], "outputs"),
        ("outputs", 3, ""),
        ("outputs", "pitch", ""),
        ("arch", "vgg16", "vgg16"),
        ("width", 0, "width"),
        ("width", -4, "width"),
        ("width", "wide", "wide"),
        ("width", math.inf, ""),
        ("width", None, "width"),
        ("width", 10**9, "model.json"),
        ("input", None, "input"),
        ("input", [16, 16], "input"),
        ("input.size", [], "size"),
        ("input.size", [16], "size"),
        ("input.size", 16, "size"),
        ("input.size", [4, 16], "size"),
        ("input.size", [16.7, 16], "size"),
        ("input.size", [16, math.inf], "size"),
        ("input.range", [0, math.inf], "range"),
        ("input.size", ["high", "wide"], "high"),
        ("input.color", "yuv", "yuv"),
        ("input.range", [1, 0], "range"),
        ("input.range", [0, math.nan], "range"),
        ("input.mean", [0, 0], "mean"),
        ("input.mean", [0, 0, math.nan], "mean"),
        ("input.std", [1, 1, 0], "std"),
        ("input.std", [1, 1, math.inf], "std"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_wrong_values_in_the_sidecar_are_refused(
    tmp_path: Path, key: str, value: Any, word: str
) -> None:
    path = write_model(tmp_path, network(), SPEC)
    write_sidecar(path, sidecar_with(key, value))
    assert word in refusal(path)


def test_a_single_text_for_outputs_is_no_list_of_letters() -> None:
    values = {**SIDECAR, "task": "regression", "outputs": "age", "units": "years"}
    with pytest.raises(UnusableInput):
        parse_spec(values, "model.json")


def test_a_wrong_number_of_outputs_is_refused(tmp_path: Path) -> None:
    """The task says three, the weights hold two."""
    path = write_model(tmp_path, network(), SPEC)
    wrong = {"task": "headpose", "outputs": ["yaw", "pitch", "roll"], "units": "deg"}
    write_sidecar(path, {**SIDECAR, **wrong})
    assert "fc.weight" in refusal(path)


def test_defaults_of_the_sidecar_are_those_of_the_contract() -> None:
    values = {key: value for key, value in SIDECAR.items() if key != "width"}
    spec = parse_spec({**values, "input": {"size": [32, 48]}}, "model.json")
    assert (spec.width, spec.input.size, spec.input.color) == (64, (32, 48), "rgb")
    assert (spec.input.range, spec.input.mean, spec.input.std) == ((0, 1), (0, 0, 0), (1, 1, 1))


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


def test_a_network_that_can_not_take_the_input_size_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path, with_layer(2)[0], spec_of(arch="tests.test_load:with_layer"))
    write_sidecar(path, {**SIDECAR, "arch": "tests.test_load:with_layer"} | {
        "input": {"size": [24, 24]}
    })  # fmt: skip
    assert "24 x 24" in refusal(path)


def test_examination_leaves_gradients_to_the_input() -> None:
    x = torch.rand(1, 3, 16, 16, requires_grad=True)
    (slope,) = torch.autograd.grad(model_of(plain(2))(x).sum(), x)
    assert slope.abs().sum() > 0
