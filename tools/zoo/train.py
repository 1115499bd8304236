"""Make all models of a plan, several at once where asked, going on where an earlier run ended."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from guard.device import pick_device, set_precision
from tools.attacks import make_attack
from tools.zoo.lines import append_line, read_lines
from tools.zoo.make import make_model
from tools.zoo.plan import Row, read_plan
from tools.zoo.store import Zoo, data_key
from tools.zoo.workers import run_all


def train_zoo(
    plan: Path,
    out: Path,
    *,
    device: str = "auto",
    jobs: int = 1,
    steps: int | None = None,
    genki: Path | None = None,
) -> None:
    """Make the models of `plan` in the folder `out`, one line each in out/models.jsonl.

    `jobs` models are trained at once in processes of their own; `steps` replaces the recipes'
    number of steps; `genki` is the folder of the GENKI-4K crops, and without it the plan's rows
    with data "genki" are left out. Finished models are skipped, begun ones go on from their
    checkpoint. Raises UnusableInput for an unusable plan before any training.
    """
    rows = list(_with_paths(read_plan(plan), genki))
    for row in rows:
        check_settings(row)
    zoo, chosen = Zoo(out), pick_device(device)
    wanted = {data_key(row): row for row in rows if zoo.truth(row) is None}
    list(run_all(zoo.make_data, [(row,) for row in wanted.values()], jobs))
    _note_finished(rows, zoo)
    for stage in stages(rows):
        tasks = [(row, twins(row, rows), zoo, str(chosen), steps) for row in stage]
        for truth in run_all(_one, [task for task in tasks if zoo.truth(task[0]) is None], jobs):
            append_line(out / "models.jsonl", truth)
            print(_line(truth), flush=True)


def stages(rows: list[Row]) -> list[list[Row]]:
    """Plain benign models first: the others are compared with them or start from them."""
    plain = [row for row in rows if row.plain]
    first = [row for row in plain if not row.start]
    return [first, [row for row in plain if row.start], [row for row in rows if not row.plain]]


def twins(row: Row, rows: list[Row]) -> list[Row]:
    """The plain benign models of the same task, network, start and data."""
    if row.plain:
        return []
    return [other for other in rows if other.plain and _alike(other) == _alike(row)]


def _alike(row: Row) -> tuple[object, ...]:
    network = row.task, row.arch, row.width, row.size, row.start
    return *network, row.data, row.cabin, row.images, row.data_seed


def check_settings(row: Row) -> None:
    """Raise UnusableInput for settings that the attack lacks; targets are known only with data."""
    if not row.benign:
        targets = {key: (0.0,) for key in row.settings if key.startswith("target")}
        make_attack(row.attack, {"target": (0.0,), **row.settings, **targets})


def _with_paths(rows: list[Row], genki: Path | None) -> Iterator[Row]:
    for row in rows:
        if row.data != "genki":
            yield row
        elif genki is not None:
            yield replace(row, data=str(genki))
        else:
            print(f"{row.name}: left out, it needs the folder of the GENKI-4K crops", flush=True)


def _one(row: Row, alike: list[Row], zoo: Zoo, device: str, steps: int | None) -> dict[str, Any]:
    set_precision(tf32=True)
    torch.backends.cudnn.benchmark = True  # one image size a model: the search for kernels pays
    return make_model(row, alike, zoo, torch.device(device), steps)


def _note_finished(rows: list[Row], zoo: Zoo) -> None:
    """A run that was killed between a model's truth.json and its line: write the line now."""
    path = zoo.root / "models.jsonl"
    noted = {line["name"] for line in read_lines(path)}
    for truth in [zoo.truth(row) for row in rows]:
        if truth is not None and truth["name"] not in noted:
            append_line(path, truth)


def _line(truth: dict[str, Any]) -> str:
    figures = [
        f"{key} {truth[key]:.2f}"
        for key in ("RE", "AE", "DAE", "RNV", "RAV", "cross_error")
        if truth[key] is not None
    ]
    end = f"{truth['status']} {truth['reason']}".strip()
    return f"{truth['name']}: {', '.join(figures)}, {truth['train_seconds']:.0f} s, {end}"
