"""The figures as files beside the report."""

from collections.abc import Sequence
from pathlib import Path

from guard.files import whole_file
from tools.report.plotting import Picture


def write_figures(folder: Path, pictures: Sequence[Picture]) -> None:
    """Write each picture as NAME.png; figures of an older report go, they would mislead.

    Those of the parity proof are written before the report and stay.
    """
    for picture in pictures:
        with whole_file(folder / f"{picture.name}.png") as temporary:
            temporary.write_bytes(picture.png)
    current = {f"{picture.name}.png" for picture in pictures}
    for path in folder.glob("*.png"):
        if path.name not in current and not path.name.startswith("parity-"):
            path.unlink()
