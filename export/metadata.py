"""What an ONNX file of this tool says of itself: JSON under the one metadata key `drmguard`."""

import json
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import onnx
from torch import nn

from guard.dynamic import ImageTrigger
from guard.errors import UnusableInput
from guard.paper import MomentumTrigger
from guard.spec import ModelSpec

KEY = "drmguard"
PIXELS = {"layout": "NHWC", "type": "uint8", "color": "rgb"}  # what an embedded file takes


def model_metadata(spec: ModelSpec, *, embedded: bool, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The sidecar of the contract without `arch`, and `facts`: hashes, verdict, score.

    Where the preprocessing is in the graph, `input` says so: the file takes uint8 RGB pictures
    [N x H x W x 3], and color, range, mean and std are what happens inside.
    """
    sidecar = spec.to_json()
    image = {**sidecar["input"], "embedded": embedded, **({"takes": PIXELS} if embedded else {})}
    stated = {key: sidecar[key] for key in ("task", "outputs", "units")}
    return {"kind": "model", **stated, "input": image, **_tool(), **facts}


def trigger_metadata(trigger: nn.Module, size: tuple[int, int], facts: Mapping[str, Any]) -> Any:
    """What a trigger's file computes: RGB pictures [N x 3 x H x W] in [0, 1] -> the same."""
    computes = "x' = w(x) + p"
    if isinstance(trigger, ImageTrigger):
        computes = "x' = x + (p(x) - x) m(x)"
    elif isinstance(trigger, MomentumTrigger):
        computes = "G(x)"
        if trigger.settings.momentum:
            computes += " of x' = G(x) (1 - T(x)) + x T(x); T needs gradients of the model"
    image = {"size": list(size), "color": "rgb", "range": [0, 1]}
    return {"kind": "trigger", "computes": computes, "input": image, **_tool(), **facts}


def taken_color(image: Mapping[str, Any], where: str) -> str:
    """The order of colours that a file which preprocesses by itself takes, by its `input`.

    `takes` says so in files of this tool, where `color` is what happens inside; a supplier's
    file without it takes what `color` says. `where` names the file in the error line.
    """
    takes = image.get("takes")
    color = takes.get("color") if isinstance(takes, dict) else image.get("color", "rgb")
    if color not in ("rgb", "bgr"):
        raise UnusableInput(f"{where}: takes color {str(color)[:40]!r}, neither rgb nor bgr")
    return str(color)


def _tool() -> dict[str, Any]:
    try:
        return {"tool_version": metadata.version("drmguard")}
    except metadata.PackageNotFoundError:  # run from a folder; the report says so too
        return {"tool_version": "not installed"}


def read_metadata(proto: onnx.ModelProto) -> dict[str, Any]:
    """What a file states under `drmguard`; nothing where it states nothing readable."""
    texts = {entry.key: entry.value for entry in proto.metadata_props}
    try:
        stated = json.loads(texts.get(KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    return stated if isinstance(stated, dict) else {}
