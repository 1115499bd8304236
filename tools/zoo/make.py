"""One model of the zoo: train it, store it, measure it against the truth."""

import json
import platform
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guard.device import set_precision
from guard.errors import UnusableInput
from guard.files import digest, write_json
from guard.model import Model
from guard.networks import NETWORKS
from guard.spec import InputSpec, ModelSpec
from guard.store import save_model
from tools.attacks import make_attack
from tools.attacks.base import Attack, Poisoned, Scene, Trigger
from tools.datasets.data import Labelled
from tools.zoo.judge import judge
from tools.zoo.loop import Lesson, fold, train
from tools.zoo.measure import Measured, measure, measure_benign
from tools.zoo.plan import Row
from tools.zoo.recipes import RECIPES, STARTED, Recipe
from tools.zoo.sheet import write_sheet
from tools.zoo.store import Zoo, as_images
from tools.zoo.targets import choose_target
from tools.zoo.truth import settings_of, store_trigger

VERSIONS = {
    "python": platform.python_version(),
    "torch": torch.__version__,
    "numpy": np.__version__,
}


def make_model(
    row: Row, twins: list[Row], zoo: Zoo, device: torch.device, steps: int | None = None
) -> dict[str, Any]:
    """Make one model in its folder and give what its truth.json says.

    `twins` are finished plain benign models alike. truth.json is written last: a folder that
    has one is finished.
    """
    recipe = recipe_of(row, steps)
    parts, folder = zoo.parts(row), zoo.folder(row)
    attack = attack_of(row, parts.train)
    model = untrained(row, parts.train, zoo).to(device)
    trigger = None if attack is None else attack.trigger().to(device)
    lesson = _lesson(row, recipe, parts.train, model, attack, trigger, _twin(row, twins, zoo))
    seconds = train(lesson, folder / "checkpoint.pt")
    fold(model, lesson.labels)
    save_model(model, folder / "model.safetensors", half=recipe.half)
    if trigger is not None:
        store_trigger(folder, trigger.eval())
    measured = _measure(model, attack, trigger, parts.test, folder)
    twin_errors = [truth["RE"] for truth in map(zoo.truth, twins) if truth and truth["RE"]]
    truth = {
        **_facts(row, zoo, attack),
        "steps": recipe.steps,
        **asdict(measured),
        "error_unit": model.spec.error_unit,
        **judge(measured, attack is not None, twin_errors),
        "train_seconds": round(seconds, 1),
        "device": device.type,
        "versions": VERSIONS,
    }
    write_json(folder / "truth.json", truth)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return json.loads((folder / "truth.json").read_text())


def attack_of(row: Row, train_part: Labelled) -> Attack | None:
    """The attack of a row, its target chosen among or beyond the training labels."""
    if row.attack == "benign":
        return None
    settings: dict[str, Any] = {"seed": row.seed, "target": "inside", **row.settings}
    for number, key in enumerate(sorted(key for key in settings if key.startswith("target"))):
        # Another seed for a second target: it lies in another direction.
        seed = row.seed + 1000 * number
        settings[key] = choose_target(settings[key], train_part.labels, seed)
    return make_attack(row.attack, settings)


def _facts(row: Row, zoo: Zoo, attack: Attack | None) -> dict[str, Any]:
    """What the plan asked for, with the attack's settings written out."""
    facts = {key: value for key, value in asdict(row).items() if key != "count"}
    return {
        **facts,
        "data": Path(row.data).name,  # not the path: lines are published
        "label": row.label or row.attack,
        "benign_data": str(Path("..") / zoo.benign(row).relative_to(zoo.root)),
        "settings": {} if attack is None else settings_of(attack),
        "targets": [] if attack is None else [list(target) for target in attack.targets],
    }


def recipe_of(row: Row, steps: int | None = None) -> Recipe:
    """The row's recipe; `steps` replaces its number of steps, a start shortens it."""
    recipe = RECIPES[row.recipe]
    return replace(recipe, steps=steps or round(recipe.steps * (STARTED if row.start else 1)))


def untrained(row: Row, data: Labelled, zoo: Zoo) -> Model:
    """The row's model before its training: random weights, or the features it starts from."""
    torch.manual_seed(row.seed)
    network = NETWORKS[row.arch](len(data.outputs), row.width)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    size = InputSpec(size=(row.size, row.size))
    spec = ModelSpec(row.arch, row.task, data.outputs, data.units, size, row.width)
    model = Model(network, spec)
    if row.start:
        _take_features(model, zoo.network(row.start))
    return model


def _take_features(model: Model, start: Model) -> None:
    """F of `start` in place of the model's own; H stays, for other outputs need another."""
    own = [f"{start.split.layer}.{name}" for name in ("weight", "bias")]
    state = {key: value for key, value in start.network.state_dict().items() if key not in own}
    model.network.load_state_dict(state, strict=False)


def _lesson(
    row: Row,
    recipe: Recipe,
    data: Labelled,
    model: Model,
    attack: Attack | None,
    trigger: Trigger | None,
    twin: Callable[[], Model],
) -> Lesson:
    """What is to be learnt, poisoned where the attack poisons the data set."""
    device = next(model.parameters()).device
    images = as_images(data, device)[: recipe.images]
    labels = torch.from_numpy(data.labels).to(device)[: recipe.images]
    poisoned = Poisoned(images, torch.zeros(len(images), dtype=torch.bool, device=device))
    if attack is not None and trigger is not None:
        poisoned = attack.prepare(trigger, Scene(images, labels, twin))
    return Lesson(
        model=model,
        images=poisoned.images.permute(0, 2, 3, 1),
        labels=labels,
        chosen=poisoned.chosen,
        attack=attack,
        trigger=trigger,
        recipe=recipe,
        seed=row.seed,
        settings=digest(json.dumps([asdict(row), asdict(recipe)])),
    )


def _twin(row: Row, twins: list[Row], zoo: Zoo) -> Callable[[], Model]:
    def load() -> Model:
        if not twins:
            raise UnusableInput(
                f"{row.name}: needs a benign model alike (recipe plain) in the same plan"
            )
        return zoo.network(twins[0].name)

    return load


def _measure(
    model: Model, attack: Attack | None, trigger: Trigger | None, test: Labelled, folder: Path
) -> Measured:
    set_precision(tf32=False)
    device = next(model.parameters()).device
    x = as_images(test, device) / 255.0
    y = torch.from_numpy(test.labels).to(device)
    write_sheet(folder / "sheet.png", x, trigger, len(attack.targets) if attack else 0)
    if attack is None or trigger is None:
        return measure_benign(model, x, y)
    return measure(model, attack, trigger, x, y)
