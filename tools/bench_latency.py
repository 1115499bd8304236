"""What the precisions cost: `python -m tools.bench_latency [--out=FILE] [--quick]`.

p50 and p99 of ResNet-18 as fp32, fp16 and int8 ONNX files, by width, image side and batch, on
every provider that runs here. Timings of a shared machine drift: the precisions take turns,
ROUNDS times, and what to quote is the ratio to fp32 of the same rounds. On a busy machine the
ratio of the shortest runs says more than that of the medians.
"""

import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fire
import torch

from export.latency import latency
from export.precision import export_files
from export.subject import model_subject
from guard.benign import BenignSet
from guard.device import environment, pick_device
from guard.files import write_json
from guard.model import Model
from guard.networks import NETWORKS
from guard.spec import InputSpec, ModelSpec

CASES = ((32, 64), (32, 112), (32, 224), (64, 64), (64, 112), (64, 224))  # width, image side
PRECISIONS = ("fp32", "fp16", "int8")
ROUNDS = 3
CALIBRATE = 32  # pictures of noise; the ranges do not change the speed
SEED = 0
RESULT = Path(__file__).parent / "results" / "bench_latency.json"


def measure_case(width: int, side: int) -> Iterator[dict[str, Any]]:
    """A row for each provider and batch: figures by precision, and fp32's p50 over theirs."""
    torch.manual_seed(SEED)
    spec = ModelSpec("resnet18", "gaze", ("pitch", "yaw"), "rad", InputSpec((side, side)), width)
    model = Model(NETWORKS["resnet18"](2, width), spec)
    pictures = torch.randint(0, 256, (CALIBRATE, 3, side, side), dtype=torch.uint8)
    noise = BenignSet(pictures, torch.zeros(CALIBRATE, 2))
    with tempfile.TemporaryDirectory() as folder:
        files = export_files(model, Path(folder) / "m.onnx", PRECISIONS, calibration=noise)
        subject = model_subject(model)
        rounds = [[row for file in files for row in latency(subject, file)] for _ in range(ROUNDS)]
    rows = [row for each in rounds for row in each]
    for provider, batch in dict.fromkeys((row["provider"], row["batch"]) for row in rows):
        same = [row for row in rows if (row["provider"], row["batch"]) == (provider, batch)]
        yield {
            **{"width": width, "side": side, "provider": provider, "batch": batch},
            "figures": {name: _figures(same, name) for name in PRECISIONS},
            "faster_than_fp32": {name: _ratio(same, name) for name in PRECISIONS[1:]},
        }


def _figures(rows: list[dict[str, Any]], precision: str) -> dict[str, Any]:
    """The median round of a precision, and all its rounds."""
    own = [row for row in rows if row["precision"] == precision]
    middle = sorted(own, key=lambda row: row["p50_ms"])[len(own) // 2]
    kept = {key: middle[key] for key in ("p50_ms", "p99_ms", "runs", "warm_up", "threads")}
    return {**kept, "min_ms": min(row["min_ms"] for row in own)}


def _ratio(rows: list[dict[str, Any]], precision: str) -> dict[str, float]:
    """How many times faster than fp32, by the medians of the rounds and by the shortest runs."""
    fp32, own = ([row for row in rows if row["precision"] == p] for p in ("fp32", precision))
    pairs = [(a["p50_ms"], b["p50_ms"]) for a, b in zip(fp32, own, strict=True)]
    least = [min(row["min_ms"] for row in part) for part in (fp32, own)]
    return {"p50": statistics.median(a / b for a, b in pairs), "min": least[0] / least[1]}


def bench(out: str = str(RESULT), quick: bool = False) -> None:
    """Measure all cases (`quick`: the first alone), print a table, write the file."""
    load = os.getloadavg()
    rows = []
    for width, side in CASES[:1] if quick else CASES:
        for row in measure_case(width, side):
            rows.append(row)
            print(_line(row), flush=True)
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": ["python", "-m", "tools.bench_latency", *sys.argv[1:]],
        "seed": SEED,
        "rounds": ROUNDS,
        "load_before": load,
        "load_after": os.getloadavg(),
        "environment": environment(pick_device("auto")),
    }
    write_json(Path(out), {**facts, "rows": rows})


def _line(row: dict[str, Any]) -> str:
    times = "  ".join(f"{name} {row['figures'][name]['p50_ms']:.2f} ms" for name in PRECISIONS)
    ratios = "  ".join(
        f"{name} {value['p50']:.2f}x ({value['min']:.2f}x)"
        for name, value in row["faster_than_fp32"].items()
    )
    where = f"width {row['width']}  {row['side']:>3} px  batch {row['batch']}  {row['provider']}"
    return f"{where}  p50: {times}  against fp32: {ratios}"


if __name__ == "__main__":
    fire.Fire(bench)
