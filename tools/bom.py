"""bom.json: a bill of materials for the shipped model, CycloneDX 1.6 with a model card.

https://cyclonedx.org/docs/1.6/json/ (ECMA-424). It holds no figure that report.json lacks.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from guard.files import sha256, write_json
from tools.report.text import amount, number
from tools.report.words import FIRST

VERSION = "1.6"
ERRORS = {
    "gaze": "mean angle between gaze directions",
    "headpose": "mean absolute error",
    "regression": "mean absolute error",
}
NOT_RUN = {"scope": "excluded"}
SUPPLIED, BEFORE_EXPORT = "model as supplied", "mitigated model before its export, fp32"
Values = Mapping[str, Any]  # the content of report.json


def write_bom(report: Values, shipped: Sequence[Path], beside: Sequence[Path], path: Path) -> None:
    """Describe the shipped ONNX files, of which the first is the BOM's subject.

    `beside` are the weights that they were exported from and the trigger's file.
    """
    main, *others = (_model(report, file) for file in shipped)
    values = {
        "$schema": f"http://cyclonedx.org/schema/bom-{VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": VERSION,
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": report["ended"],
            "tools": {"components": [_tool(report)]},
            "component": main,
        },
        "components": [*others, *(_beside(file) for file in beside), _data(report)],
    }
    write_json(path, values)


def _tool(report: Values) -> dict[str, Any]:
    tool = report["tool"]
    return {"type": "application", "name": tool["name"], "version": tool["version"]}


def _model(report: Values, file: Path) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        **_identity("model", file),
        "pedigree": {"ancestors": [_source(report)], "notes": _change(report)},
        "modelCard": _card(report, file.name),
        "properties": _properties(report, file.name),
    }


def _identity(kind: str, file: Path) -> dict[str, Any]:
    digest = sha256(file)
    return {
        "bom-ref": f"{kind}/{file.name}",
        "name": file.name,
        "version": digest[:12],
        "hashes": _hashes(digest),
    }


def _beside(file: Path) -> dict[str, Any]:
    """What lies in the folder with the shipped files, and is not for the car."""
    if file.suffix == ".onnx":
        said = "the recovered trigger, kept as evidence; part of no model"
        return {"type": "file", **_identity("trigger", file), "description": said, **NOT_RUN}
    said = f"the weights that the ONNX files were exported from; {file.stem}.json describes them"
    kind = "machine-learning-model"
    return {"type": kind, **_identity("weights", file), "description": said, **NOT_RUN}


def _source(report: Values) -> dict[str, Any]:
    model = report["model"]
    return {
        "type": "machine-learning-model",
        "name": Path(str(model["path"])).name,
        "version": model["sha256"][:12],
        "hashes": _hashes(model["sha256"]),
    }


def _data(report: Values) -> dict[str, Any]:
    data = report["data"]
    return {
        "type": "data",
        "bom-ref": "data/benign",
        "name": Path(str(data["path"])).name,
        "version": data["manifest_sha256"][:12],
        "description": f"{data['n']} labelled images; the hash is over names, pixels and labels",
        "hashes": _hashes(data["manifest_sha256"]),
    }


def _hashes(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]


def _change(report: Values) -> str:
    if "mitigation" not in report:
        return "exported as supplied; nothing was trained"
    rounds = report["mitigation"]["rounds"]
    times = "1 round" if rounds == 1 else f"{rounds} rounds"
    return f"fine-tuned to unlearn a recovered backdoor trigger ({times}), then exported"


def _card(report: Values, file: str) -> dict[str, Any]:
    model, spec = report["model"], report["model"]["spec"]
    size = " x ".join(str(side) for side in spec["input"]["size"])
    task, outputs = spec["task"], ", ".join(spec["outputs"])
    driver = task != "regression"  # what others are for, nobody has said
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": f"{task} regression" if driver else task,
            "modelArchitecture": str(model["arch"]),
            "datasets": [{"ref": "data/benign"}],
            "inputs": [{"format": f"image, height x width {size}, {spec['input']['color']}"}],
            "outputs": [{"format": f"{outputs} in {spec['units']}"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": _metrics(report, file)},
        "considerations": {
            **({"useCases": ["driver monitoring"]} if driver else {}),
            "technicalLimitations": _limits(report, file),
        },
    }


def _limits(report: Values, file: str) -> list[str]:
    """Those of the report; the first of them is of the supplied model, so this file has its own."""
    _, *rest = report["limits"]
    origin = (
        "It was fine-tuned from a model that behaves as a backdoored one does. The attacker's own "
        "trigger is not known and may still have part of its effect."
    )
    return [
        *([origin] if "mitigation" in report else []),
        FIRST[_own_verdict(report, file) or "inconclusive"],
        *rest,
    ]


def _own_verdict(report: Values, file: str) -> str | None:
    """What the fresh screening of this very file said; None where there was none."""
    rows = [row for row in report.get("shipped") or [] if row["file"] == file]
    return str(rows[0]["verdict"]) if rows else None


def _metrics(report: Values, file: str) -> list[dict[str, Any]]:
    """Errors, each with the images and the model that it was measured on."""
    error, unit = report["benign_error"], report["benign_error"]["unit"]
    kind = ERRORS[report["model"]["spec"]["task"]]
    low, high = (amount(end, unit) for end in error["ci95"])
    stated = [(error["value"], f"all {report['data']['n']} benign images, {SUPPLIED}")]
    stated += [*_removal(report), *_exported(report, file)]
    metrics: list[dict[str, Any]] = [
        {"type": kind, "value": amount(value, unit), "slice": words} for value, words in stated
    ]
    metrics[0]["confidenceInterval"] = {"lowerBound": low, "upperBound": high}
    return metrics


def _removal(report: Values) -> Iterator[tuple[Any, str]]:
    """Before and after on the same images, which the fine-tuning never saw."""
    found = report.get("mitigation")
    if found is None:
        return
    held = f"{found['held_back']} benign images held back from fine-tuning"
    images = {"benign": held, "trigger": f"the same {held}, under the recovered trigger"}
    for error, which in images.items():
        yield found[f"{error}_error_before"], f"{which}, {SUPPLIED}"
        yield found[f"{error}_error_after"], f"{which}, {BEFORE_EXPORT}"


def _exported(report: Values, file: str) -> Iterator[tuple[Any, str]]:
    """What the export did to the benign error, by the proof of parity of this file."""
    rows = [row for row in report["parity"] if row["file"] == file and "benign_error_after" in row]
    if rows:
        row = max(rows, key=lambda row: int(row["n"]))
        images = f"{row['n']} benign images of the proof of parity"
        yield row["benign_error_before"], f"{images}, model before its export"
        yield row["benign_error_after"], f"the same {images}, {file}"


def _properties(report: Values, file: str) -> list[dict[str, str]]:
    rows, own = [row for row in report["parity"] if row["file"] == file], _own_verdict(report, file)
    stated = {
        "verdict_on_supplied_model": report["verdict"],
        "score": number(report["score"]),
        "threshold": number(report["threshold"]),
        "parity_passed": str(bool(rows) and all(row["passed"] for row in rows)).lower(),
        "parity_comparisons": str(len(rows)),
        **({} if own is None else {"verdict_on_shipped_model": own}),
    }
    return [{"name": f"drmguard:{key}", "value": value} for key, value in stated.items()]
