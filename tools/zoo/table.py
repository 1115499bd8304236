"""From a screening's lines to the paper's tables: text, CSV, and pictures of them."""

import csv
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from guard.errors import UnusableInput
from guard.files import whole_file, write_text
from tools.job import check_targets
from tools.zoo.figures import auc, backdoored, counts, wilson
from tools.zoo.lines import IMAGES, read_lines
from tools.zoo.mitigated import HEAD as MITIGATED_HEAD
from tools.zoo.mitigated import mitigation
from tools.zoo.pictures import draw_roc, draw_scores

GROUPS: dict[str, Callable[[dict[str, Any]], str]] = {
    "all": lambda line: "all",
    "attack": lambda line: str(line["label"]),
    "data": lambda line: f"{line['task']} on {Path(line['data']).name} {line['size']}",
    "architecture": lambda line: f"{line['arch']} width {line['width']}",
}
HEAD = ["method", "by", "group", "TP", "FP", "FN", "TN", "inconclusive"]
HEAD += ["accuracy", "low95", "high95", "auc"]
NEAR = 2.0  # degrees between the target found and the true one
EFFECTS = ["RE", "AE", "DAE", "RNV", "RAV", "cross_error"]
FILES = ("table.txt", "table.csv", "attacks.csv", "mitigation.csv", "roc.png", "scores.png")
KEYS = ("name", "attack", "label", "task", "data", "size", "arch", "width", "status", *EFFECTS)
MORE_KEYS = {  # of lines that have a verdict, or figures after a mitigation
    "verdict": ("method", "score", "reason"),
    "after": ("before", "accepted"),
}
EFFECTS_HEAD = ["attack", "data", "models", "failed", *EFFECTS]


def table(lines: Sequence[Path], out: Path, *, overwrite: bool = False) -> None:
    """Write table.txt, table.csv, attacks.csv, roc.png and scores.png to the folder `out`.

    `lines` are files of `drmguard zoo screen`, or of `drmguard zoo mitigate`, which make a table
    of mitigations (and mitigation.csv) too; the models.jsonl of a training will do where only
    the attacks' table is wanted. Models whose attack failed are left out and counted. For a group
    of attacks, the benign models on the same data are their negatives. Raises UnusableInput
    where there are no lines, a line is of something else, or one of FILES is there already and
    `overwrite` is not asked for.
    """
    check_targets([out / name for name in FILES], overwrite)
    read = [line for path in lines for line in complete_lines(path)]
    if not read:
        names = ", ".join(str(path) for path in lines)
        raise UnusableInput(f"{names}: no lines; run `drmguard zoo screen` first")
    judged = judgements(read)
    rows, effects = detection(judged), effectiveness(read)
    text = [
        _text(HEAD, rows),
        "Attacks (tables 1 and 10 of the paper), means over the models that work:",
        _text(EFFECTS_HEAD, effects),
        *_left_out(read),
        *_misses(judged),
        *_targets(judged),
    ]
    mitigated = mitigation(read)
    (out / "mitigation.csv").unlink(missing_ok=True)  # of other lines
    if mitigated:
        text += ["\nMitigation (tables 5 and 6):", _text(MITIGATED_HEAD, mitigated)]
        _write_csv(out / "mitigation.csv", MITIGATED_HEAD, mitigated)
    write_text(out / "table.txt", "\n".join(text) + "\n")
    _write_csv(out / "table.csv", HEAD, rows)
    _write_csv(out / "attacks.csv", EFFECTS_HEAD, effects)
    settings = _distinct(judged, setting)
    groups = {name: [line for line in judged if setting(line) == name] for name in settings}
    draw_roc(out / "roc.png", groups)
    draw_scores(out / "scores.png", groups)


def complete_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, each with what the tables need of it. Raises UnusableInput."""
    lines = read_lines(path)
    for number, line in enumerate(lines, 1):
        more = [key for mark, keys in MORE_KEYS.items() if mark in line for key in keys]
        for key in (*KEYS, *more):
            if key not in line:
                raise UnusableInput(
                    f"{path}: line {number} lacks {key}; `drmguard zoo screen` writes such lines"
                )
    return lines


def judgements(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The verdicts on working models: one for each model and setting, the last."""
    judged = [line for line in lines if line["status"] == "ok" and "verdict" in line]
    return list({(setting(line), model(line)): line for line in judged}.values())


def model(line: dict[str, Any]) -> tuple[Any, ...]:
    """What tells models apart: two plans give the same names, but no two models the same RE."""
    return line["data"], line["name"], line["RE"]


def detection(lines: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Rows under HEAD: counts, accuracy with its interval, and AUC, by method and group."""
    rows = []
    for method in _distinct(lines, setting):
        of_method = [line for line in lines if setting(line) == method]
        for by, group_of in GROUPS.items():
            for group in _distinct(of_method, group_of):
                members = [line for line in of_method if group_of(line) == group]
                rows.append([method, by, group, *_figures(members, of_method)])
    return rows


def setting(line: dict[str, Any]) -> str:
    """The method of a line with what was changed of it or of its benign set."""
    images = "" if line.get("limit", IMAGES) == IMAGES else f"{line['limit']} images"
    seed = f"seed {line['seed']}" if line.get("seed") else ""
    parts = [line["method"], line.get("change"), images, line.get("benign"), seed]
    return ", ".join(part for part in parts if part)


def _figures(members: list[dict[str, Any]], of_method: list[dict[str, Any]]) -> list[str]:
    found = counts(members)
    low, high = wilson(found.right, found.total)
    compared = members
    if all(backdoored(line) for line in members):
        data = {GROUPS["data"](line) for line in members}
        alike = [line for line in of_method if GROUPS["data"](line) in data]
        compared = members + [line for line in alike if not backdoored(line)]
    cells = [found.TP, found.FP, found.FN, found.TN, found.inconclusive]
    shares = [found.right / found.total, low, high, auc(compared)]
    return [str(cell) for cell in cells] + [f"{share:.3f}" for share in shares]


def effectiveness(lines: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Rows (attack, data, models, failed, means of EFFECTS over those that work)."""
    models = list({model(line): line for line in lines}.values())
    rows = []
    for attack in _distinct(models, GROUPS["attack"]):
        of_attack = [line for line in models if GROUPS["attack"](line) == attack]
        for data in _distinct(of_attack, GROUPS["data"]):
            group = [line for line in of_attack if GROUPS["data"](line) == data]
            works = [line for line in group if line["status"] == "ok"]
            means = [_mean([line[key] for line in works]) for key in EFFECTS]
            rows.append([attack, data, str(len(works)), str(len(group) - len(works)), *means])
    return rows


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.3f}" if known else "-"


def _left_out(lines: Sequence[dict[str, Any]]) -> list[str]:
    failed = {model(v): f"  {v['name']} ({v['label']})" for v in lines if v["status"] != "ok"}
    return [f"Left out, failed attacks: {len(failed)}", *sorted(failed.values())]


def _misses(lines: Sequence[dict[str, Any]]) -> list[str]:
    wrong = [
        line for line in lines if line["verdict"] != ("backdoored" if backdoored(line) else "clean")
    ]
    rows = [
        f"  {setting(line)}: {line['name']} ({line['label']}) is called {line['verdict']}: "
        f"{line['reason']}"
        for line in wrong
    ]
    return [f"Misses: {len(wrong)}", *rows]


def _targets(lines: Sequence[dict[str, Any]]) -> list[str]:
    """How near the detections came to the true targets, each of a multi-target attack's."""
    found = [line for line in lines if backdoored(line) and line["verdict"] == "backdoored"]
    near = [max(line.get("each_target_error") or [line["target_error"]]) for line in found]
    within = sum(error <= NEAR for error in near)
    far = [
        f"  {setting(line)}: {line['name']} ({line['label']}) is off by {error:.1f} degrees"
        for line, error in zip(found, near, strict=True)
        if not error <= NEAR
    ]
    return [f"Detections with every target within {NEAR:g} degrees: {within} of {len(near)}", *far]


def _distinct(lines: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], str]) -> list[str]:
    return sorted({key(line) for line in lines})


def _text(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    ]
    return "\n".join(lines) + "\n"


def _write_csv(path: Path, head: list[str], rows: list[list[str]]) -> None:
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
