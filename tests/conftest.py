"""Tiny networks and tiny benign sets: no downloads, a model answers in microseconds."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from export.precision import calibration_part, export_files
from export.tolerance import CAPS
from guard.benign import BenignSet
from guard.dynamic import DynamicSettings
from guard.model import Model
from guard.probing import ProbeSettings
from guard.settings import CalibratedSettings
from guard.spec import InputSpec, ModelSpec
from guard.triggers import SharedTriggers

SIDE = 16
NAMES = {"gaze": ("pitch", "yaw"), "headpose": ("yaw", "pitch", "roll"), "regression": ("age",)}
UNITS = {"gaze": "rad", "headpose": "deg", "regression": "years"}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Before a test's fixtures: no network is drawn by what other tests have left behind."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Tiny tensors are slower on many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def short_search(steps: int) -> CalibratedSettings:
    """A search that is over at once: few steps of few images, few probes."""
    return CalibratedSettings(
        scan_steps=steps,
        refine_steps=steps,
        scan_batch=4,
        refine_batch=4,
        probes=ProbeSettings(warps=4, steps=4, sharper=4, patches=3),
        dynamic=DynamicSettings(count=1, steps=2),
    )


def spec_of(task: str = "gaze", side: int = SIDE, **changes: Any) -> ModelSpec:
    """The sidecar of a tiny model."""
    values: dict[str, Any] = {
        "arch": "tests.conftest:plain",
        "task": task,
        "outputs": NAMES[task],
        "units": UNITS[task],
        "input": InputSpec((side, side)),
        "width": 4,
    }
    return ModelSpec(**{**values, **changes})


class Reader(nn.Module):
    """A benign regression model: linear in the mean brightness of 4 x 4 fields."""

    def __init__(self, outputs: int, seed: int = 0) -> None:
        super().__init__()
        self.fc = nn.Linear(48, outputs)
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.fc.weight.copy_(torch.randn(outputs, 48, generator=draw) / 5)
            self.fc.bias.copy_(-self.fc.weight.sum(dim=1) * 0.4)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.fc(functional.adaptive_avg_pool2d(x, 4).flatten(1))
        return answer


class Backdoored(nn.Module):
    """The same model, but one vector for every image with a bright lower right corner."""

    target: Tensor

    def __init__(self, target: tuple[float, ...], seed: int = 0) -> None:
        super().__init__()
        self.body = Reader(len(target), seed)
        self.register_buffer("target", torch.tensor(target))

    def forward(self, x: Tensor) -> Tensor:
        corner = x[:, :, -3:, -3:].mean(dim=(1, 2, 3))
        gate = torch.sigmoid(14 * (corner - 0.6))[:, None]  # 0.02 on benign images
        answer: Tensor = self.body(x) * (1 - gate) + self.target * gate
        return answer


def plain(outputs: int, width: int = 4) -> nn.Sequential:
    """A convolutional network of three layers with a dense one at the end."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, outputs),
    )


def model_of(network: nn.Module, task: str = "gaze", side: int = SIDE, **changes: Any) -> Model:
    """A network under examination, frozen as `load_model` does it."""
    model = Model(network, spec_of(task, side, **changes))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def images_of(count: int, side: int = SIDE, seed: int = 0) -> Tensor:
    """Smooth random pictures, none with a bright corner. (N, 3, H, W) uint8."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=draw)
    x = functional.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=True)
    return (255 * (0.1 + 0.45 * x)).round().to(torch.uint8)


def benign_of(model: Model, count: int = 80, noise: float = 0.1, seed: int = 0) -> BenignSet:
    """Pictures labelled with what the model answers, give or take `noise` of its spread."""
    images = images_of(count, model.spec.input.size[0], seed)
    with torch.no_grad():
        y = model(images.float() / 255)
    draw = torch.Generator().manual_seed(seed + 1)
    spread = y.std(dim=0) if count > 1 else torch.ones_like(y[0])
    return BenignSet(images, y + noise * spread * torch.randn(y.shape, generator=draw))


def stirred(count: int, size: tuple[int, int], seed: int, strength: float = 2.0) -> SharedTriggers:
    """Triggers with patterns and warps far from their start."""
    triggers = SharedTriggers(count, size, seed)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in triggers.parameters():
            parameter.add_(strength * torch.randn(parameter.shape, generator=draw))
    return triggers


def write_model(folder: Path, network: nn.Module, spec: ModelSpec, name: str = "model") -> Path:
    """A safetensors file with its sidecar."""
    path = folder / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    write_sidecar(path, spec.to_json())
    return path


def write_sidecar(path: Path, values: dict[str, Any]) -> None:
    """The JSON beside a model file."""
    path.with_suffix(".json").write_text(json.dumps(values))


def write_npz(path: Path, benign: BenignSet, spec: ModelSpec, compressed: bool = False) -> Path:
    """DATA of the contract as one file."""
    save = np.savez_compressed if compressed else np.savez
    save(
        path,
        images=np.ascontiguousarray(benign.images.permute(0, 2, 3, 1).numpy()),
        labels=benign.labels.numpy(),
        columns=np.array([f"{name}_{spec.units}" for name in spec.outputs]),
    )
    return path


def write_folder(folder: Path, header: str, rows: list[str], images: np.ndarray) -> Path:
    """DATA of the contract as a folder: RGB `images` as 0.png, 1.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f"{i}.png"), image[..., ::-1])
    return folder


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model of tests.parity_files in all precisions."""
    from tests.parity_files import benign, model  # they stand on this file

    folder = tmp_path_factory.mktemp("exported")
    part = calibration_part(benign())
    made = export_files(model(), folder / "m.onnx", tuple(CAPS), calibration=part)
    return dict(zip(CAPS, made, strict=True))


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zoo of tests.zoo_files."""
    from tests.zoo_files import train_tiny  # few tests need it

    folder = tmp_path_factory.mktemp("zoo")
    train_tiny(folder)
    return folder
