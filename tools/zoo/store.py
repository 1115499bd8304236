"""Where a zoo keeps its data sets and models."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guard.files import whole_file
from guard.load import load_model
from guard.model import Model
from tools.datasets.data import Labelled, Parts, split
from tools.datasets.folder import folder
from tools.datasets.rendered import rendered
from tools.zoo.plan import Row
from tools.zoo.recipes import RECIPES
from tools.zoo.truth import read_truth

BENIGN_IMAGES = 1000  # at most so many of the benign part are given to a screening


@dataclass(frozen=True)
class Zoo:
    """A folder: data/<key>.npz (everything), data/<key>.benign.npz (DATA), a folder a model."""

    root: Path

    def folder(self, row: Row) -> Path:
        return self.root / row.name

    def data(self, row: Row) -> Path:
        return self.root / "data" / f"{data_key(row)}.npz"

    def benign(self, row: Row) -> Path:
        return self.root / "data" / f"{data_key(row)}.benign.npz"

    def truth(self, row: Row) -> dict[str, Any] | None:
        """What truth.json says of a finished model; None while it is not finished."""
        path = self.folder(row) / "truth.json"
        return read_truth(path) if path.is_file() else None

    def make_data(self, row: Row) -> None:
        """Render or decode a row's data once and write what a screening gets of it."""
        path, benign = self.data(row), self.benign(row)
        if not path.is_file():
            _write(path, _make(row), person=True)
        if not benign.is_file():
            part = self.parts(row).benign
            _write(benign, part.part(np.arange(min(len(part), BENIGN_IMAGES))), person=False)

    def parts(self, row: Row) -> Parts:
        """The data of a row from its file, split."""
        return _parts(self.data(row), row)

    def network(self, name: str) -> Model:
        """A finished model."""
        return load_model(self.root / name / "model.safetensors")


def data_key(row: Row) -> str:
    """The name of a row's data; rows with one key share the data."""
    if row.data != "rendered":
        return f"{row.task}-{Path(row.data).stem}-{row.size}-seed{row.data_seed}"
    lookalikes = RECIPES[row.recipe].lookalikes
    mark = f"-lookalikes{lookalikes:g}" if lookalikes else ""
    return f"{row.task}-{row.cabin}-{row.size}-{row.images}-seed{row.data_seed}{mark}"


def row_of(truth: dict[str, Any]) -> Row:
    """The row that a finished model's truth.json repeats, its data by name alone."""
    return Row(**{field.name: truth[field.name] for field in fields(Row) if field.name in truth})


def test_images(folder: Path, truth: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """The test part of a finished model's data: x [N x 3 x H x W] in [0, 1], y [N x d]."""
    row = row_of(truth)
    benign = (folder / truth["benign_data"]).resolve()
    test = _parts(benign.with_name(benign.name.replace(".benign.npz", ".npz")), row).test
    return as_images(test, torch.device("cpu")) / 255.0, torch.from_numpy(test.labels)


def _parts(path: Path, row: Row) -> Parts:
    with np.load(path) as file:
        person = file.get("person")
        data = Labelled(file["images"], file["labels"], row.task, str(file["units"]), person)
    return split(data, row.data_seed)


def _make(row: Row) -> Labelled:
    if row.data != "rendered":
        return folder(Path(row.data), row.task, size=row.size)
    return rendered(
        row.task,
        row.images,
        seed=row.data_seed,
        size=row.size,
        cabin=row.cabin,
        lookalikes=RECIPES[row.recipe].lookalikes,
    )


def _write(path: Path, data: Labelled, *, person: bool) -> None:
    arrays = {"images": data.images, "labels": data.labels, "columns": np.array(data.columns)}
    if person:
        arrays["units"] = np.array(data.units)
        if data.person is not None:
            arrays["person"] = data.person
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def as_images(data: Labelled, device: torch.device) -> torch.Tensor:
    """Images as (N, 3, H, W) uint8 on the device, channels last in memory."""
    return torch.from_numpy(data.images).to(device).permute(0, 3, 1, 2)
