"""Which models of a zoo a command takes."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path


def left(folders: Sequence[Path], done: Iterable[str], only: str | None) -> list[Path]:
    """The folders that are not done and whose names fit `only`: name,name with * in them."""
    patterns = ["*"] if only is None else [part.strip() for part in only.split(",")]
    finished = set(done)
    return [
        folder
        for folder in folders
        if folder.name not in finished
        and any(fnmatchcase(folder.name, pattern) for pattern in patterns)
    ]
