"""One node of an ONNX graph while it is read: what nobody reads of it is refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from guard.errors import UnusableInput


@dataclass(frozen=True)
class Node:
    """A node's operator and attributes, and what is known of the values that it takes."""

    where: str  # "FILE: node NAME (Conv)", for messages
    op: str
    opset: int
    inputs: tuple[str, ...]  # "" stands for an optional input that is left out
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    constants: Mapping[str, Tensor]  # the values that do not depend on the image, by name
    batch: int | None = None  # where the file fixes its batch
    read: set[str] = field(default_factory=set)  # the attributes that were read

    def take(self, name: str, default: Any = None) -> Any:
        """The attribute, which counts as read from now on."""
        self.read.add(name)
        return self.attributes.get(name, default)

    def only(self, name: str, *known: Any) -> Any:
        """The attribute, which must be one of `known`; the first one is the default."""
        value = self.take(name, known[0])
        if value not in known:
            raise self.refusal(f"{name}={shown(str(value))}")
        return value

    def constant(self, position: int) -> Tensor | None:
        """The input at this position where it is there and does not depend on the image."""
        return self.constants.get(self.inputs[position]) if self.has(position) else None

    def has(self, position: int) -> bool:
        """Whether there is an input at this position."""
        return position < len(self.inputs) and self.inputs[position] != ""

    def refusal(self, what: str) -> UnusableInput:
        """The line that says what of this node is not known here."""
        return UnusableInput(f"{self.where}: {what} is not supported; ask for a file without it")


def shown(text: str) -> str:
    """A text that came with a file, fit for one line of a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:160]
