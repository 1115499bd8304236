"""Lines of a zoo, and the figures and tables made of them."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from guard.errors import UnusableInput
from tools import cli
from tools.zoo.figures import auc, counts, roc, wilson
from tools.zoo.lines import append_line, read_lines
from tools.zoo.table import FILES, table


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


def test_plans_have_models_of_one_name_and_files_lines_of_one_model(tmp_path: Path) -> None:
    first, second = line("b0", "badnets", "clean", 1.0), line("b0", "badnets", "clean", 1.0, RE=4.1)
    again = line("b0", "badnets", "backdoored", 9.0, each_target_error=[0.5])
    failed = [line("w0", "wanet", "clean", 1.0, status="failed_attack", RE=x) for x in (5.0, 5.1)]
    for row in (first, second, again, *failed):
        append_line(tmp_path / "lines.jsonl", row)
    table([tmp_path / "lines.jsonl"], tmp_path / "out")
    with (tmp_path / "out" / "table.csv").open(newline="") as file:
        counted = next(csv.DictReader(file))
    assert (counted["TP"], counted["FN"]) == ("1", "1")  # the last line of the first model
    with (tmp_path / "out" / "attacks.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["models"] == "2"
    text = (tmp_path / "out" / "table.txt").read_text()
    assert "failed attacks: 2\n  w0 (wanet)\n  w0 (wanet)\n" in text


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "line 1 lacks name"),
        ("[1]", "no JSON object"),
        ("no JSON", "no JSON"),
        (json.dumps({**LINES[0], "after": {}}), "line 1 lacks before"),
        (json.dumps({k: v for k, v in LINES[0].items() if k != "score"}), "line 1 lacks score"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_lines_of_something_else_are_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_text(f"{text}\n")
    with pytest.raises(UnusableInput, match=f"lines.jsonl: .*{said}"):
        table([tmp_path / "lines.jsonl"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_table_is_overwritten_only_when_told(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append_line(tmp_path / "lines.jsonl", LINES[0])
    (tmp_path / name).write_text("mine")
    words = ["zoo", "table", str(tmp_path / "lines.jsonl"), f"--out={tmp_path}"]
    assert cli.run(words) == 2
    assert f"{name}: exists; pass --overwrite" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"
    assert cli.run([*words, "--overwrite"]) == 0
    made = {path.name for path in tmp_path.iterdir()} - {"lines.jsonl"}
    assert made == set(FILES) - {"mitigation.csv"}  # nothing was mitigated
    assert (tmp_path / "table.txt").read_text() != "mine"
