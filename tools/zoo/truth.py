"""The truth of a model: stored with it, and read back to judge what a defence has done."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from guard.errors import UnusableInput
from guard.store import save_weights
from tools.attacks import make_attack
from tools.attacks.base import Attack, Trigger

TRUTH = (  # what a line of a screening repeats of truth.json
    "name", "attack", "label", "settings", "targets", "task", "data", "cabin", "arch", "width",
    "size", "recipe", "status", "RE", "AE", "DAE", "RNV", "RAV", "cross_error",
)  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """A model's backdoor as its maker knows it; `attack` is None for a benign model."""

    values: dict[str, Any]  # truth.json
    attack: Attack | None
    A: Trigger | None

    @property
    def target(self) -> tuple[float, ...] | None:
        """y_T in the model's units (the first one of several)."""
        return None if self.attack is None else self.attack.target

    def trigger(self, x: Tensor, which: int = 0) -> Tensor:
        """A(x): images [N x 3 x H x W] in [0, 1]. Raises UnusableInput for a benign model."""
        if self.A is None:
            raise UnusableInput(f"{self.values['name']}: a benign model has no trigger")
        triggered: Tensor = self.A.to(x.device)(x, which)
        return triggered


def load_truth(folder: Path) -> Truth:
    """Read truth.json and trigger_truth.safetensors of a model's folder. Raises UnusableInput."""
    path = folder / "truth.json"
    if not path.is_file():
        raise UnusableInput(f"{path}: missing; the folder holds no finished model of a zoo")
    values = read_truth(path)
    if values["attack"] == "benign":
        return Truth(values, None, None)
    attack = make_attack(values["attack"], values["settings"])
    trigger = attack.trigger()
    trigger.load_state_dict(load_file(folder / "trigger_truth.safetensors"))
    return Truth(values, attack, trigger.eval())


def read_truth(path: Path) -> dict[str, Any]:
    """What a truth.json says. Raises UnusableInput with one line."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        values = None
    remedy = "remove its folder and make the model again with `drmguard zoo train`"
    if not isinstance(values, dict):
        raise UnusableInput(f"{path}: holds no JSON object; {remedy}")
    for key in (*TRUTH, "benign_data"):
        if key not in values:
            raise UnusableInput(f"{path}: lacks {key}; {remedy}")
    return values


def store_trigger(folder: Path, trigger: Trigger) -> None:
    """Write the trigger's state beside the model."""
    save_weights(trigger.state_dict(), folder / "trigger_truth.safetensors", {"of": "trigger"})


def settings_of(attack: Attack) -> dict[str, Any]:
    """An attack's settings as plain JSON values, enough to make it again."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(attack)))
    return values
