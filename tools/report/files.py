"""The figures as files beside the report."""

from collections.abc import Sequence
from pathlib import Path

from guard.files import whole_file
from tools.report.plotting import Picture


def write_figures(folder: Path, pictures: Sequence[Picture]) -> list[Path]:
    """Write each picture as NAME.png; gives their paths."""
    paths = [folder / f"{picture.name}.png" for picture in pictures]
    for path, picture in zip(paths, pictures, strict=True):
        with whole_file(path) as temporary:
            temporary.write_bytes(picture.png)
    return paths
