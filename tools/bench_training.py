"""How many models of the zoo an hour gives; a part of `python -m tools.bench_speed`."""

import multiprocessing
import os
import statistics
import time
from typing import Any

import torch

from guard.device import pick_device
from guard.model import Model
from guard.networks import NETWORKS
from guard.spec import InputSpec, ModelSpec
from tools.zoo.loop import Lesson, batch_order, loss_of, make_optimizer
from tools.zoo.recipes import RECIPES

WARM_UP, TIMED = 3, 12  # steps
CASES = ((64, 32, 1), (64, 32, 2), (64, 64, 1))  # image side, width, models at once


def training_rows(device: str) -> list[dict[str, Any]]:
    """A row for each case: seconds a step, models an hour by the plain recipe."""
    rows = []
    for size, width, jobs in CASES:
        task = (size, width, jobs, device)
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            seconds = statistics.mean(pool.starmap(step_seconds, [task] * jobs, chunksize=1))
        steps = RECIPES["plain"].steps
        row: dict[str, Any] = {"size": size, "width": width, "at_once": jobs, "steps": steps}
        row |= {"seconds_a_step": seconds, "models_an_hour": 3600 * jobs / (steps * seconds)}
        rows.append(row)
        speed, hourly = 1 / seconds, row["models_an_hour"]
        case = f"  training   {size:>3} px  width {width:>2}  {jobs} at once"
        print(f"{case}  {speed:.1f} steps/s  {hourly:.0f} models an hour", flush=True)
    return rows


def step_seconds(size: int, width: int, jobs: int, device: str) -> float:
    """The median time of a training step of a plain benign ResNet-18."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    lesson = _lesson(size, width, pick_device(device))
    where = lesson.images.device
    order = batch_order(len(lesson.images), lesson.recipe, 0).to(where)
    optimizer, draw = make_optimizer(lesson), torch.Generator(where).manual_seed(0)
    lesson.model.train()
    times = []
    for step in range(WARM_UP + TIMED):
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss_of(lesson, order[step], draw).backward()
        optimizer.step()
        if where.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[WARM_UP:])


def _lesson(size: int, width: int, device: torch.device) -> Lesson:
    torch.manual_seed(0)
    spec = ModelSpec("resnet18", "gaze", ("pitch", "yaw"), "rad", InputSpec((size, size)), width)
    model = Model(NETWORKS["resnet18"](2, width), spec).to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randint(0, 256, (2000, size, size, 3), dtype=torch.uint8, device=device)
    return Lesson(
        model=model,
        images=images,
        labels=torch.randn(2000, 2, device=device),
        chosen=torch.zeros(2000, dtype=torch.bool, device=device),
        attack=None,
        trigger=None,
        recipe=RECIPES["plain"],
        seed=0,
        settings="",
    )
