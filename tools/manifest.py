"""manifest.json: every file that a run wrote into its folder, with its SHA-256."""

from collections.abc import Iterable
from pathlib import Path

from guard.files import sha256, write_json
from tools.job import MANIFEST


def write_manifest(out: Path, files: Iterable[Path]) -> None:
    """List `files`, all in the folder `out`. Written last: where it is, all is."""
    listed = {
        path.relative_to(out).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
        for path in sorted(files)
    }
    write_json(out / MANIFEST, {"schema_version": 1, "files": listed})
