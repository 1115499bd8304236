"""`drmguard verify`: a folder as it was written passes, and what was changed is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export.half import HALF
from export.precision import to_fp16
from guard.files import write_text
from tests.check_files import check, files_of, quicken
from tools import cli
from tools.job import KEPT
from tools.manifest import write_manifest


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a `drmguard check` that found nothing."""
    folder = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        assert check(files_of(folder), folder / "out", "clean", "") == 0
    return folder / "out"


@pytest.fixture
def checked(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "out")


def spoil_weights(out: Path) -> None:
    proto = onnx.load(out / "model.onnx")
    weight = next(w for w in proto.graph.initializer if len(w.dims) == 4)
    values = onnx.numpy_helper.to_array(weight) * 1.001
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(proto, out / "model.onnx")


def spoil_report(out: Path) -> None:
    path = out / "report.json"
    path.write_text(path.read_text().replace('"clean"', '"backdoored"'))


def list_again(out: Path) -> None:
    """As one who covers his traces: the manifest fits what is there."""
    names = json.loads((out / "manifest.json").read_text())["files"]
    write_manifest(out, [out / name for name in names])


def test_a_folder_as_it_was_written_is_verified_anywhere(
    checked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "copy"
    shutil.move(checked, elsewhere)
    assert cli.run(["verify", str(elsewhere)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1].endswith("run again on the images that are kept: model.onnx, generator.onnx")
    assert not [line for line in said if line.startswith("note:")]


def test_half_floats_are_proved_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)
    files = files_of(tmp_path)
    assert check(files, tmp_path / "out", "clean", "", "--precision=fp16") == 0
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["parity"]
    assert HALF in {row["provider"] for row in rows}
    assert cli.run(["verify", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("covered", [False, True])
@pytest.mark.parametrize("spoil", [spoil_weights, spoil_report])
def test_what_was_changed_is_named(
    spoil: Callable[[Path], None], covered: bool, checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(checked)
    if covered:
        list_again(checked)
    assert cli.run(["verify", str(checked)]) == 4
    assert "differs: " in capsys.readouterr().out


def test_a_missing_file_is_named(checked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checked / "parity.json").unlink()
    assert cli.run(["verify", str(checked)]) == 4
    assert "parity.json is missing" in capsys.readouterr().out


def test_a_file_of_another_precision_than_was_proved_is_named(
    checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A looser one, within its own tolerance; it says of itself what it is now."""
    proto = onnx.load(checked / "model.onnx")
    (entry,) = proto.metadata_props
    entry.value = json.dumps({**json.loads(entry.value), "precision": "fp16"})
    onnx.save(to_fp16(proto), checked / "model.onnx")
    report = json.loads((checked / "report.json").read_text())
    (checked / "bom.json").unlink()
    names = set(json.loads((checked / "manifest.json").read_text())["files"]) - {"bom.json"}
    write_manifest(checked, [checked / name for name in names])
    assert report["parity"][0]["precision"] == "fp32"
    assert cli.run(["verify", str(checked)]) == 4
    assert "model.onnx was proved as fp32 and is fp16 now" in capsys.readouterr().out


def without(out: Path, *names: str) -> None:
    """Take files away and from the manifest, as one who covers his traces."""
    for name in names:
        (out / name).unlink()
    left = set(json.loads((out / "manifest.json").read_text())["files"]) - set(names)
    write_manifest(out, [out / name for name in left])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["parity-images.npz"], "parity can't be run again"),
        (["parity.json"], "parity.json is not among the files"),
        (["trigger.safetensors"], "trigger.safetensors is not among the files"),
        (["bom.json"], "bom.json is not among the files"),
        (["model.onnx"], "report.json says that model.onnx was proved"),
        (["generator.onnx"], "report.json says that generator.onnx was proved"),
        (["parity-images.npz", "model.onnx", "bom.json"], "parity can't be run again"),
    ],
    ids=str,
)
def test_a_proof_that_is_gone_is_missed(
    names: list[str], said: str, checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without(checked, *names)
    assert cli.run(["verify", str(checked)]) == 4
    assert said in capsys.readouterr().out


def test_a_model_that_the_report_does_not_name_needs_its_proof_too(
    checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = json.loads((checked / "report.json").read_text())
    del report["parity"]
    (checked / "report.json").write_text(json.dumps(report))
    without(checked, "parity-images.npz")
    assert cli.run(["verify", str(checked)]) == 4
    assert "parity can't be run again" in capsys.readouterr().out


Spoil = Callable[[Path], None]


def edited(file: str, change: Callable[[Any], Any]) -> Spoil:
    """A JSON file of the folder, changed in place."""

    def spoil(out: Path) -> None:
        values = json.loads((out / file).read_text())
        change(values)
        (out / file).write_text(json.dumps(values))

    return spoil


def kept(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    """What is kept of the proof, changed in place."""

    def spoil(out: Path) -> None:
        with np.load(out / KEPT) as file:
            arrays = dict(file)
        change(arrays)
        np.savez(out / KEPT, **arrays)

    return spoil


def each(end: str, change: Callable[[Any], Any]) -> Spoil:
    """The same for every array of that kind, whatever its group."""
    return kept(lambda arrays: arrays.update({k: change(arrays[k]) for k in ending(arrays, end)}))


def ending(arrays: dict[str, Any], end: str) -> list[str]:
    return [name for name in arrays if name.endswith(end)]


def without_group(group: str) -> Spoil:
    def drop(arrays: dict[str, Any]) -> None:
        for name in [name for name in arrays if name.startswith(f"{group}.")]:
            del arrays[name]

    return kept(drop)


def another_trigger(out: Path) -> None:
    proto = onnx.load(out / "generator.onnx")
    for weight in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype.kind == "f":
            other = np.full_like(values, 0.9)
            weight.CopyFrom(onnx.numpy_helper.from_array(other, weight.name))
    onnx.save(proto, out / "generator.onnx")


def main_of(bom: dict[str, Any]) -> Any:
    return bom["metadata"]["component"]


def other_verdict(bom: dict[str, Any]) -> None:
    stated = {one["name"]: one for one in main_of(bom)["properties"]}
    stated["drmguard:verdict_on_shipped_model"]["value"] = "backdoored"


CONTRADICTIONS: list[tuple[Spoil, str]] = [
    (edited("parity.json", lambda v: v.update(rows=[])), "holds other comparisons"),
    (edited("parity.json", lambda v: v.update(passed=False)), "parity.json says passed: False"),
    (edited("report.json", lambda v: v["parity"][0].update(n=1)), "holds other comparisons"),
    (edited("report.json", lambda v: v["shipped"][0].update(sha256="0")), "SHA-256 for model.onnx"),
    (edited("report.json", lambda v: v.update(score=0.1)), "states another score"),
    (lambda out: write_text(out / "report.html", "<h1>clean</h1>"), "not the page of report.json"),
    (edited("bom.json", lambda v: v.update(components=[])), "another SHA-256 for the data"),
    (edited("bom.json", lambda v: main_of(v).update(name="m.onnx")), "does not name model.onnx"),
    (edited("bom.json", other_verdict), "another verdict on model.onnx"),
    *((without_group(name), "does not hold the images") for name in ("triggered", "limits")),
    (without_group("benign"), "does not hold the images"),
    (each(".noise", lambda _: np.array(1e9)), "another rounding of the model"),
    (kept(lambda v: v.update(rounds=np.array(True))), "judged by another measure"),
    (another_trigger, "generator.onnx does not make the triggered images"),
]


@pytest.mark.parametrize(
    ("spoil", "said"), CONTRADICTIONS, ids=[said for _, said in CONTRADICTIONS]
)
def test_files_that_contradict_each_other_are_named(
    spoil: Spoil, said: str, checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though every hash of the manifest is right."""
    spoil(checked)
    list_again(checked)
    assert cli.run(["verify", str(checked)]) == 4
    differs = [line for line in capsys.readouterr().out.splitlines() if line.startswith("differs:")]
    assert any(said in line for line in differs)


def spoilt_bytes(change: Callable[[bytes], bytes]) -> Spoil:
    def spoil(out: Path) -> None:
        (out / KEPT).write_bytes(change((out / KEPT).read_bytes()))

    return spoil


DAMAGED: list[Spoil] = [
    edited("bom.json", lambda v: v.pop("metadata")),
    edited("bom.json", lambda v: v["metadata"].update(component=5)),
    edited("bom.json", lambda v: v.update(components=3)),
    edited("bom.json", lambda v: main_of(v).update(hashes=[])),
    edited("bom.json", lambda v: main_of(v).update(properties=[5])),
    edited("parity.json", lambda v: v.pop("proofs")),
    edited("parity.json", lambda v: v.update(proofs=[3])),
    edited("report.json", lambda v: v.update(model=[])),
    edited("report.json", lambda v: v.update(shipped=[3])),
    spoilt_bytes(lambda data: data[:3000]),
    spoilt_bytes(lambda _: b"PK\x03\x04junk"),
    spoilt_bytes(lambda _: b"junk"),
    kept(lambda v: [v.pop(name) for name in list(v) if "." in name]),
    *(each(f".{end}", lambda a: a[:0]) for end in ("labels", "answers")),
    each("s", lambda a: a[:0] if a.ndim else a),  # nothing of anything
    each(".answers", lambda a: a[:3]),
    each(".answers", lambda a: a.astype("U5")),
    each(".names", lambda a: a[:1]),
    each(".images", lambda a: a.astype("f8")),
    each(".images", lambda a: a[:, :, :5]),
    each(".noise", lambda _: np.array(np.nan)),
]


@pytest.mark.parametrize("spoil", DAMAGED)
def test_what_is_damaged_is_one_line(
    spoil: Spoil, checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(checked)
    list_again(checked)
    assert cli.run(["verify", str(checked)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_name_that_no_terminal_shows_is_printed_all_the_same(
    checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited("manifest.json", lambda v: v["files"].update({"\ud800\n": {"sha256": "0"}}))(checked)
    assert cli.run(["verify", str(checked)]) == 4
    assert "differs: \\ud800\\n is missing" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(("inside", "code"), [(False, 4), (True, 0)])
def test_a_link_may_not_lead_out_of_the_folder(
    inside: bool, code: int, checked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = (checked if inside else tmp_path) / "kept-elsewhere.onnx"
    (checked / "model.onnx").rename(elsewhere)
    (checked / "model.onnx").symlink_to(elsewhere)
    assert cli.run(["verify", str(checked)]) == code
    assert ("model.onnx is a link that leads out" in capsys.readouterr().out) != inside


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["mine.onnx", "figures/new.png"], "nothing vouches for: figures/new.png, mine.onnx"),
        ([f"{k}.txt" for k in range(9)], "0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 4 more"),
    ],
    ids=str,
)
def test_files_of_the_user_are_noted_and_no_fault(
    names: list[str], said: str, checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in names:
        (checked / name).write_text("mine")
    assert cli.run(["verify", str(checked)]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note:")]
    assert len(notes) == 1
    assert notes[0].endswith(said)


def test_a_file_that_was_refused_is_noted(
    checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited("report.json", lambda v: v["shipped"][0].update(verdict="backdoored"))(checked)
    edited("bom.json", other_verdict)(checked)
    list_again(checked)
    assert cli.run(["verify", str(checked)]) == 0
    assert "note: model.onnx must not be shipped" in capsys.readouterr().out


def test_rows_of_parity_that_name_no_file_are_one_line(
    checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = json.loads((checked / "report.json").read_text())
    (checked / "report.json").write_text(json.dumps({**report, "parity": [3]}))
    list_again(checked)
    capsys.readouterr()
    assert cli.run(["verify", str(checked)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_folder_without_a_report_can_not_be_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["verify", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
