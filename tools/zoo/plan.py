"""The plan of a zoo: a CSV table with a row per group of models."""

import csv
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from guard.errors import UnusableInput
from guard.networks import NETWORKS
from tools.attacks import ATTACKS
from tools.faces import scene
from tools.zoo.changes import pairs
from tools.zoo.recipes import RECIPES


@dataclass(frozen=True)
class Row:
    """One group of models that differ by their seeds, or one model of it.

    Each field is a column of the table; the later ones may be left out.
    """

    name: str
    task: str  # "gaze" or "headpose"
    data: str  # "rendered", "genki", or the path of labelled data (the contract's DATA)
    arch: str = "resnet18"
    width: int = 32  # channels of the first stage
    size: int = 64  # image side in pixels
    attack: str = "benign"  # "benign" or a key of ATTACKS
    settings: dict[str, str] = field(default_factory=dict)  # of the attack: key=value;key=value
    recipe: str = "plain"  # a key of RECIPES
    count: int = 1  # models in this group
    seed: int = 0  # of the first model; the others count up
    cabin: str = "sedan"  # of rendered data
    images: int = 10_000  # rendered, before the split
    data_seed: int = 0  # of rendering and split
    label: str = ""  # the attack's name in tables; empty: `attack`
    start: str = ""  # a plain benign model of this plan whose features the training starts from

    @property
    def benign(self) -> bool:
        return self.attack == "benign"

    @property
    def plain(self) -> bool:
        """A benign model trained the usual way: others are compared with it or start from it."""
        return self.benign and self.recipe in ("plain", "trunk")

    def models(self) -> list["Row"]:
        """One row for each model of the group, with its own name and seed."""
        return [
            replace(self, name=f"{self.name}-{i:02d}", seed=self.seed + i, count=1)
            for i in range(self.count)
        ]


def read_plan(path: Path) -> list[Row]:
    """The models of a plan, one Row each. Raises UnusableInput with one line."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = list(csv.DictReader(line for line in file if not line.startswith("#")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnusableInput(f"{path}: the plan can't be read ({error})") from None
    models = [model for line in table for model in _parse(line, path).models()]
    names = [model.name for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not models:
        raise UnusableInput(f"{path}: {'no rows' if not models else f'{twice[0]} is there twice'}")
    for model in models:
        _check_start(model, models, path)
    return models


def _check_start(row: Row, rows: list[Row], path: Path) -> None:
    """Raise UnusableInput for a start that is no plain benign model with the same network."""
    fits = [r.name for r in rows if r.plain and (r.arch, r.width) == (row.arch, row.width)]
    if row.start and (row.start not in fits or row.start == row.name):
        raise UnusableInput(
            f"{path}: row {row.name!r}: start {row.start!r} is no plain benign model of this plan "
            "with the same arch and width"
        )


def _parse(line: dict[str, str], path: Path) -> Row:
    where = f"{path}: row {line.get('name')!r}"
    known = {f.name: f for f in fields(Row)}
    values: dict[str, object] = {}
    for key, text in line.items():
        if key not in known:
            raise UnusableInput(f"{where}: {key!r} is no column; known: {', '.join(known)}")
        if text:
            values[key] = _value(key, text.strip(), where)
    missing = [name for name in ("name", "task", "data") if name not in values]
    if missing:
        raise UnusableInput(f"{where}: the column {missing[0]} is empty")
    row = Row(**values)  # type: ignore[arg-type]
    _check(row, where)
    return row


def _value(key: str, text: str, where: str) -> object:
    if key == "settings":
        return pairs(text)
    if key not in ("width", "size", "count", "seed", "images", "data_seed"):
        return text
    try:
        return int(text)
    except ValueError:
        raise UnusableInput(f"{where}: {key} is {text!r}, not a whole number") from None


def _check(row: Row, where: str) -> None:
    for value, allowed, what in (
        (row.task, {"gaze", "headpose"}, "task"),
        (row.arch, set(NETWORKS), "arch"),
        (row.attack, {"benign", *ATTACKS}, "attack"),
        (row.recipe, set(RECIPES), "recipe"),
    ):
        if value not in allowed:
            raise UnusableInput(
                f"{where}: {what} {value!r} is none of {', '.join(sorted(allowed))}"
            )
    if row.data == "rendered":
        try:
            scene.check(row.images, row.data_seed, row.size, row.cabin)
        except ValueError as error:
            raise UnusableInput(f"{where}: {error}") from None
