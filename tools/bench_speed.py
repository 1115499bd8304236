"""What a verdict costs: `python -m tools.bench_speed [--out=FILE] [--quick]`.

For both methods in one run, by image size, width and number of images: steps per second, time to
verdict (the steps a method takes, times its measured step, plus what is done once), peak memory,
and the share of the machine's measured matrix-product rate that the search reaches. Timings of a
shared machine drift: the ratios between rows of one run are what to quote. Last, how many models
of the zoo an hour of training gives.
"""

import itertools
import multiprocessing
import resource
import statistics
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import fire
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from guard.benign import BenignSet
from guard.device import environment, pick_device, search_autocast, set_precision
from guard.engine import Engine, Silent, Stage
from guard.files import write_json
from guard.model import Model
from guard.networks import NETWORKS
from guard.screen import Settings, screen
from guard.spec import InputSpec, ModelSpec
from tools.bench_training import training_rows

WARM_UP, TIMED = 3, 8  # steps of each stage
CASES = (  # image side, width of ResNet-18, benign images; the first is the reference
    (64, 32, 800),
    (64, 16, 800),
    (64, 64, 800),
    (64, 32, 200),
    (64, 32, 5000),
    (112, 32, 800),
    (224, 32, 200),
)
RESULT = Path(__file__).parent / "results" / "bench_speed.json"


@dataclass(frozen=True)
class Case:
    """One row of the benchmark."""

    method: str
    size: int
    width: int
    images: int
    device: str


class StopWatch(Silent):
    """Notes when each step of each stage ends."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}

    def start(self, stage: str, steps: int, done: int) -> None:
        """A stage begins."""
        self._now = self.times.setdefault(stage, [])

    def update(self, done: int, terms: dict[str, float]) -> None:
        """A step has ended: its terms have been read, so the device has finished it."""
        self._now.append(time.perf_counter())

    def step_seconds(self, stage: str) -> float:
        """The median time of a step after the warm-up."""
        ends = self.times[stage][WARM_UP:]
        return statistics.median(b - a for a, b in itertools.pairwise(ends))


def steps_of(settings: Settings) -> dict[str, int]:
    """The stages of a method with the number of steps each takes."""
    if settings.method == "paper":
        return {"pretrain": settings.paper.pretrain_steps, "search": settings.paper.steps}
    s = settings.calibrated
    return {
        "warps": s.probes.steps,
        "sharper warps": s.probes.sharper,
        "scan": s.scan_steps,
        "refine": s.refine_steps,
        "per image": s.dynamic.steps,  # where no shared change is a verdict
    }


def with_steps(settings: Settings, steps: int) -> Settings:
    """The same settings with another number of steps in each stage, and no second search."""
    if settings.method == "paper":
        return replace(settings, paper=replace(settings.paper, pretrain_steps=steps, steps=steps))
    s = settings.calibrated
    probes, dynamic = replace(s.probes, steps=steps, sharper=steps), replace(s.dynamic, steps=steps)
    short = replace(s, probes=probes, dynamic=dynamic, scan_steps=steps, refine_steps=steps)
    return replace(settings, calibrated=replace(short, doubt=1.0, confirm=1.0))


def measure_case(case: Case) -> dict[str, Any]:
    """One row, measured in a process of its own so that its peak memory is its own."""
    device = pick_device(case.device)
    set_precision(False)
    model, benign = _inputs(case, device)
    settings = Settings(method=case.method)
    watch = StopWatch()
    short = with_steps(settings, WARM_UP + TIMED)
    began = time.perf_counter()
    screen(model, benign, short, Engine(device, 0, progress=watch, log_every=1))
    once = time.perf_counter() - began - sum(ends[-1] - ends[0] for ends in watch.times.values())
    full = steps_of(settings)
    seconds = {stage: watch.step_seconds(stage) for stage in full}
    flops = _flops_of_steps(model, benign, settings)
    total = sum(full[stage] * seconds[stage] for stage in full)
    work = sum(full[stage] * flops[stage] for stage in full)
    return {
        **asdict(case),
        "steps": full,
        "steps_per_second": {stage: 1 / value for stage, value in seconds.items()},
        "seconds_once": once,
        "seconds_to_verdict": once + total,
        "flops_a_step": flops,
        "flops_per_second": work / total,
        "peak_bytes": _peak_bytes(device),
    }


def _inputs(case: Case, device: torch.device) -> tuple[Model, BenignSet]:
    torch.manual_seed(0)
    spec = ModelSpec(
        "resnet18", "gaze", ("pitch", "yaw"), "rad", InputSpec((case.size, case.size)), case.width
    )
    model = Model(NETWORKS["resnet18"](2, case.width), spec).to(device)
    model.requires_grad_(False)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    shape = (case.images, 3, case.size, case.size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    return model, BenignSet(images, torch.randn(case.images, 2, device=device) * 0.2)


class CountingEngine(Engine):
    """Counts the floating-point operations of each stage's step, backward pass included."""

    def _step(self, stage: Stage, index: Tensor, at: float) -> dict[str, Tensor]:
        with FlopCounterMode(display=False) as counter:
            terms = super()._step(stage, index, at)
        self.flops[stage.name] = float(counter.get_total_flops())
        return terms

    flops: ClassVar[dict[str, float]] = {}


def _flops_of_steps(model: Model, benign: BenignSet, settings: Settings) -> dict[str, float]:
    """Floating-point operations of one step of each stage."""
    engine = CountingEngine(benign.device, 0)
    screen(model, benign, with_steps(settings, 1), engine)
    return engine.flops


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def matrix_rate(device: torch.device, side: int = 2048) -> float:
    """Floating-point operations a second of a matrix product in the search's precision."""
    a, b = torch.randn(side, side, device=device), torch.randn(side, side, device=device)
    rates = []
    with search_autocast(device):
        for _ in range(12):
            _wait(device)
            began = time.perf_counter()
            a @ b
            _wait(device)
            rates.append(2 * side**3 / (time.perf_counter() - began))
    return statistics.median(rates[2:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def bench(out: str = str(RESULT), device: str = "auto", quick: bool = False) -> None:
    """Measure all cases (`quick`: the reference case alone), print a table, write the file."""
    chosen = pick_device(device)
    rate = matrix_rate(chosen)
    rows = []
    for size, width, images in CASES[:1] if quick else CASES:
        for method in ("calibrated", "paper"):
            case = Case(method, size, width, images, str(chosen))
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row = pool.apply(measure_case, (case,))
            row["share_of_matrix_rate"] = row["flops_per_second"] / rate
            rows.append(row)
            print(_line(row), flush=True)
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        ratio = second["seconds_to_verdict"] / first["seconds_to_verdict"]
        print(f"{first['size']}px width {first['width']}: paper / calibrated = {ratio:.1f}")
    values = {
        "date": datetime.now(UTC).date().isoformat(),
        "environment": environment(chosen),
        "matrix_flops": rate,
        "rows": rows,
        "training": training_rows(str(chosen)),
    }
    write_json(Path(out), values)


def _line(row: dict[str, Any]) -> str:
    rates = ", ".join(f"{name} {value:.1f}/s" for name, value in row["steps_per_second"].items())
    return (
        f"{row['method']:>10}  {row['size']:>3} px  width {row['width']:>2}  "
        f"{row['images']:>5} images  {rates}  verdict {row['seconds_to_verdict']:.0f} s  "
        f"peak {row['peak_bytes'] / 2**30:.2f} GiB  "
        f"{100 * row['share_of_matrix_rate']:.0f} % of the matrix rate"
    )


if __name__ == "__main__":
    fire.Fire(bench)
