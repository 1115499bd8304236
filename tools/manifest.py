"""manifest.json: every file that a run wrote into its folder, with its SHA-256."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from guard.files import sha256, write_json
from tools.job import MANIFEST


def entries(out: Path, files: Iterable[Path]) -> dict[str, Any]:
    """What is stated of `files`, all in the folder `out`, by name."""
    return {
        path.relative_to(out).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
        for path in sorted(files)
    }


def write_manifest(out: Path, files: Iterable[Path]) -> None:
    """List `files`, all in the folder `out`. Written last: where it is, all is."""
    write_json(out / MANIFEST, {"schema_version": 1, "files": entries(out, files)})


def extend_manifest(out: Path, files: Iterable[Path], gone: Sequence[str]) -> None:
    """List `files` too, and no longer those that are `gone`, where the folder holds a report."""
    try:
        values = json.loads((out / MANIFEST).read_text())
        kept = {name: one for name, one in values["files"].items() if name not in gone}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # no report, or a manifest that vouches for nothing
    if "report.json" in kept:
        write_json(out / MANIFEST, {**values, "files": {**kept, **entries(out, files)}})
