"""JSON lines: one flushed line per finished model, so that a killed run keeps its rows."""

import json
import os
from pathlib import Path
from typing import Any

from guard.errors import UnusableInput
from guard.files import finite

IMAGES = 2000  # of the benign set at most, where a screening is asked for no other number


def append_line(path: Path, values: dict[str, Any]) -> None:
    """Append one line and flush it to the disk; NaN becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.truncate(_whole(path))
        file.write(json.dumps(finite(values), allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _whole(path: Path) -> int:
    """The length of a file up to its last line feed: a kill may have cut a line off."""
    return path.read_bytes().rfind(b"\n") + 1


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a last line that a kill cut off is left out. Raises UnusableInput."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    rows = text.split("\n")[:-1]
    try:
        return [json.loads(row) for row in rows if row]
    except json.JSONDecodeError as error:
        raise UnusableInput(f"{path}: holds a line that is no JSON ({error.msg})") from None
