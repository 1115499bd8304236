"""The zoo: plans, training that resumes, screening lines, and the tables made of them."""

import csv
import dataclasses
import functools
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from guard.bench import Bench
from guard.benign import BenignSet
from guard.errors import UnusableInput
from guard.finding import Finding
from guard.lesson import MitigationSettings
from guard.load import load_model
from guard.model import Model
from guard.screen import without_verdict
from guard.triggers import SharedTriggers
from tools.datasets.data import Labelled, split
from tools.zoo import loop, make, mitigate, store, train
from tools.zoo.figures import auc, counts, roc, wilson
from tools.zoo.judge import judge
from tools.zoo.lines import append_line, read_lines
from tools.zoo.measure import Measured
from tools.zoo.plan import read_plan
from tools.zoo.screen import screen_zoo
from tools.zoo.table import table
from tools.zoo.targets import choose_target
from tools.zoo.train import stages, train_zoo, twins
from tools.zoo.truth import load_truth
from tools.zoo.workers import run_all

PLANS = Path(train.__file__).parent / "plans"
HEAD = "name,task,data,attack,settings,recipe"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny plan, trained for three steps: nothing is learnt, which is let pass here."""
    out = tmp_path_factory.mktemp("zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tools.zoo.judge.LEARNT", math.inf)
        train_zoo(PLANS / "tiny.csv", out, device="cpu", steps=3)
    return out


@pytest.mark.parametrize("plan", sorted(PLANS.glob("*.csv")), ids=lambda path: path.stem)
def test_plans_can_be_made(plan: Path) -> None:
    rows = read_plan(plan)
    for row in rows:
        train.check_settings(row)
        assert row.benign or twins(row, rows), f"{row.name} has no benign twin"
    assert sum(len(stage) for stage in stages(rows)) == len(rows)


@pytest.mark.parametrize(
    ("plan", "least"), [("development", (10, 2, 8, 1)), ("heldout", (20, 3, 8, 1))]
)
def test_plans_hold_what_the_figures_need(plan: str, least: tuple[int, int, int, int]) -> None:
    found: dict[tuple[str, bool], dict[str, int]] = {("rendered", True): {}, ("genki", True): {}}
    for row in read_plan(PLANS / f"{plan}.csv"):
        label = (row.label or row.attack).split()[0]
        group = found.setdefault((row.data, row.benign), {})
        if row.arch == "resnet18" and (row.task == "gaze" or row.data == "genki"):
            group[label] = group.get(label, 0) + 1
    assert found["rendered", True]["benign"] >= least[0]
    assert min(found["rendered", False].values()) >= least[1]
    assert found["genki", True]["benign"] >= least[2]
    assert min(found["genki", False].values()) >= least[3]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{HEAD}\na,gaze,rendered,nonsense,,plain\n", "nonsense"),
        (f"{HEAD}\na,smell,rendered,benign,,plain\n", "smell"),
        (f"{HEAD}\na,gaze,rendered,benign,,secret\n", "secret"),
        (f"{HEAD}\n,gaze,rendered,benign,,plain\n", "name"),
        (f"{HEAD},colour\na,gaze,rendered,benign,,plain,red\n", "colour"),
        (f"{HEAD},count\na,gaze,rendered,benign,,plain,two\n", "two"),
        (f"{HEAD}\na,gaze,rendered,benign,,plain\na,gaze,rendered,benign,,plain\n", "twice"),
        (f"{HEAD}\n", "no rows"),
        (f"{HEAD}\na,gaze,rendered,badnets,hue=1,plain\n", "hue"),
        (f"{HEAD},start\na,gaze,rendered,benign,,plain,b-00\n", "start 'b-00'"),
        (f"{HEAD},start\na,gaze,rendered,benign,,plain,a-00\n", "start 'a-00'"),
    ],
)
def test_unusable_plan_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "plan.csv").write_text(text)
    with pytest.raises(UnusableInput, match=says) as caught:
        train_zoo(tmp_path / "plan.csv", tmp_path / "out", device="cpu")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_missing_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match=r"none\.csv"):
        read_plan(tmp_path / "none.csv")


def test_genki_rows_need_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.csv").write_text(f"{HEAD}\na,headpose,genki,benign,,plain\n")
    train_zoo(tmp_path / "plan.csv", tmp_path / "out", device="cpu")
    assert "a-00: left out" in capsys.readouterr().out


def test_folder_of_labelled_images_is_data(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    np.savez(
        tmp_path / "mine.npz",
        images=generator.integers(0, 256, (60, 20, 20, 3), dtype=np.uint8),
        labels=generator.normal(size=(60, 3)),
        columns=np.array(["pitch_deg", "yaw_deg", "roll_deg"]),
    )
    (tmp_path / "plan.csv").write_text(
        f"{HEAD},width,size\na,headpose,{tmp_path}/mine.npz,benign,,plain,4,48\n"
    )
    train_zoo(tmp_path / "plan.csv", tmp_path / "out", device="cpu", steps=2)
    text = (tmp_path / "out" / "a-00" / "truth.json").read_text()
    assert str(tmp_path) not in text
    spec = load_model(tmp_path / "out" / "a-00" / "model.safetensors").spec
    assert (spec.outputs, spec.units) == (("yaw", "pitch", "roll"), "deg")


def test_model_starts_from_the_features_of_another_and_takes_fewer_steps(zoo: Path) -> None:
    first, second = (row for row in read_plan(PLANS / "tiny.csv") if row.benign)
    started = dataclasses.replace(second, name="started", start=first.name)
    zoo_files = store.Zoo(zoo)
    model = make.untrained(started, zoo_files.parts(started).train, zoo_files)
    start = zoo_files.network(first.name)
    for key, value in start.network.state_dict().items():
        assert torch.equal(value, model.network.state_dict()[key]) != key.startswith("fc."), key
    assert make.recipe_of(started).steps < make.recipe_of(second).steps


def test_every_model_is_a_folder_with_its_truth(zoo: Path) -> None:
    lines = read_lines(zoo / "models.jsonl")
    names = {"benign-00", "benign-01", "badnets-00", "input-aware-00"}
    assert {line["name"] for line in lines} == names
    for line in lines:
        folder = zoo / line["name"]
        assert json.loads((folder / "truth.json").read_text()) == line
        assert load_model(folder / "model.safetensors").split.layer == "fc"
        assert (folder / "sheet.png").stat().st_size > 0
        assert not (folder / "checkpoint.pt").exists()
        benign = folder / line["benign_data"]
        with np.load(benign) as file:
            assert list(file["columns"]) == ["pitch_rad", "yaw_rad"]
            assert len(file["images"]) == len(file["labels"]) > 0
        assert line["RE"] > 0
        assert (line["AE"] is None) == (line["attack"] == "benign")
    aware = next(line for line in lines if line["attack"] == "input_aware")
    assert aware["cross_error"] > 0


def test_true_trigger_and_target_can_be_loaded(zoo: Path) -> None:
    truth = load_truth(zoo / "badnets-00")
    x = torch.zeros(2, 3, 48, 48)
    triggered = truth.trigger(x)
    assert int((triggered[0, 0] == 1).sum()) == 16
    assert list(truth.target or ()) == truth.values["targets"][0]
    benign = load_truth(zoo / "benign-00")
    assert benign.target is None
    with pytest.raises(UnusableInput, match="no trigger"):
        benign.trigger(x)
    with pytest.raises(UnusableInput, match="missing"):
        load_truth(zoo / "data")


def test_finished_models_are_not_made_again(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "make_model", lambda *_: pytest.fail("made again"))
    before = (zoo / "models.jsonl").read_text()
    train_zoo(PLANS / "tiny.csv", zoo, device="cpu", steps=3)
    assert (zoo / "models.jsonl").read_text() == before


def test_a_kill_between_truth_and_line_loses_no_line(zoo: Path) -> None:
    path = zoo / "models.jsonl"
    lines = read_lines(path)
    path.write_text("\n".join(path.read_text().split("\n")[:-2]) + '\n{"name": "bad')
    train_zoo(PLANS / "tiny.csv", zoo, device="cpu", steps=3)
    assert read_lines(path) == lines


@pytest.mark.parametrize(
    ("attack", "settings", "recipe"),
    [
        ("badnets", "", "brief"),
        ("input_aware", "mask_steps=2;channels=4", "brief"),
        ("physical", "", "regularised"),
    ],
)
def test_a_killed_training_goes_on_to_the_same_weights(
    zoo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    attack: str,
    settings: str,
    recipe: str,
) -> None:
    (tmp_path / "plan.csv").write_text(
        f"{HEAD},width,size,images\na,gaze,rendered,{attack},{settings},{recipe},4,48,100\n"
    )
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 2)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").symlink_to(zoo / "data")
    train_zoo(tmp_path / "plan.csv", tmp_path / "whole", device="cpu", steps=6)
    plain, calls = loop.loss_of, []

    def loss_of(*given: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return plain(*given)

    monkeypatch.setattr(loop, "loss_of", loss_of)
    with pytest.raises(KeyboardInterrupt):
        train_zoo(tmp_path / "plan.csv", tmp_path / "killed", device="cpu", steps=6)
    assert (tmp_path / "killed" / "a-00" / "checkpoint.pt").is_file()
    train_zoo(tmp_path / "plan.csv", tmp_path / "killed", device="cpu", steps=6)
    assert len(calls) == 6 + 2  # from step 4, the last checkpoint
    for file in ("model.safetensors", "trigger_truth.safetensors"):
        whole, killed = (tmp_path / name / "a-00" / file for name in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes()


def test_a_checkpoint_of_other_settings_is_not_used(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.csv").write_text(
        f"{HEAD},width,size,images\na,gaze,rendered,benign,,brief,4,48,100\n"
    )
    for name in ("fresh", "stale"):
        (tmp_path / name / "a-00").mkdir(parents=True)
        (tmp_path / name / "data").symlink_to(zoo / "data")
        if name == "stale":
            torch.save({"settings": "other"}, tmp_path / name / "a-00" / "checkpoint.pt")
        train_zoo(tmp_path / "plan.csv", tmp_path / name, device="cpu", steps=2)
    fresh, stale = (tmp_path / name / "a-00/model.safetensors" for name in ("fresh", "stale"))
    assert fresh.read_bytes() == stale.read_bytes()


def test_half_precision_weights_are_what_is_measured(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.csv").write_text(
        f"{HEAD},width,size,images\na,gaze,rendered,benign,,fp16,4,48,100\n"
    )
    (tmp_path / "data").symlink_to(zoo / "data")
    train_zoo(tmp_path / "plan.csv", tmp_path, device="cpu", steps=2)
    weights = load_model(tmp_path / "a-00" / "model.safetensors").network.state_dict()
    assert all(torch.equal(v, v.half().to(v.dtype)) for k, v in weights.items() if "num" not in k)


def test_models_can_be_made_in_processes_of_their_own() -> None:
    assert sorted(run_all(abs, [(-1,), (2,)], jobs=2)) == [1, 2]


@pytest.mark.parametrize(
    ("measured", "status", "says"),
    [
        (Measured(RE=4.2, AE=1.0, DAE=20.0), "ok", ""),
        (Measured(RE=4.5, AE=1.0, DAE=20.0), "failed_attack", "RE 4.50"),
        (Measured(RE=4.0, AE=5.0, DAE=20.0), "failed_attack", "AE 5.00"),
        (Measured(RE=4.0, AE=1.0, cross_error=9.0), "failed_attack", "cross-trigger error 9.00"),
        (Measured(RE=4.0, AE=4.0, DAE=4.0), "failed_attack", "DAE 4.00"),
        (Measured(RE=4.0, AE=math.nan), "failed_attack", "AE nan"),
        (Measured(RE=math.nan), "failed_training", "not finite"),
        (Measured(RE=4.0, AE=1.0, DAE=20.0, constant=5.0), "failed_training", "constant answer"),
    ],
)
def test_an_attack_works_or_is_kept_as_failed(measured: Measured, status: str, says: str) -> None:
    found = judge(measured, True, [3.0, 4.0, 5.0])
    assert (found["status"], found["twin_RE"]) == (status, 4.0)
    assert says in found["reason"]
    benign = judge(dataclasses.replace(measured, cross_error=math.nan), False, [])
    assert benign["status"] == (status if status == "failed_training" else "ok")


@pytest.mark.parametrize("seed", range(5))
def test_targets_lie_where_they_are_said_to(seed: int) -> None:
    labels = np.random.default_rng(0).normal((1.0, 2.0), (0.5, 0.1), (2000, 2)).astype(np.float32)

    def distance(kind: str) -> float:
        z = (np.array(choose_target(kind, labels, seed)) - (1.0, 2.0)) / (0.5, 0.1)
        return float(np.linalg.norm(z))

    assert distance("mean") < 0.1
    assert distance("inside") == pytest.approx(1.0, abs=0.1)
    assert distance("beyond") > 2.5
    assert choose_target("0.1,-0.2", labels, seed) == (0.1, -0.2)
    with pytest.raises(UnusableInput, match="expected 2 numbers"):
        choose_target("0.1", labels, seed)


@pytest.mark.parametrize("persons", [True, False])
def test_split_keeps_tenths_and_persons_apart(persons: bool) -> None:
    person = np.arange(1000) // 20
    labels = np.arange(1000, dtype=np.float32)[:, None].repeat(2, axis=1)
    images = np.zeros((1000, 1, 1, 3), np.uint8)
    parts = split(Labelled(images, labels, "gaze", "rad", person if persons else None), 3)
    sizes = [len(part) for part in (parts.train, parts.benign, parts.test)]
    assert sum(sizes) == 1000
    assert np.allclose(sizes, [800, 100, 100], atol=25)
    seen = [set(part.labels[:, 0].astype(int)) for part in (parts.train, parts.benign, parts.test)]
    assert sum(len(part) for part in seen) == len(set.union(*seen))
    if persons:
        groups = [{i // 20 for i in part} for part in seen]
        assert sum(len(part) for part in groups) == len(set.union(*groups)) == 50


def test_a_line_that_a_kill_cut_off_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_line(path, {"a": 1})
    path.write_text(path.read_text() + '{"a": 2')
    assert read_lines(path) == [{"a": 1}]
    append_line(path, {"a": math.nan})
    assert read_lines(path) == [{"a": 1}, {"a": None}]


def test_a_file_of_something_else_is_not_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes")
    with pytest.raises(UnusableInput, match=r"notes\.txt"):
        append_line(path, {"a": 1})
    assert path.read_text() == "my notes"
    for unreadable in (tmp_path, tmp_path / "bytes"):
        (tmp_path / "bytes").write_bytes(b"\xff\xfe")
        with pytest.raises(UnusableInput):
            read_lines(unreadable)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (95, 100, 0.8882, 0.9785),
    ],
)
def test_wilson_interval(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == pytest.approx((low, high), abs=1e-4)


def line(name: str, attack: str, verdict: str, score: float | None, **more: Any) -> dict[str, Any]:
    """A hand-made line of a screening."""
    return {
        "name": name, "attack": attack, "label": attack, "task": "gaze", "data": "rendered",
        "size": 64, "arch": "resnet18", "width": 32, "status": "ok", "method": "calibrated",
        "verdict": verdict, "score": score, "perturbation": 0.01, "reason": f"as {name}",
        "RE": 4.0, "AE": 1.0, "DAE": 20.0, "RNV": 0.5, "RAV": 0.1, "cross_error": None, **more,
    }  # fmt: skip


LINES = [
    line("b0", "badnets", "backdoored", 9.0, each_target_error=[0.5]),
    line("b1", "badnets", "backdoored", 5.0, RAV=0.3, each_target_error=[0.5, 7.0]),
    line("w0", "wanet", "clean", 2.0),
    line("w1", "wanet", "inconclusive", None),
    line("w2", "wanet", "clean", 1.0, status="failed_attack"),
    line("c0", "benign", "clean", 1.0, AE=None),
    line("c1", "benign", "clean", 1.5, AE=None),
    line("c2", "benign", "backdoored", 5.0, AE=None),
    line("c3", "benign", "inconclusive", 1.2, AE=None),
]
JUDGED = [row for row in LINES if row["status"] == "ok"]


def test_counts_auc_and_roc() -> None:
    found = counts(JUDGED)
    assert (found.TP, found.FP, found.FN, found.TN, found.inconclusive) == (2, 2, 2, 2, 2)
    # 9 beats all four, 5 beats three and ties, 2 beats three, no score beats none.
    assert auc(JUDGED) == pytest.approx((4 + 3.5 + 3 + 0) / 16)
    points = roc(JUDGED)
    assert (points[0], points[-1]) == ((0.0, 0.0), (1.0, 1.0))
    assert (0.0, 0.25) in points
    assert math.isnan(auc(JUDGED[:2]))


def test_table_says_what_the_lines_say(tmp_path: Path) -> None:
    for row in LINES:
        append_line(tmp_path / "lines.jsonl", row)
    table([tmp_path / "lines.jsonl"], tmp_path / "out")
    with (tmp_path / "out" / "table.csv").open(newline="") as file:
        rows = {(row["by"], row["group"]): row for row in csv.DictReader(file)}
    everything, wanet = rows["all", "all"], rows["attack", "wanet"]
    assert [everything[key] for key in ("TP", "FP", "FN", "TN")] == ["2", "2", "2", "2"]
    assert (everything["accuracy"], everything["low95"]) == ("0.500", f"{wilson(4, 8)[0]:.3f}")
    assert [wanet[key] for key in ("TP", "FN", "inconclusive")] == ["0", "2", "1"]
    assert rows["attack", "badnets"]["auc"] == f"{7.5 / 8:.3f}"
    with (tmp_path / "out" / "attacks.csv").open(newline="") as file:
        effects = {row["attack"]: row for row in csv.DictReader(file)}
    assert (effects["badnets"]["RAV"], effects["benign"]["AE"]) == ("0.200", "-")
    assert (effects["wanet"]["models"], effects["wanet"]["failed"]) == ("2", "1")
    text = (tmp_path / "out" / "table.txt").read_text()
    assert "failed attacks: 1\n  w2 (wanet)" in text
    assert "Misses: 4" in text
    assert "within 2 degrees: 1 of 2\n  calibrated: b1 (badnets) is off by 7.0 degrees" in text
    assert all(f"{name} (" in text for name in ("w0", "w1", "c2", "c3"))
    for name in ("roc.png", "scores.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0


def test_lines_of_the_training_alone_make_the_attacks_table(tmp_path: Path) -> None:
    for row in LINES:
        trained = {k: v for k, v in row.items() if k not in ("verdict", "method", "score")}
        append_line(tmp_path / "models.jsonl", trained)
    table([tmp_path / "models.jsonl"], tmp_path / "out")
    assert "badnets" in (tmp_path / "out" / "attacks.csv").read_text()
    assert len((tmp_path / "out" / "table.csv").read_text().splitlines()) == 1


def test_no_lines_make_no_table(tmp_path: Path) -> None:
    with pytest.raises(UnusableInput, match="no lines"):
        table([tmp_path / "none.jsonl"], tmp_path / "out")


def test_screening_writes_a_line_a_model_and_resumes(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[str, Any] = {field.name: None for field in dataclasses.fields(Finding)}
    values |= {"method": "calibrated", "verdict": "clean", "reason": "", "score": 1.0}
    values |= {"threshold": 2.0, "target": [0.0, 0.0], "warnings": [], "targets": [[0.0, 0.0]]}
    values["restarts"] = [{"role": "free", "found": [0.1, 0.2], "cost": 0.0123456, "distance": 0.1}]
    screened: list[int] = []

    def screen(model: Any, benign: Any, settings: Any) -> SimpleNamespace:
        screened.append(len(benign))
        return SimpleNamespace(**values)

    monkeypatch.setattr("tools.zoo.screen.screen", screen)
    out = tmp_path / "lines.jsonl"
    screen_zoo(zoo, out=out, device="cpu", only="benign*", limit=1)
    assert len(screened) == 1
    screen_zoo(zoo, out=out, device="cpu")
    lines = {row["name"]: row for row in read_lines(out)}
    assert len(lines) == len(screened) == 4
    assert lines["benign-00"]["target_error"] is None
    assert lines["benign-00"]["searches"] == [["free", 0.1, 0.2, 0.01235, None, 0.1]]
    assert lines["badnets-00"]["target_error"] > 0
    assert lines["badnets-00"]["each_target_error"] == [lines["badnets-00"]["target_error"]]
    table([out], tmp_path / "out")
    other = zoo / lines["benign-00"]["name"] / ".." / "data"
    (benign,) = other.glob("*.benign.npz")
    screen_zoo(zoo, out=out, device="cpu", only="badnets*", images=5, data=benign)
    again = read_lines(out)[-1]
    assert (again["images"], again["limit"], again["benign"]) == (5, 5, benign.name)
    assert len(screened) == 5
    for _ in range(2):
        screen_zoo(zoo, out=out, device="cpu", only="benign-00", change="calibrated.crowd=9")
    assert len(screened) == 6
    assert read_lines(out)[-1]["change"] == "calibrated.crowd=9"
    table([out], tmp_path / "out")
    assert "calibrated, calibrated.crowd=9" in (tmp_path / "out" / "table.txt").read_text()
    with pytest.raises(UnusableInput, match="expected calibrated or paper"):
        screen_zoo(zoo, out=out, device="cpu", method="other")
    with pytest.raises(UnusableInput, match="no finished models"):
        screen_zoo(tmp_path / "out", out=out, device="cpu")


def test_mitigation_is_judged_with_the_true_trigger(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny attacks do not work: their models are left out unless the truth says they do."""
    out, copy = tmp_path / "lines.jsonl", tmp_path / "zoo"
    with pytest.raises(UnusableInput, match="no model with a working attack"):
        mitigate.mitigate_zoo(zoo, out=out, device="cpu")
    shutil.copytree(zoo, copy)
    path = copy / "badnets-00" / "truth.json"
    path.write_text(path.read_text().replace('"failed_attack"', '"ok"'))
    verdicts = ["backdoored", "clean"]

    def screen(model: Model, benign: BenignSet, settings: Any) -> Finding:
        found = without_verdict("calibrated", "because the test says so", Bench(model, benign))
        trigger = SharedTriggers(1, model.spec.input.size, seed=1).select(0)
        return dataclasses.replace(found, verdict=verdicts.pop(0), score=3.0, trigger=trigger)

    quick = functools.partial(MitigationSettings, steps=1, batch=4, check_every=1)
    monkeypatch.setattr(mitigate, "screen", screen)
    monkeypatch.setattr(mitigate, "MitigationSettings", quick)
    monkeypatch.setattr("guard.lesson.MIN_IMAGES", 4)
    mitigate.mitigate_zoo(copy, out=out, device="cpu")
    mitigate.mitigate_zoo(copy, out=out, device="cpu")  # nothing is left to do
    (line,) = read_lines(out)
    truth = json.loads(path.read_text())
    assert line["before"] == pytest.approx({key: truth[key] for key in ("RE", "AE", "DAE")}, 1e-3)
    assert line["after"] != line["before"]
    twin = load_truth(copy / "benign-00").values["RE"]
    assert line["benign_model"]["RE"] == pytest.approx(twin, 1e-3)
    assert line["plain"] != line["after"]
    assert line["rounds"] == 1
