"""`drmguard verify DIR`: recompute every hash and the parity from the folder alone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from export.graph_file import read_onnx
from export.kept import read_kept
from export.metadata import read_metadata
from export.parity import prove_against
from guard.errors import UnusableInput
from guard.files import sha256
from tools.job import GATE_FAILED, MANIFEST
from tools.proving import KEPT, proof_lines

Values = dict[str, Any]


def verify(folder: str) -> int:
    """0 where all is as it was written, else 4 with a line on each thing that differs.

    Raises UnusableInput where the folder holds no complete report.
    """
    out = Path(folder)
    files, report = read(out / MANIFEST)["files"], read(out / "report.json")
    differs = [*changed_files(out, files)]
    if not differs:  # what was changed need not even open
        differs = [*wrong_origins(out, files, report), *failed_parity(out, files)]
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
    except (OSError, ValueError):
        raise UnusableInput(f"{path}: missing or unreadable; `drmguard check` writes it") from None
    return values


def changed_files(out: Path, files: Values) -> Iterator[str]:
    """Files that are missing or not as the manifest says."""
    for name, stated in files.items():
        path = out / name
        if not path.is_file():
            yield f"{name} is missing"
        elif sha256(path) != stated["sha256"]:
            yield f"{name} has another SHA-256 than {MANIFEST} states"


def wrong_origins(out: Path, files: Values, report: Values) -> Iterator[str]:
    """ONNX files and a bill of materials that state other hashes than the report."""
    wanted = {
        "source_sha256": report["model"]["sha256"],
        "data_manifest_sha256": report["data"]["manifest_sha256"],
        "screening": report["config"]["fingerprint"],
        "verdict": report["verdict"],
    }
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


def failed_parity(out: Path, files: Values) -> Iterator[str]:
    """The shipped models, run again against the answers that are kept of the checked one."""
    if KEPT not in files:
        return
    subject, references = read_kept(out / KEPT)
    shipped = [out / name for name in files if name.startswith(("model.", "mitigated."))]
    proof = prove_against(subject, [p for p in shipped if p.suffix == ".onnx"], references)
    for line in proof_lines(proof):
        print(line)
    if not proof.passed:
        yield "an ONNX file does not answer as the model that was checked"
