"""Whether the files of a report's folder say the same: report, proof, bill of materials, models."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.graph_file import read_onnx
from export.metadata import read_metadata
from guard.errors import UnusableInput
from tools.job import BOM, KEPT, MANIFEST, PARITY, REPORT
from tools.report.words import TAGS

Values = dict[str, Any]
NEEDED = {  # where a model ships
    KEPT: "parity can't be run again",
    PARITY: "its parity was not proved",
    BOM: "no bill of materials names it",
}


@dataclass(frozen=True)
class Stated:
    """What report.json says of the files beside it."""

    origin: Values  # what each ONNX file must say of itself
    rows: list[Values]  # of its parity
    proved: dict[str, Any]  # the precision of each file in these
    screened: dict[str, Values]  # the fresh screening of each file of a model

    @classmethod
    def of(cls, report: Values, path: Path) -> "Stated":
        """Raises UnusableInput where the report, read from `path`, is none of `drmguard check`."""
        try:
            rows = report.get("parity") or []
            origin = {
                "source_sha256": report["model"]["sha256"],
                "data_manifest_sha256": report["data"]["manifest_sha256"],
                "screening": report["config"]["fingerprint"],
                **{key: report[key] for key in ("verdict", "score", "threshold")},
            }
            proved = {str(row["file"]): row.get("precision") for row in rows}
            screened = {str(row["file"]): dict(row) for row in report.get("shipped") or []}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UnusableInput(
                f"{path}: lacks the hashes of model and data, or the files of a proof; "
                "`drmguard check` writes it"
            ) from None
        return cls(origin, rows, proved, screened)


def read(path: Path) -> Values:
    """A JSON file of the folder. Raises UnusableInput with one line."""
    try:
        values: Values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise UnusableInput(f"{path}: missing or unreadable; `drmguard check` writes it") from None
    if not isinstance(values, dict):
        raise UnusableInput(f"{path}: holds no JSON object; `drmguard check` writes it")
    return values


def shipped(names: Iterable[str]) -> list[str]:
    """Those of the names that are ONNX files of a model that ships."""
    return [n for n in names if n.startswith(("model.", "mitigated.")) and n.endswith(".onnx")]


def contradictions(out: Path, files: Values, report: Stated) -> Iterator[str]:
    """A line on each; `files` is what the manifest lists. Raises UnusableInput."""
    yield from missing_parts(files, report)
    yield from wrong_page((out / "report.html").read_text("utf-8", "replace"), report)
    yield from other_hashes(files, report)
    yield from wrong_origins(out, files, report)
    if PARITY in files:
        yield from wrong_parity(read(out / PARITY), report)
    if BOM in files:
        yield from wrong_bom(out / BOM, files, report)


def missing_parts(files: Values, report: Stated) -> Iterator[str]:
    """Models and proofs that one of manifest and report speaks of and the other lacks."""
    for name in REPORT:
        if name not in files:
            yield f"{name} is not among the files of {MANIFEST}"
    for name in sorted(report.proved):
        if name not in files:
            yield f"report.json says that {name} was proved, but {MANIFEST} does not list it"
    models = shipped([*files, *report.proved])
    needed = list(NEEDED) if models else [PARITY] if report.rows else []
    for name in needed:
        if name not in files:
            what = models[0] if models else "the trigger"
            yield f"{name} is not among the files of {MANIFEST}: {what}: {NEEDED[name]}"


def wrong_page(text: str, report: Stated) -> Iterator[str]:
    """A page for people that is of another model, other data or another verdict."""
    hashes = [str(report.origin[key]) for key in ("source_sha256", "data_manifest_sha256")]
    tag = TAGS.get(str(report.origin["verdict"]))
    if not all(part in text for part in (*hashes, f">{tag}</div>")):
        yield "report.html is not the page of report.json"


def other_hashes(files: Values, report: Stated) -> Iterator[str]:
    """Files that were screened as others than they are."""
    for name, row in report.screened.items():
        if "sha256" in row and row["sha256"] != files.get(name, {}).get("sha256"):
            yield f"report.json states another SHA-256 for {name} than {MANIFEST}"


def wrong_origins(out: Path, files: Values, report: Stated) -> Iterator[str]:
    """ONNX files that state other hashes than the report."""
    for name in (name for name in files if name.endswith(".onnx")):
        stated = read_metadata(read_onnx(out / name).proto)
        for key, value in report.origin.items():
            if stated.get(key) != value:
                yield f"{name} states another {key} than report.json"


def wrong_parity(parity: Values, report: Stated) -> Iterator[str]:
    """A proof that is another one than the report's, or is summed up wrongly."""
    if parity.get("rows") != report.rows:
        yield f"{PARITY} holds other comparisons than report.json"
    elif parity.get("passed") is not all(row.get("passed") is True for row in report.rows):
        yield f"{PARITY} says passed: {parity.get('passed')}, which its comparisons do not"


def wrong_bom(path: Path, files: Values, report: Stated) -> Iterator[str]:
    """A bill of materials that leaves out what ships, or states other hashes and verdicts."""
    try:
        values = read(path)
        parts = [values["metadata"]["component"], *values["components"]]
        data = [_hash(part) for part in parts if part["type"] == "data"]
        hashes = {str(part["name"]): _hash(part) for part in parts if part["type"] != "data"}
        verdicts = {str(part["name"]): _verdicts(part) for part in parts}
    except (KeyError, IndexError, TypeError, AttributeError):
        raise UnusableInput(
            f"{path}: no bill of materials with hashes; `drmguard check` writes it"
        ) from None
    for name in shipped(files):
        if name not in hashes:
            yield f"{BOM} does not name {name}"
    for name, found in hashes.items():
        if found != files.get(name, {}).get("sha256"):
            yield f"{BOM} states another SHA-256 for {name} than {MANIFEST}"
    if data != [report.origin["data_manifest_sha256"]]:
        yield f"{BOM} states another SHA-256 for the data than report.json"
    for name, found in verdicts.items():
        wanted = {"supplied": report.origin, "shipped": report.screened.get(name, {})}
        for which, verdict in found.items():
            if verdict != wanted[which].get("verdict"):
                yield f"{BOM} states another verdict on {name} ({which}) than report.json"


def _hash(part: Values) -> Any:
    return part["hashes"][0]["content"]


def _verdicts(part: Values) -> Values:
    """Those on the supplied and on the shipped model, as far as a part states them."""
    stated = {one["name"]: one["value"] for one in part.get("properties", [])}
    names = {which: f"drmguard:verdict_on_{which}_model" for which in ("supplied", "shipped")}
    return {which: stated[name] for which, name in names.items() if name in stated}
