"""JSON lines: one flushed line per finished model, so that a killed run keeps its rows."""

import json
import os
from pathlib import Path
from typing import Any

from guard.errors import UnusableInput
from guard.files import finite

IMAGES = 2000  # of the benign set at most, where a screening is asked for no other number


def append_line(path: Path, values: dict[str, Any]) -> None:
    """Append one line and flush it to the disk; NaN becomes null. Raises UnusableInput."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = _whole(path)
    with path.open("ab") as file:
        file.truncate(whole)
        file.write(json.dumps(finite(values), allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _whole(path: Path) -> int:
    """The length of a file up to its last line feed: a kill may have cut a line off."""
    content = path.read_bytes() if path.exists() else b""
    whole = content.rfind(b"\n") + 1
    if content[whole:] and not content[whole:].startswith(b"{"):
        raise UnusableInput(f"{path}: holds something else than lines of a zoo; choose another")
    return whole


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a last line that a kill cut off is left out. Raises UnusableInput."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableInput(f"{path}: holds no lines of a zoo ({error})") from None
    rows = text.split("\n")[:-1]
    try:
        lines = [json.loads(row) for row in rows if row]
    except (ValueError, RecursionError) as error:
        raise UnusableInput(f"{path}: holds a line that is no JSON ({error})") from None
    if not all(isinstance(line, dict) for line in lines):
        raise UnusableInput(f"{path}: holds a line that is no JSON object, so no line of a zoo")
    return lines
