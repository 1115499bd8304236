"""Recovered triggers as one file: safetensors with their kinds and settings in a JSON beside it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from guard.dynamic import ImageTrigger
from guard.errors import UnusableInput, one_line
from guard.files import write_json
from guard.generator import Generator
from guard.model import Model
from guard.paper import MomentumTrigger
from guard.settings import PaperSettings
from guard.store import save_weights
from guard.triggers import SharedTrigger, SharedTriggers


def save_triggers(triggers: Sequence[nn.Module], path: Path) -> None:
    """Write the triggers' weights and, in the JSON beside them, what they belong to."""
    save_weights(nn.ModuleList(triggers).state_dict(), path)
    write_json(path.with_suffix(".json"), {"triggers": [_description(one) for one in triggers]})


def _description(trigger: nn.Module) -> dict[str, Any]:
    if isinstance(trigger, SharedTrigger):
        one = trigger.one
        grids = {"grid": one.nodes.shape[-1], "coarse": one.pattern.shape[-1]}
        return {"kind": "shared", "size": list(one.size), **grids}
    if isinstance(trigger, MomentumTrigger):
        return {"kind": "generator", "settings": asdict(trigger.settings)}
    return {"kind": "image" if isinstance(trigger, ImageTrigger) else "none"}


def load_triggers(path: Path, model: Model) -> list[nn.Module]:
    """The triggers x -> x' of a file, on the CPU, the one that decided first.

    `model` gives equation 7 its attention maps. Raises UnusableInput with one line.
    """
    try:
        about = json.loads(path.with_suffix(".json").read_text())["triggers"]
        triggers = nn.ModuleList(_empty(one, model, path) for one in about)
        triggers.load_state_dict(load_file(path))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        line = one_line(error)
        raise UnusableInput(f"{path}: not a trigger that this tool wrote ({line})") from None
    return list(triggers.eval())


def _empty(about: dict[str, Any], model: Model, path: Path) -> nn.Module:
    if about["kind"] == "shared":
        height, width = model.spec.input.size
        if about["size"] != [height, width]:
            raise UnusableInput(f"{path}: is for images of another size than {height} x {width}")
        return SharedTriggers(1, (height, width), 0, about["grid"], about["coarse"]).select(0)
    if about["kind"] == "generator":
        return MomentumTrigger(Generator(), model, PaperSettings(**about["settings"]))
    return ImageTrigger() if about["kind"] == "image" else nn.Identity()
