"""Recovered triggers as one file: safetensors with their kinds and settings in a JSON beside it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
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

FINEST = 512  # points a side of a warp or pattern: what a file asks for must fit into memory


def save_triggers(triggers: Sequence[nn.Module], path: Path, model: str | None = None) -> None:
    """Write the triggers' weights and, in the JSON beside them, what they belong to.

    `model` is the SHA-256 of the model that they were found on.
    """
    save_weights(nn.ModuleList(triggers).state_dict(), path)
    about = [_description(one) for one in triggers]
    write_json(path.with_suffix(".json"), {"model_sha256": model, "triggers": about})


def _description(trigger: nn.Module) -> dict[str, Any]:
    if isinstance(trigger, SharedTrigger):
        one = trigger.one
        grids = {"grid": one.nodes.shape[-1], "coarse": one.pattern.shape[-1]}
        return {"kind": "shared", "size": list(one.size), **grids}
    if isinstance(trigger, MomentumTrigger):
        return {"kind": "generator", "settings": asdict(trigger.settings)}
    return {"kind": "image" if isinstance(trigger, ImageTrigger) else "none"}


def load_triggers(path: Path, model: Model) -> list[nn.Module]:
    """The triggers x -> x' of a file, on the model's device, the one that decided first.

    `model` gives equation 7 its attention maps. Raises UnusableInput with one line.
    """
    try:
        about = json.loads(path.with_suffix(".json").read_text())
        if "kind" in about:
            raise UnusableInput(f"{path}: written by an earlier version; screen the model again")
        triggers = nn.ModuleList(_empty(one, model, path) for one in about["triggers"])
        triggers.load_state_dict(load_file(path))
        _try(triggers.to(model.preprocess.scale.device).eval(), model)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        line = one_line(error)
        raise UnusableInput(f"{path}: not a trigger that this tool wrote ({line})") from None
    return list(triggers)


def _empty(about: dict[str, Any], model: Model, path: Path) -> nn.Module:
    if about["kind"] == "shared":
        height, width = model.spec.input.size
        if about["size"] != [height, width]:
            raise UnusableInput(f"{path}: is for images of another size than {height} x {width}")
        grids = about["grid"], about["coarse"]
        if not all(0 < points <= FINEST for points in grids):
            raise ValueError(f"grids of {grids[0]} and {grids[1]} points a side")
        return SharedTriggers(1, (height, width), 0, *grids).select(0)
    if about["kind"] == "generator":
        return MomentumTrigger(Generator(), model, PaperSettings(**about["settings"]))
    return {"image": ImageTrigger, "none": nn.Identity}[about["kind"]]()


@torch.no_grad()
def _try(triggers: nn.ModuleList, model: Model) -> None:
    """Raise one of the errors that `load_triggers` expects where they do not work."""
    if not triggers:
        raise ValueError("it is empty")
    grey = torch.full((1, 3, *model.spec.input.size), 0.5, device=model.preprocess.scale.device)
    values = [*triggers.state_dict().values(), *(one(grey) for one in triggers)]
    if not all(bool(value.isfinite().all()) for value in values):
        raise ValueError("some of its values are NaN or infinite")
