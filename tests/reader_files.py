"""DATA of noise: a table with pictures beside it, or one .npz file."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import spec_of, write_folder

SPEC = spec_of("gaze", 8)
HEADER = "filename,pitch_rad,yaw_rad"


def pictures(count: int, side: int = 8, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, side, side, 3), np.uint8)


def folder_of(path: Path, count: int = 5, side: int = 8) -> Path:
    rows = [f"{i}.png,{0.1 * i},{-0.1 * i}" for i in range(count)]
    return write_folder(path / "data", HEADER, rows, pictures(count, side))


def npz_of(path: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "images": pictures(5),
        "labels": np.arange(10, dtype=np.float32).reshape(5, 2) / 10,
        "columns": np.array(["pitch_rad", "yaw_rad"]),
        **changes,
    }
    np.savez(path / "data.npz", **{k: v for k, v in content.items() if v is not None})
    return path / "data.npz"
