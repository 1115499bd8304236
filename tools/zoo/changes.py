"""Settings changed for one run over a zoo, as an ablation does: `calibrated.probes.kept=0`."""

import ast
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from guard.errors import UnusableInput

T = TypeVar("T")  # a dataclass of settings


def changed(settings: T, text: str) -> T:
    """`settings` with the values of `text`: key=value;key=value, a dot before each inner name.

    Raises UnusableInput for a name that is no setting or a value of another kind.
    """
    for name, value in pairs(text).items():
        settings = _with(settings, name.split("."), value, f"{name}={value}")
    return settings


def pairs(text: str) -> dict[str, str]:
    """key=value;key=value, as in --change and in a plan's column `settings`."""
    parts = [pair.partition("=") for pair in text.split(";") if pair]
    return {name.strip(): value.strip() for name, _, value in parts}


def _with(settings: Any, path: list[str], value: str, pair: str) -> Any:
    known = [f.name for f in fields(settings)] if is_dataclass(settings) else []
    if path[0] not in known:
        expected = ", ".join(known) or "no name behind it"
        raise UnusableInput(f"--change={pair}: {path[0]!r} is no setting (expected {expected})")
    inner = getattr(settings, path[0])
    new = _with(inner, path[1:], value, pair) if path[1:] else _read(value, inner, pair)
    return replace(settings, **{path[0]: new})


def _read(text: str, former: Any, pair: str) -> Any:
    """The value of `text`, of the kind of the value that it takes the place of."""
    if isinstance(former, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = None
    kinds: tuple[type, ...] = (type(former),)
    if former is None or isinstance(former, float):
        kinds = (int, float)
    if type(value) not in kinds:
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise UnusableInput(f"--change={pair}: {text!r} is no value of this setting ({wanted})")
    return float(value) if isinstance(former, float) else value
