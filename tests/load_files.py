"""A model file with its sidecar, and the one line with which a file is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from guard.errors import UnusableInput
from guard.load import load_model
from guard.networks import NETWORKS
from tests.conftest import spec_of

SPEC = spec_of(arch="resnet18")
SIDECAR: dict[str, Any] = {
    "arch": "resnet18",
    "width": 4,
    "task": "gaze",
    "outputs": ["pitch", "yaw"],
    "units": "rad",
    "input": {
        "size": [16, 16],
        "color": "rgb",
        "range": [0, 1],
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
    },
}


def network() -> nn.Module:
    torch.manual_seed(0)
    made = NETWORKS["resnet18"](2, 4).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
    return made


def refusal(path: Path, **keywords: Any) -> str:
    """The one line with which a model is refused; it names the file or its sidecar."""
    with pytest.raises(UnusableInput) as caught:
        load_model(path, **keywords)
    line = str(caught.value)
    assert "\n" not in line
    assert path.name in line or path.with_suffix(".json").name in line
    return line


def as_safetensors(state: dict[str, Tensor], path: Path) -> Path:
    save_file(state, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")
