"""The attacks by name. A new attack is a file, a row here and a row in tests/test_attacks.py."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, get_origin

from guard.errors import UnusableInput
from tools.attacks.badnets import BadNets
from tools.attacks.base import Attack
from tools.attacks.blend import Blend
from tools.attacks.clean_label import CleanLabel
from tools.attacks.input_aware import InputAware
from tools.attacks.multi_wanet import MultiWaNet
from tools.attacks.physical import Physical
from tools.attacks.sig import Sig
from tools.attacks.wanet import WaNet

ATTACKS: dict[str, type[Attack]] = {
    "badnets": BadNets,
    "clean_label": CleanLabel,
    "wanet": WaNet,
    "input_aware": InputAware,
    "blend": Blend,
    "sig": Sig,
    "multi_wanet": MultiWaNet,
    "physical": Physical,
}


def make_attack(name: str, settings: Mapping[str, Any]) -> Attack:
    """An attack from its name and settings (texts of a plan, or values of a truth.json).

    Raises UnusableInput with one line for a setting that the attack does not have.
    """
    if name not in ATTACKS:
        raise UnusableInput(f"attack {name!r} is none of {', '.join(ATTACKS)}")
    kind = ATTACKS[name]
    known = {field.name: field.type for field in fields(kind)}
    for key in settings:
        if key not in known:
            raise UnusableInput(f"attack {name}: no setting {key!r}; known: {', '.join(known)}")
    for field in fields(kind):
        if field.default is MISSING and field.name not in settings:
            raise UnusableInput(f"attack {name}: the setting {field.name} is missing")
    return kind(**{key: _parsed(name, key, settings[key], known[key]) for key in settings})


def _parsed(name: str, key: str, value: Any, kind: Any) -> Any:
    """A setting's value in its field's type."""
    try:
        if get_origin(kind) is tuple:
            parts = value.split(",") if isinstance(value, str) else value
            return tuple(float(part) for part in parts)
        return kind(value)
    except (TypeError, ValueError):
        raise UnusableInput(f"attack {name}: {key}={value!r} is not {_words(kind)}") from None


def _words(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return "numbers with commas between them"
    return {int: "a whole number", float: "a number"}.get(kind, "a text")
