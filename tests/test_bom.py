"""The bill of materials: CycloneDX 1.6, and of each file what was measured of that file."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from guard.files import sha256
from tests.bom_files import complaints
from tests.conftest import spec_of
from tools.bom import write_bom

BESIDE = ("mitigated.safetensors", "generator.onnx")


def row(file: str, n: int, after: float, **more: Any) -> dict[str, Any]:
    errors = {"benign_error_before": 4.6, "benign_error_after": after}
    return {"file": file, "images": "benign", "n": n, "passed": True, **errors, **more}


def report_of(verdict: str = "backdoored", task: str = "gaze") -> dict[str, Any]:
    """What the bill of materials reads of report.json, for two files that ship."""
    spec = spec_of(task)
    stem = "model" if verdict == "clean" else "mitigated"
    report: dict[str, Any] = {
        "ended": "2031-01-01T00:00:00+00:00",
        "tool": {"name": "DRMGuard", "version": "1"},
        "verdict": verdict,
        "score": 9.94,
        "threshold": 1.6,
        "model": {"path": "m/a.pt", "sha256": "ab" * 32, "arch": spec.arch, "spec": spec.to_json()},
        "data": {"path": "d.npz", "manifest_sha256": "cd" * 32, "n": 400},
        "benign_error": {"value": 4.4, "unit": spec.error_unit, "ci95": [4.1, 4.7]},
        "limits": ["of the supplied model", "of any"],
        "parity": [
            row(f"{stem}.onnx", 64, 4.61),
            row(f"{stem}.onnx", 256, 4.62),
            row(f"{stem}.int8.onnx", 200, 4.9),
        ],
        "shipped": [
            {"file": f"{stem}.onnx", "verdict": "clean"},
            {"file": f"{stem}.int8.onnx", "verdict": "clean"},
        ],
    }
    if verdict == "backdoored":
        report["mitigation"] = {
            "rounds": 1,
            "held_back": 120,
            "benign_error_before": 4.3,
            "benign_error_after": 4.5,
            "trigger_error_before": 22.5,
            "trigger_error_after": 4.7,
            "rescreen": {"verdict": "clean"},
        }
    return report


def written(report: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The bill of materials of that report."""
    files = [folder / one["file"] for one in report["shipped"]]
    beside = [folder / name for name in BESIDE]
    for path in (*files, *beside):
        path.write_text(path.name)
    write_bom(report, files, beside, folder / "bom.json")
    bom: dict[str, Any] = json.loads((folder / "bom.json").read_text())
    return bom


def models(bom: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts that ship."""
    parts = (bom["metadata"]["component"], *bom["components"])
    return [part for part in parts if "modelCard" in part]


def stated(part: dict[str, Any]) -> dict[str, str]:
    return {one["name"].removeprefix("drmguard:"): one["value"] for one in part["properties"]}


def metrics(part: dict[str, Any]) -> dict[str, str]:
    found = part["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    return {one["slice"]: one["value"] for one in found}


@pytest.mark.parametrize("verdict", ["clean", "backdoored"])
@pytest.mark.parametrize("task", ["gaze", "headpose", "regression"])
def test_it_is_cyclonedx(verdict: str, task: str, tmp_path: Path) -> None:
    assert complaints(written(report_of(verdict, task), tmp_path)) == []


def drop_name(bom: dict[str, Any]) -> None:
    del bom["components"][0]["name"]


def unknown_key(bom: dict[str, Any]) -> None:
    bom["metadata"]["component"]["modelCard"]["limits"] = []


def unknown_word(bom: dict[str, Any]) -> None:
    bom["components"][0]["scope"] = "none"


def short_hash(bom: dict[str, Any]) -> None:
    bom["components"][0]["hashes"][0]["content"] = "ab"


def same_name(bom: dict[str, Any]) -> None:
    bom["components"][0]["bom-ref"] = bom["components"][1]["bom-ref"]


def lost_data(bom: dict[str, Any]) -> None:
    bom["components"].pop()


@pytest.mark.parametrize(
    "spoil", [drop_name, unknown_key, unknown_word, short_hash, same_name, lost_data]
)
def test_what_is_no_cyclonedx_would_be_noticed(spoil: Any, tmp_path: Path) -> None:
    bom = copy.deepcopy(written(report_of(), tmp_path))
    spoil(bom)
    assert complaints(bom)


@pytest.mark.parametrize("verdict", ["clean", "backdoored"])
def test_each_file_has_its_own_verdict(verdict: str, tmp_path: Path) -> None:
    report = report_of(verdict)
    report["shipped"][1]["verdict"] = "backdoored"
    first, second = models(written(report, tmp_path))
    assert stated(first)["verdict_on_shipped_model"] == "clean"
    assert stated(second)["verdict_on_shipped_model"] == "backdoored"
    limits = [
        part["modelCard"]["considerations"]["technicalLimitations"] for part in (first, second)
    ]
    assert not any("of the supplied model" in said for said in limits)
    assert not any(line.startswith("The model behaves as") for line in limits[0])
    assert any(line.startswith("The model behaves as") for line in limits[1])
    assert any("was fine-tuned from" in line for line in limits[0]) == (verdict == "backdoored")


@pytest.mark.parametrize(
    ("rows", "passed"), [([], "false"), ([True], "true"), ([True, False], "false")]
)
def test_parity_passed_where_there_is_a_proof(
    rows: list[bool], passed: str, tmp_path: Path
) -> None:
    report = report_of("clean")
    report["parity"] = [row("model.onnx", 9, 4.6, passed=one) for one in rows]
    first, _ = models(written(report, tmp_path))
    assert stated(first)["parity_passed"] == passed
    assert stated(first)["parity_comparisons"] == str(len(rows))


def test_each_error_names_its_images_and_its_model(tmp_path: Path) -> None:
    first, second = models(written(report_of(), tmp_path))
    held = "120 benign images held back from fine-tuning"
    before = "mitigated model before its export, fp32"
    common = {
        "all 400 benign images, model as supplied": "4.4\u00b0",
        f"{held}, model as supplied": "4.3\u00b0",
        f"{held}, {before}": "4.5\u00b0",
        f"the same {held}, under the recovered trigger, model as supplied": "22.5\u00b0",
        f"the same {held}, under the recovered trigger, {before}": "4.7\u00b0",
    }
    for part, n, after in ((first, 256, "4.6\u00b0"), (second, 200, "4.9\u00b0")):
        proof = f"{n} benign images of the proof of parity"
        assert metrics(part) == {
            **common,
            f"{proof}, model before its export": "4.6\u00b0",
            f"the same {proof}, {part['name']}": after,
        }


def test_nothing_is_made_up_of_a_model_of_another_kind(tmp_path: Path) -> None:
    first, _ = models(written(report_of("clean", "regression"), tmp_path))
    card = first["modelCard"]
    assert "architectureFamily" not in card["modelParameters"]
    assert card["modelParameters"]["task"] == "regression"
    assert "useCases" not in card["considerations"]


@pytest.mark.parametrize(("rounds", "said"), [(1, "(1 round)"), (2, "(2 rounds)")])
def test_what_else_the_folder_holds_is_listed(rounds: int, said: str, tmp_path: Path) -> None:
    report = report_of()
    report["mitigation"]["rounds"] = rounds
    report["score"] = None  # none could be computed
    bom = written(report, tmp_path)
    found = {part["name"]: part for part in bom["components"]}
    assert {name: found[name]["type"] for name in BESIDE} == {
        "mitigated.safetensors": "machine-learning-model",
        "generator.onnx": "file",
    }
    for name in BESIDE:
        assert found[name]["hashes"][0]["content"] == sha256(tmp_path / name)
    assert said in models(bom)[0]["pedigree"]["notes"]
    assert stated(models(bom)[0])["score"] == "not available"
