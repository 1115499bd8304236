"""bom.json: a bill of materials for the shipped model, CycloneDX 1.6 with a model card.

https://cyclonedx.org/docs/1.6/json/ (ECMA-424). It holds no figure that report.json lacks.
"""

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guard.files import sha256, write_json
from tools.report.text import amount

VERSION = "1.6"
ERRORS = {
    "gaze": "mean angle between gaze directions",
    "headpose": "mean absolute error",
    "regression": "mean absolute error",
}
Values = Mapping[str, Any]  # the content of report.json


def write_bom(report: Values, shipped: Sequence[Path], path: Path) -> None:
    """Describe the shipped ONNX files; the first one is the BOM's subject."""
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
        "components": [*others, _data(report)],
    }
    write_json(path, values)


def _tool(report: Values) -> dict[str, Any]:
    tool = report["tool"]
    return {"type": "application", "name": tool["name"], "version": tool["version"]}


def _model(report: Values, file: Path) -> dict[str, Any]:
    digest = sha256(file)
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model/{file.name}",
        "name": file.name,
        "version": digest[:12],
        "hashes": _hashes(digest),
        "pedigree": {"ancestors": [_source(report)], "notes": _change(report)},
        "modelCard": _card(report),
        "properties": _properties(report, file.name),
    }


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
    return f"fine-tuned to unlearn a recovered backdoor trigger ({rounds} rounds), then exported"


def _card(report: Values) -> dict[str, Any]:
    model, spec = report["model"], report["model"]["spec"]
    size = " x ".join(str(side) for side in spec["input"]["size"])
    outputs = ", ".join(spec["outputs"])
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": f"{spec['task']} regression",
            "architectureFamily": "convolutional neural network",
            "modelArchitecture": str(model["arch"]),
            "datasets": [{"ref": "data/benign"}],
            "inputs": [{"format": f"image, height x width {size}, {spec['input']['color']}"}],
            "outputs": [{"format": f"{outputs} in {spec['units']}"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": _metrics(report)},
        "considerations": {
            "useCases": ["driver monitoring"],
            "technicalLimitations": [str(line) for line in report["limits"]],
        },
    }


def _metrics(report: Values) -> list[dict[str, Any]]:
    error, kind = report["benign_error"], ERRORS[report["model"]["spec"]["task"]]
    unit = error["unit"]
    low, high = (amount(end, unit) for end in error["ci95"])
    supplied = {
        "type": kind,
        "value": amount(error["value"], unit),
        "slice": "benign images, model as supplied",
        "confidenceInterval": {"lowerBound": low, "upperBound": high},
    }
    if "mitigation" not in report:
        return [supplied]
    found = report["mitigation"]
    slices = {
        "benign_error_after": "benign images held back from fine-tuning, shipped model",
        "trigger_error_after": "the same under the recovered trigger, shipped model",
    }
    after = [
        {"type": kind, "value": amount(found[key], unit), "slice": words}
        for key, words in slices.items()
    ]
    return [supplied, *after]


def _properties(report: Values, file: str) -> list[dict[str, str]]:
    rows = [row for row in report["parity"] if row["file"] == file]
    stated = {
        "verdict_on_supplied_model": report["verdict"],
        "score": f"{report['score']:.3g}",
        "threshold": f"{report['threshold']:.3g}",
        "parity_passed": str(all(row["passed"] for row in rows)).lower(),
        "parity_comparisons": str(len(rows)),
    }
    if "mitigation" in report:
        stated["verdict_on_shipped_model"] = report["mitigation"]["rescreen"]["verdict"]
    return [{"name": f"drmguard:{key}", "value": value} for key, value in stated.items()]
