"""`drmguard verify DIR`: recompute every hash and the parity from the folder alone."""

from collections.abc import Iterator
from pathlib import Path

from guard.device import pick_device
from guard.errors import UnusableInput
from guard.files import sha256
from tools.agreement import Stated, Values, contradictions, read
from tools.job import GATE_FAILED, MANIFEST, NOTE, WRITTEN, check_method, inside
from tools.reproving import prove_again

SHOWN = 5  # of the files that are not of the run


def verify(folder: str, device: str, method: str) -> int:
    """0 where all is as it was written, else 4 with a line on each thing that differs.

    `device` and `method` are those of every command, and change nothing here. Raises
    UnusableInput where the folder holds no complete report.
    """
    pick_device(device)
    check_method(method)
    out = Path(folder)
    files, report = listed(out), read(out / "report.json")
    ran, notes = list[str](), list(others(out, files))
    differs = [*unlisted_files(out, files), *changed_files(out, files)]
    if not differs:  # what was changed need not even open
        stated = Stated.of(report, out / "report.json")
        differs = list(contradictions(out, files, stated))
        ran, missed = prove_again(out, files, stated)
        differs += missed
        notes += refused(stated)
    for line in (*ran, *(f"differs: {line}" for line in differs), *notes):
        say(line)
    if not differs:
        again = "; run again on the images that are kept: " + ", ".join(names(ran)) if ran else ""
        say(f"{out}: {len(files)} files are as they were written{again}")
    return GATE_FAILED if differs else 0


def say(line: str) -> None:
    """Print one line; names come with the folder, and may hold what no terminal can show."""
    print("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line))


def names(ran: list[str]) -> list[str]:
    """The files that were run, of the lines on them."""
    return [line.partition(":")[0] for line in ran if not line.startswith("not running")]


def listed(out: Path) -> Values:
    """The files of the manifest. Raises UnusableInput."""
    files = read(out / MANIFEST).get("files")
    if not isinstance(files, dict) or not {"report.json", "report.html"} <= set(files):
        raise UnusableInput(f"{out / MANIFEST}: does not list the report; nothing can be verified")
    if not all(
        inside(name) and isinstance(one, dict) and "sha256" in one for name, one in files.items()
    ):
        raise UnusableInput(f"{out / MANIFEST}: lists no files of this folder with their SHA-256")
    return files


def unlisted_files(out: Path, files: Values) -> Iterator[str]:
    """Files with a name that `check` writes, of which nothing here says anything."""
    for name in WRITTEN["check"]:
        if name not in (*files, MANIFEST, NOTE) and (out / name).is_file():
            yield f"{name} is not among the files of {MANIFEST}: nothing vouches for it"


def changed_files(out: Path, files: Values) -> Iterator[str]:
    """Files that are missing, elsewhere, or not as the manifest says."""
    for name, stated in files.items():
        path = out / name
        if not path.is_file():
            yield f"{name} is missing"
        elif not path.resolve().is_relative_to(out.resolve()):
            yield f"{name} is a link that leads out of the folder"
        elif sha256(path) != stated["sha256"]:
            yield f"{name} has another SHA-256 than {MANIFEST} states"


def others(out: Path, files: Values) -> Iterator[str]:
    """One note on what else lies there: users keep files of their own beside a report."""
    here = sorted(path for folder in (out, out / "figures") for path in folder.glob("*"))
    found = [path.relative_to(out).as_posix() for path in here]
    own = [name for name in found if name not in (*files, *WRITTEN["check"])]
    if own:
        more = f" and {len(own) - SHOWN} more" if len(own) > SHOWN else ""
        yield f"note: not of this run, nothing vouches for: {', '.join(own[:SHOWN])}{more}"


def refused(report: Stated) -> Iterator[str]:
    """A note on each file that may be as it was written, but is not to be shipped."""
    for name, row in report.screened.items():
        if row.get("verdict") != "clean":
            verdict = row.get("verdict")
            yield f"note: {name} must not be shipped: screened again, it was {verdict}"
