"""What MODEL and DATA mean on the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from guard.errors import UnusableInput
from guard.files import digest
from guard.load import load_model, model_facts
from guard.model import Model
from tools.datasets.reader import BenignData, read
from tools.sample import DATA, MODELS

SAMPLE = "sample:"
DEFAULT_MODEL = "sample:backdoored"


@dataclass
class Inputs:
    """A model and a benign set, on the device that the work runs on."""

    model: Model
    facts: dict[str, Any]  # of the model file
    data: BenignData


def model_path(model: str | None) -> Path:
    """The file of MODEL; "sample:NAME" names a built-in one, None the backdoored one."""
    name = model or DEFAULT_MODEL
    if not name.startswith(SAMPLE):
        return Path(name)
    sample = name.removeprefix(SAMPLE)
    if sample not in MODELS:
        raise UnusableInput(f"{name}: the samples are {', '.join(SAMPLE + key for key in MODELS)}")
    return MODELS[sample]


def open_model(path: Path, trust_code: bool = False) -> Model:
    """Read MODEL in any of the contract's formats. Raises UnusableInput."""
    if path.suffix != ".onnx":
        return load_model(path, trust_code=trust_code)
    from export.onnx_in import load_onnx  # onnx and onnxruntime load slowly

    return load_onnx(path)


def facts_of_file(model: Model, path: Path) -> dict[str, Any]:
    """What the report states of MODEL; its SHA-256 covers the files that hold weights of it too."""
    facts = model_facts(model, path)
    if path.suffix != ".onnx":
        return facts
    from export.graph_external import data_files

    files = data_files(path)
    if not files:
        return facts
    covered = digest(facts["sha256"], *(part for file in files.items() for part in file))
    return {**facts, "sha256": covered, "files": {path.name: facts["sha256"], **files}}


def data_path(data: str | None, model: str | None) -> Path:
    """The path of DATA; left out, a sample model's own images."""
    if data is not None:
        return Path(data)
    if model is None or model.startswith(SAMPLE):
        return DATA
    raise UnusableInput(f"{model}: DATA is missing: a folder with labels.csv, or an .npz file")


def open_inputs(
    model: str | None,
    data: str | None,
    *,
    device: torch.device,
    images: int,
    seed: int,
    trust_code: bool,
) -> Inputs:
    """Read MODEL and at most `images` images of DATA. Raises UnusableInput."""
    path = model_path(model)
    opened = open_model(path, trust_code)
    benign = read(data_path(data, model), opened.spec, limit=images, seed=seed)
    if benign.path == str(DATA):
        benign.path = SAMPLE + "faces"
    benign.benign = benign.benign.to(device)
    if path.suffix == ".onnx":
        from tools.supplied import check_on

        check_on(opened, path, benign.benign)
    facts = facts_of_file(opened, path)
    facts["path"] = model or DEFAULT_MODEL
    opened.to(device)
    opened.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Inputs(opened, facts, benign)
