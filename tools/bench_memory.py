"""Does memory stay flat for large DATA? `python -m tools.bench_memory [--out=FILE]`.

Reads .npz files of growing length in processes of their own and notes each one's peak memory.
"""

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch

from guard.device import environment
from guard.files import write_json
from guard.spec import InputSpec, ModelSpec
from tools.datasets.reader import read

ROWS = (2_000, 10_000, 50_000)
SIDE = 64
SPEC = ModelSpec("resnet18", "gaze", ("pitch", "yaw"), "rad", InputSpec((SIDE, SIDE)))
RESULT = Path(__file__).parent / "results" / "bench_memory.json"


def write_data(path: Path, rows: int) -> None:
    """An .npz of random images with labels."""
    draw = np.random.default_rng(0)
    np.savez(
        path,
        images=draw.integers(0, 256, (rows, SIDE, SIDE, 3), np.uint8),
        labels=draw.normal(size=(rows, 2)),
        columns=np.array(["pitch_rad", "yaw_rad"]),
    )


def measure(path: Path) -> dict[str, Any]:
    """Read DATA as a screening does; seconds and the process's peak memory."""
    began = time.perf_counter()
    data = read(path, SPEC)
    return {
        "rows": data.rows,
        "used": len(data.benign),
        "seconds": time.perf_counter() - began,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def bench(out: str = str(RESULT)) -> None:
    """Measure, print a line a file, write the result."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in ROWS:
            path = Path(folder) / f"{count}.npz"
            _apart(write_data, path, count)
            result = _apart(measure, path)
            rows.append(result)
            path.unlink()
            print(
                f"{result['rows']:>6} rows, {result['used']} used: {result['seconds']:.1f} s, "
                f"peak {result['peak_bytes'] / 2**20:.0f} MiB",
                flush=True,
            )
    date = datetime.now(UTC).date().isoformat()
    facts = environment(torch.device("cpu"))
    write_json(Path(out), {"date": date, "environment": facts, "rows": rows})


def _apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call in a process of its own, whose peak memory is then its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


if __name__ == "__main__":
    fire.Fire(bench)
