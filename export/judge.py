"""One row of a proof: a file on one provider, in one batch size, over one group of images."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.candidate import Candidate
from export.graph_node import shown
from export.groups import BENIGN
from export.subject import Reference, Subject
from export.tolerance import Tolerance
from guard.tasks import errors

Row = dict[str, Any]  # one line of parity.json


@dataclass(frozen=True)
class Run:
    """What is run and judged for one row."""

    candidate: Candidate
    provider: str
    session: Any  # with the `run` of onnxruntime's
    batch: int
    group: str
    reference: Reference
    allowed: Tolerance


@dataclass(frozen=True)
class Worst:
    """The image on which a file came closest to its tolerance, or went furthest beyond it."""

    file: str
    group: str
    index: int  # in its group
    name: str
    image: Tensor  # (3, H, W) uint8 RGB
    ratio: float  # of its difference to the tolerance


def judge(run: Run, subject: Subject, count: int) -> tuple[Row, Worst]:
    """Run the first `count` images and compare."""
    images = run.reference.images
    count = min(count, len(images))
    ours = run.reference.answers[:count]
    try:
        theirs, failure = _answers(run, count, subject), ""
    except Exception as error:  # onnxruntime's exceptions have no common base
        theirs, failure = torch.full_like(ours, math.nan), shown(str(error))
    apart = subject.distance(theirs, ours)
    row = {
        "file": run.candidate.file.path.name,
        "precision": run.candidate.precision,
        "provider": run.provider,
        "batch": run.batch,
        "batch_fixed": run.candidate.file.batch is not None,  # by the file: it runs in no other
        "images": run.group,
        "n": count,
        **_differences(theirs, ours, subject.outputs),
        "max_task_error": float(apart.max()),
        "mean_task_error": float(apart.mean()),
        **_benign_errors(run, subject, theirs, ours),
        "tolerance": run.allowed.value,
        "tolerance_of": run.allowed.statistic,
        "tolerance_of_any": run.allowed.largest,
        "tolerance_reason": run.allowed.reason,
    }
    measured = row[f"{run.allowed.statistic}_task_error"]
    # A NaN is within no tolerance, whatever the comparison says of it.
    within = measured <= run.allowed.value and row["max_task_error"] <= run.allowed.largest
    row["passed"] = math.isfinite(row["max_abs"]) and within
    row["reason"] = failure or _reason(row, ours, measured, subject.unit)
    worst = int(torch.nan_to_num(apart, nan=math.inf).argmax())
    row["worst_image"] = images.names[worst]
    return row, _worst(run, row, worst, float(apart[worst]))


def _answers(run: Run, count: int, subject: Subject) -> Tensor:
    """The file's answers in whole batches; the last one is filled up from the first images."""
    file, batch = run.candidate.file, run.batch
    parts = []
    for part in (torch.arange(math.ceil(count / batch) * batch) % count).split(batch):
        x = run.candidate.feed(run.reference.images.images[part])
        y = run.session.run([file.output], {file.input: x})[0]
        if y.shape != (batch, *subject.shape):
            raise ValueError(f"answers {list(y.shape)}, expected {[batch, *subject.shape]}")
        parts.append(y)
    return torch.from_numpy(np.concatenate(parts)[:count]).float()


def _differences(theirs: Tensor, ours: Tensor, outputs: tuple[str, ...]) -> Row:
    """Largest and 99th-percentile difference, of all outputs and of each, in their unit."""
    by_output = (theirs - ours).abs().transpose(0, 1).flatten(1).numpy()
    p99 = np.quantile(by_output, 0.99, axis=1, method="higher")
    return {
        "max_abs": float(by_output.max()),
        "per_output": {
            name: {"max_abs": float(values.max()), "p99_abs": float(high)}
            for name, values, high in zip(outputs, by_output, p99, strict=True)
        },
    }


def _benign_errors(run: Run, subject: Subject, theirs: Tensor, ours: Tensor) -> dict[str, float]:
    """The mean error against the labels, of the model and of the file."""
    labels = run.reference.images.labels[: len(ours)]
    if run.group != BENIGN or labels.shape != ours.shape:
        return {}
    spec = subject.spec
    return {
        "benign_error_before": float(errors(spec, ours, labels).mean()),
        "benign_error_after": float(errors(spec, theirs, labels).mean()),
    }


def _reason(row: Row, ours: Tensor, measured: float, unit: str) -> str:
    if not bool(torch.isfinite(ours).all()):
        return "the torch model's own answers are not finite"
    if not math.isfinite(row["max_abs"]):
        return "some answers are not finite"
    statistic, single, most = row["tolerance_of"], row["max_task_error"], row["tolerance_of_any"]
    if measured <= row["tolerance"] and not single <= most:
        return f"difference on one image {single:.3g} {unit}, over {most:.3g}"
    relation = "within" if row["passed"] else "over"
    return f"{statistic} difference {measured:.3g} {unit}, {relation} {row['tolerance']:.3g}"


def _worst(run: Run, row: Row, index: int, apart: float) -> Worst:
    images = run.reference.images
    ratio = apart / max(run.allowed.largest, 1e-300) if math.isfinite(apart) else math.inf
    return Worst(row["file"], run.group, index, images.names[index], images.images[index], ratio)
