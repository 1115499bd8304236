"""How long a file takes: an indication for the machine that it was measured on."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.candidate import open_candidate
from export.groups import limit_images
from export.session import open_sessions
from export.subject import Subject

BATCHES = (1, 8)  # images in a run
WARM_UP = 5  # runs that are not counted
LEAST, MOST = 20, 200  # runs that are
SECONDS = 2.0  # of measuring, once LEAST runs are done


def latency(subject: Subject, path: Path) -> list[dict[str, Any]]:
    """p50 and p99 of a file in milliseconds, by provider, for one image and for eight.

    The shortest run stands beside them: on a busy machine it alone is the file's own.
    A run is one call of onnxruntime with its input in main memory. A batch that the file does
    not run in has no row. Raises UnusableInput where the file can't be opened.
    """
    candidate = open_candidate(path, subject)
    images, name = limit_images(subject.input.size).images, candidate.file.input
    rows = []
    for provider, session in open_sessions(candidate.file)[0].items():
        for batch in BATCHES:
            given = {name: candidate.feed(images[-batch:])}
            try:
                times = list(_timed(partial(session.run, None, given)))
            except Exception:  # onnxruntime's exceptions have no common base
                continue  # what does not run has no latency; the proof says why
            least, p50, p99 = (float(t) for t in np.percentile(times, [0, 50, 99]) * 1000)
            row = {"file": path.name, "precision": candidate.precision, "provider": provider}
            figures = {"batch": batch, "p50_ms": p50, "p99_ms": p99, "min_ms": least}
            runs = {"runs": len(times), "warm_up": WARM_UP, "threads": torch.get_num_threads()}
            rows.append({**row, **figures, **runs})
    return rows


def _timed(run: Callable[[], Any]) -> Iterator[float]:
    """Seconds of each run after the warm-up."""
    for _ in range(WARM_UP):
        run()
    began = time.perf_counter()
    for count in range(MOST):
        start = time.perf_counter()
        if count >= LEAST and start - began > SECONDS:
            return
        run()
        yield time.perf_counter() - start
