"""Where the work runs and how exactly: device, TF32, autocast, and the record of it."""

import contextlib
import os
import platform
from functools import cache
from importlib import metadata
from typing import Any

import torch

from guard.errors import UnusableInput

PACKAGES = ("torch", "numpy", "opencv-python", "onnx", "onnxruntime-gpu", "safetensors")


def pick_device(name: str = "auto") -> torch.device:
    """ "auto" takes CUDA where there is one. Raises UnusableInput for CUDA without a GPU."""
    if name not in ("auto", "cpu", "cuda"):
        raise UnusableInput(f"--device={name}: expected auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UnusableInput("--device=cuda: no CUDA device is available; use --device=auto")
    use_cuda = name != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_cuda else "cpu")


def set_precision(tf32: bool = False) -> None:
    """Fix whether float32 products may be rounded to TF32 on a GPU, for matrices and cuDNN.

    Off by default: the figures that decide are float32. The search runs in bf16 anyway.
    """
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


OFFSET = 20.0  # over the spread; bf16 holds 8 bits, so beyond it outputs come in few steps


def too_far_for_bf16(outputs: torch.Tensor) -> bool:
    """Whether one of the outputs [N x d] lies so far from 0 that bf16 would round its spread off.

    Measured on one backdoored model of one output: 60 +- 8 is found as 0 +- 1 is (score 6.7), of
    300 +- 3 bf16 leaves 10 distinct answers of 80 and a score of 2.0 instead of 5.5.
    """
    spread = outputs.std(dim=0).clamp_min(1e-9)
    return bool((outputs.mean(dim=0).abs() > OFFSET * spread).any())


def search_autocast(
    device: torch.device, *, exact: bool = False
) -> contextlib.AbstractContextManager[Any]:
    """bf16 where the hardware multiplies it faster than float32; `exact`: nothing."""
    if exact:
        return contextlib.nullcontext()
    on_gpu = device.type == "cuda"
    if torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else bf16_is_faster():
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


@cache
def bf16_is_faster() -> bool:
    """On this CPU: with tile units (Intel AMX), or AVX-512 BF16 as AMD builds it.

    On AMD its dot products made a training step take 0.11 instead of 0.18 s. On an Intel Xeon that
    shows no tile units ResNet-18 takes 8 (width 64) to 28 % longer in bf16, and G 50 %.
    """
    tiles, products = (
        bool(getattr(torch.cpu, name, bool)())
        for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )
    units = tiles or (products and "AMD" in (_processor() or ""))
    return units and _onednn_multiplies_bf16()


def _onednn_multiplies_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def environment(device: torch.device) -> dict[str, Any]:
    """Machine, versions and precision flags, as the report records them."""
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "packages": {name: _version(name) for name in PACKAGES},
        "tf32": {
            "matmul": torch.backends.cuda.matmul.allow_tf32,
            "cudnn": torch.backends.cudnn.allow_tf32,
        },
        "search_precision": _search_precision(device),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["cuda"] = torch.version.cuda
        facts["cudnn"] = torch.backends.cudnn.version()
    return facts


def _search_precision(device: torch.device) -> str:
    bf16 = not isinstance(search_autocast(device), contextlib.nullcontext)
    return "bfloat16 autocast" if bf16 else "float32"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
