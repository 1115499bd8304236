"""A network to export, and what its files compute."""

import functools
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from guard.model import Model
from tests.conftest import model_of, plain

ARCH = "tests.export_files:small"


def small(outputs: int) -> nn.Module:
    """The convolutional network of the tests, with weights and statistics of its own."""
    torch.manual_seed(3)
    network = plain(outputs)
    with torch.no_grad():
        network.get_buffer("1.running_mean").uniform_(-0.3, 0.3)
        network.get_buffer("1.running_var").uniform_(0.5, 2.0)
    return network


@functools.cache
def model() -> Model:
    """Not to be changed by a test."""
    return model_of(small(2))


def run(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answer: np.ndarray = session.run(["output"], {"input": x})[0]
    return answer


def answers(module: nn.Module, x: Tensor) -> np.ndarray:
    with torch.no_grad():
        answer: np.ndarray = module(x).numpy()
    return answer
