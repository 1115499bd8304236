"""What a model's sidecar JSON says: architecture, task, outputs, units and preprocessing."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from guard.errors import UnusableInput

ONNX = "onnx"  # the arch of a model that is an ONNX graph
TASKS: dict[str, int | None] = {"gaze": 2, "headpose": 3, "regression": None}  # number of outputs d
OUTPUT_NAMES: dict[str, tuple[str, ...]] = {
    "gaze": ("pitch", "yaw"),
    "headpose": ("yaw", "pitch", "roll"),
}
LEAST_STD = 2.0**-126  # the least normal float32: what is under it may be 0 to a network
ANGLE_UNITS: dict[str, float] = {"rad": 180.0 / math.pi, "deg": 1.0}  # degrees in one unit


@dataclass(frozen=True)
class InputSpec:
    """How an image becomes the network's input.

    An RGB image in [0, 1] is put in `color` order, scaled to `range`, then (x - mean) / std.
    """

    size: tuple[int, int]  # height, width in pixels
    color: str = "rgb"  # "rgb" or "bgr"
    range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)  # in the order of `color`
    std: tuple[float, ...] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class ModelSpec:
    """The sidecar JSON of the contract, checked."""

    arch: str  # a built-in name or "package.module:function"
    task: str  # "gaze", "headpose" or "regression"
    outputs: tuple[str, ...]
    units: str  # "rad" or "deg" for angles, any word for "regression"
    input: InputSpec
    width: int = 64  # channels of the first stage

    @property
    def error_unit(self) -> str:
        """The unit in which errors of this task are given."""
        return "deg" if self.task in OUTPUT_NAMES else self.units

    def to_json(self) -> dict[str, Any]:
        """The sidecar as a dictionary of plain JSON values."""
        parsed: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return parsed


def read_spec(path: Path) -> ModelSpec:
    """Read and check a sidecar file. Raises UnusableInput with one line."""
    return parse_spec(read_json(path), str(path))


def read_json(path: Path) -> dict[str, Any]:
    """What a sidecar file holds. Raises UnusableInput with one line."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UnusableInput(
            f"{path}: the sidecar JSON is missing; it states arch, task, outputs, units and input"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UnusableInput(f"{path}: not a readable JSON file ({error})") from None
    if not isinstance(values, dict):
        raise UnusableInput(f"{path}: holds no JSON object")
    return values


def parse_spec(values: Any, where: str) -> ModelSpec:
    """A ModelSpec from parsed JSON; `where` names the file in the error line."""
    if not isinstance(values, Mapping):
        raise UnusableInput(f"{where}: holds no JSON object")
    try:
        spec = ModelSpec(
            arch=_text("arch", values["arch"]),
            task=_text("task", values["task"]),
            outputs=_names(values["outputs"]),
            units=_text("units", values["units"]),
            input=_parse_input(values["input"]),
            width=_whole(values.get("width", 64)),
        )
        _check(spec)
    except KeyError as error:
        raise UnusableInput(f"{where}: the key {error} is missing") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UnusableInput(f"{where}: {error}") from None
    return spec


def _names(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError("outputs must be a list of names")
    return tuple(_text("outputs", name) for name in values)


def _text(key: str, value: Any) -> str:
    text = str(value)
    if any("\ud800" <= letter <= "\udfff" for letter in text):  # JSON may escape one of a pair
        raise ValueError(f"{key} holds half a character, which no file can store")
    return text


def _numbers(values: Mapping[str, Any], key: str, default: list[float]) -> tuple[float, ...]:
    """As many finite numbers as `default` has."""
    given = values.get(key, default)
    with suppress(TypeError, ValueError, OverflowError):
        numbers = tuple(float(value) for value in given)
        right = isinstance(given, list) and len(given) == len(default)
        if right and all(map(math.isfinite, numbers)):
            return numbers
    raise TypeError(f"input {key} is not {'two' if len(default) == 2 else 'three'} finite numbers")


def _whole(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(f"width {str(value)[:40]!r} is not a whole number")
    return value


def _parse_input(values: Mapping[str, Any]) -> InputSpec:
    if not isinstance(values, Mapping):
        raise TypeError("input must be an object with size, color, range, mean and std")
    size = values["size"]
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(v, int) for v in size):
        raise TypeError(f"input size {str(size)[:40]} is not two whole numbers, height and width")
    height, width = size
    low, high = _numbers(values, "range", [0, 1])
    return InputSpec(
        size=(height, width),
        color=str(values.get("color", "rgb")),
        range=(low, high),
        mean=_numbers(values, "mean", [0, 0, 0]),
        std=_numbers(values, "std", [1, 1, 1]),
    )


def _check(spec: ModelSpec) -> None:
    image = spec.input
    known = ", ".join(TASKS)
    rules = [
        (spec.task in TASKS, f'task "{spec.task}" is not one of {known}'),
        (len(spec.outputs) > 0, "outputs is empty"),
        (len(set(spec.outputs)) == len(spec.outputs), "outputs names one output twice"),
        (spec.width > 0, f"width {spec.width} is not positive"),
        (min(image.size) >= 8, f"input size {list(image.size)} is under 8 pixels"),
        (image.color in ("rgb", "bgr"), f'color "{image.color}" is neither rgb nor bgr'),
        (image.range[1] > image.range[0], f"input range {list(image.range)} is empty"),
        (min(image.std) >= LEAST_STD, "input std must be positive in float32"),
    ]
    names = OUTPUT_NAMES.get(spec.task)
    if names is not None:
        wanted = ", ".join(names)
        rules.append(
            (sorted(spec.outputs) == sorted(names), f"task {spec.task} has the outputs {wanted}")
        )
        rules.append((spec.units in ANGLE_UNITS, f'units "{spec.units}" is neither rad nor deg'))
    for holds, complaint in rules:
        if not holds:
            raise ValueError(complaint)
