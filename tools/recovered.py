"""A file of recovered triggers beside a model: whose they are, and whether they do anything."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guard.bench import Bench
from guard.errors import UnusableInput
from guard.files import sha256
from guard.measure import measure
from guard.tasks import errors
from guard.trigger_file import load_triggers
from tools.job import Opened

MOST = 256  # images that a look at a trigger takes
FELT = 1.1  # times the benign error: from here on a trigger adds something
GATHERED = 0.5  # of the outputs' variance left: from here down they come together


@dataclass(frozen=True)
class Recovered:
    """The triggers of a file, on the model's device, and what is to be said of them."""

    triggers: list[nn.Module]
    facts: dict[str, Any]
    warnings: list[str]


def open_fitting(path: Path, opened: Opened) -> Recovered:
    """The triggers of a file, for a mitigation of this model.

    Those of another model are warned of: it may be the same one in another format or an earlier
    one. Raises UnusableInput where they do nothing to this one, or where there are none.
    """
    inputs = opened.inputs
    triggers = load_triggers(path, inputs.model)
    if any(isinstance(one, nn.Identity) for one in triggers):
        raise UnusableInput(f"{path}: holds no trigger; the search behind it found none")
    facts = trigger_facts(path)
    if facts["model_sha256"] == inputs.facts["sha256"]:
        return Recovered(triggers, facts, [])
    other = "was found on another model than" if facts["model_sha256"] else "may not be of"
    warning = f"{path}: by the SHA-256 in its JSON, it {other} {inputs.facts['path']}"
    if not any(felt(one, opened) for one in triggers):
        raise UnusableInput(f"{warning}, and it does nothing to this one: screen this one first")
    return Recovered(triggers, facts, [warning])


def trigger_facts(path: Path) -> dict[str, Any]:
    """What is stated of a file that `load_triggers` has opened."""
    model = json.loads(path.with_suffix(".json").read_text()).get("model_sha256")
    return {"path": str(path), "sha256": sha256(path), "model_sha256": model}


@torch.no_grad()
def felt(trigger: nn.Module, opened: Opened) -> bool:
    """Whether the model's error rises under a trigger, or its outputs come together."""
    benign, spec = opened.inputs.data.benign, opened.inputs.model.spec
    index = torch.linspace(0, len(benign) - 1, min(MOST, len(benign))).round().long()
    bench = Bench(opened.inputs.model, benign.part(index))
    found = measure(trigger, bench)
    before, under = (
        float(errors(spec, outputs, bench.benign.labels).mean())
        for outputs in (bench.outputs, found.outputs)
    )
    return under >= FELT * before or found.variance_ratio(bench) <= GATHERED
