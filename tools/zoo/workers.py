"""Several models at once, in processes of their own (a GPU holds many small models)."""

import multiprocessing
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def run_all(
    one: Callable[..., T], tasks: Sequence[tuple[Any, ...]], jobs: int
) -> Generator[T, None, None]:
    """What `one` gives for each task, as they finish; in this process where `jobs` is 1."""
    if jobs == 1:
        yield from (one(*task) for task in tasks)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with ProcessPoolExecutor(
        jobs, context, initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        try:
            for done in as_completed([pool.submit(one, *task) for task in tasks]):
                yield done.result()
        except BaseException:  # the pool would wait for tasks that nobody waits for any more
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise
