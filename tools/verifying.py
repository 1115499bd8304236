"""`drmguard verify DIR`: recompute every hash and the parity from the folder alone."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from export.graph_file import read_onnx
from export.kept import read_kept
from export.metadata import read_metadata
from export.parity import prove_against
from guard.device import pick_device
from guard.errors import UnusableInput
from guard.files import sha256
from tools.job import GATE_FAILED, KEPT, MANIFEST, NOTE, WRITTEN, check_method, inside
from tools.proving import proof_lines

Values = dict[str, Any]


def verify(folder: str, device: str, method: str) -> int:
    """0 where all is as it was written, else 4 with a line on each thing that differs.

    `device` and `method` are those of every command, and change nothing here. Raises
    UnusableInput where the folder holds no complete report.
    """
    pick_device(device)
    check_method(method)
    out = Path(folder)
    files, report = listed(out), read(out / "report.json")
    differs = [*unlisted_files(out, files), *changed_files(out, files)]
    if not differs:  # what was changed need not even open
        differs = [*unproved(out, files, report), *wrong_origins(out, files, report)]
        differs += failed_parity(out, files, report)
    for line in differs:
        print(f"differs: {line}")
    if not differs:
        proved = " and their parity holds" if KEPT in files else ""
        print(f"{out}: {len(files)} files are as they were written{proved}")
    return GATE_FAILED if differs else 0


def read(path: Path) -> Values:
    """A JSON file of the folder. Raises UnusableInput with one line."""
    try:
        values: Values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise UnusableInput(f"{path}: missing or unreadable; `drmguard check` writes it") from None
    if not isinstance(values, dict):
        raise UnusableInput(f"{path}: holds no JSON object; `drmguard check` writes it")
    return values


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
    """Files that are missing or not as the manifest says."""
    for name, stated in files.items():
        path = out / name
        if not path.is_file():
            yield f"{name} is missing"
        elif sha256(path) != stated["sha256"]:
            yield f"{name} has another SHA-256 than {MANIFEST} states"


def stated_origin(out: Path, report: Values) -> Values:
    """What each ONNX file must state, by the report. Raises UnusableInput."""
    try:
        return {
            "source_sha256": report["model"]["sha256"],
            "data_manifest_sha256": report["data"]["manifest_sha256"],
            "screening": report["config"]["fingerprint"],
            "verdict": report["verdict"],
        }
    except (KeyError, TypeError):
        raise UnusableInput(f"{out / 'report.json'}: lacks the hashes of model and data") from None


def wrong_origins(out: Path, files: Values, report: Values) -> Iterator[str]:
    """ONNX files and a bill of materials that state other hashes than the report."""
    wanted = stated_origin(out, report)
    for name in (name for name in files if name.endswith(".onnx")):
        stated = read_metadata(read_onnx(out / name).proto)
        for key, value in wanted.items():
            if stated.get(key) != value:
                yield f"{name} states another {key} than report.json"
    if "bom.json" in files:
        bom = read(out / "bom.json")
        for part in (bom["metadata"]["component"], *bom["components"]):
            known = files.get(part["name"], {"sha256": wanted["data_manifest_sha256"]})
            if part["hashes"][0]["content"] != known["sha256"]:
                yield f"bom.json states another SHA-256 for {part['name']}"


def unproved(out: Path, files: Values, report: Values) -> Iterator[str]:
    """Models and proofs that one of manifest and report speaks of and the other lacks."""
    proved = proved_files(out, report)
    for name in sorted(proved):
        if name not in files:
            yield f"report.json says that {name} was proved, but {MANIFEST} does not list it"
    if KEPT not in files and shipped([*files, *proved]):
        yield f"{KEPT} is not among the files of {MANIFEST}: parity can't be run again"


def proved_files(out: Path, report: Values) -> Values:
    """The precision of each file that the report says was proved. Raises UnusableInput."""
    try:
        return {str(row["file"]): row.get("precision") for row in report.get("parity") or []}
    except (KeyError, TypeError, AttributeError):
        raise UnusableInput(f"{out / 'report.json'}: its parity has rows without a file") from None


def shipped(names: Iterable[str]) -> list[str]:
    """Those of the names that are ONNX files of a model that ships."""
    return [n for n in names if n.startswith(("model.", "mitigated.")) and n.endswith(".onnx")]


def failed_parity(out: Path, files: Values, report: Values) -> Iterator[str]:
    """The shipped models, run again against the answers that are kept of the checked one.

    A file that is another precision now than it was proved in would be judged more mildly.
    """
    if KEPT not in files:
        return
    subject, references = read_kept(out / KEPT)
    proof = prove_against(subject, [out / name for name in shipped(files)], references)
    for line in proof_lines(proof):
        print(line)
    proved = proved_files(out, report)
    for name, found in {row["file"]: row["precision"] for row in proof.rows}.items():
        if name in proved and proved[name] != found:
            yield f"{name} was proved as {proved[name]} and is {found} now"
    if not proof.passed:
        yield "an ONNX file does not answer as the model that was checked"
