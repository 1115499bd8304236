"""The sidecar of a model file: its defaults, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from guard.errors import UnusableInput
from guard.load import load_model
from guard.spec import parse_spec
from tests.conftest import write_model, write_sidecar
from tests.load_files import SIDECAR, SPEC, network, refusal

ABSENT = object()


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
        ("input.range", [0, math.nan], "input range is not two finite numbers"),
        ("input.mean", [0, 0], "mean"),
        ("input.mean", [0, 0, math.nan], "input mean is not three finite numbers"),
        ("input.std", [1, 1, 0], "std"),
        ("input.std", [1, 1, math.inf], "input std is not three finite numbers"),
        ("input.std", [1e-60, 1, 1], "std must be positive"),
        ("input.std", None, "input std is not three finite numbers"),
        ("input.mean", 0.5, "input mean is not three finite numbers"),
        ("input.mean", [0, "half", 0], "input mean is not three finite numbers"),
        ("input.mean", [0, 10**400, 0], "input mean is not three finite numbers"),
        ("input.range", 255, "input range is not two finite numbers"),
        ("input.range", [0, 1, 2], "input range is not two finite numbers"),
        ("arch", "\ud800", "arch holds half a character"),
        ("task", "\ud800", "task holds half a character"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_wrong_values_in_the_sidecar_are_refused(
    tmp_path: Path, key: str, value: Any, word: str
) -> None:
    path = write_model(tmp_path, network(), SPEC)
    write_sidecar(path, sidecar_with(key, value))
    assert word in refusal(path)


@pytest.mark.parametrize("change", [{"units": "\udfff"}, {"outputs": ["age\ud800"]}], ids=str)
def test_texts_that_no_file_can_store_are_refused(change: dict[str, Any]) -> None:
    """The report would name them."""
    values = {**SIDECAR, "task": "regression", "outputs": ["age"], "units": "years", **change}
    with pytest.raises(UnusableInput, match=f"{next(iter(change))} holds half a character"):
        parse_spec(values, "model.json")


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
