"""The content of report.json."""

import importlib.metadata
import math
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guard.finding import Finding
from guard.tasks import errors
from tools.job import now
from tools.report import Evidence, words

SCHEMA_VERSION = "1.0"


def gather_values(evidence: Evidence) -> dict[str, Any]:
    """All keys of the contract, and what makes them usable as evidence later."""
    values = {
        "schema_version": SCHEMA_VERSION,
        "tool": tool(),
        "started": evidence.started,
        "ended": evidence.ended or now(),
        **_outcome(evidence),
        **_facts(evidence),
        "threat_model": words.THREAT_MODEL,
        "limits": words.limits(evidence),
    }
    for name in ("mitigation", "parity", "shipped", "not_done", "latency"):
        if getattr(evidence, name) is not None:
            values[name] = getattr(evidence, name)
    plain: dict[str, Any] = plain_json(values)
    return plain


def _outcome(evidence: Evidence) -> dict[str, Any]:
    finding, spec = evidence.finding, evidence.model.spec
    copied = (
        "method verdict reason score threshold threshold_source perturbation "
        "output_variance_ratio rav rnv mechanism"
    )
    return {
        **{name: getattr(finding, name) for name in copied.split()},
        "target_estimate": dict(zip(spec.outputs, finding.target, strict=True)),
        "further_targets": [
            {"target": dict(zip(spec.outputs, one.target, strict=True)), "score": one.score}
            for one in finding.further
        ],
        "forced": closeness(evidence),
        "benign_error": evidence.benign_error,
        "restarts": finding.restarts,
        "landscape": landscape(finding),
        "curves": asdict(finding.curves),
        "examples": _examples(evidence),
    }


def _facts(evidence: Evidence) -> dict[str, Any]:
    finding = evidence.finding
    late = [w for w in finding.warnings if w not in evidence.warnings]
    return {
        "model": {**evidence.model_facts, "spec": evidence.model.spec.to_json()},
        "data": evidence.data_facts,
        "config": evidence.config,
        "settings": finding.settings,
        "environment": evidence.environment,
        "timings": {**finding.timings, **evidence.timings},
        "warnings": [*evidence.warnings, *late],
    }


def closeness(evidence: Evidence) -> dict[str, Any]:
    """How near the answers lie to the target with the trigger and without, in the task's unit.

    `share`: the part of the pictures whose answer the trigger brings to less than half the
    median distance of the untouched answers.
    """
    finding, spec = evidence.finding, evidence.model.spec
    target = torch.tensor([finding.target], dtype=torch.float32)
    after = errors(spec, finding.triggered_outputs.detach().float().cpu(), target).numpy()
    before = errors(spec, finding.benign_outputs.detach().float().cpu(), target).numpy()
    return {
        "unit": spec.error_unit,
        "p95_triggered": float(np.quantile(after, 0.95)),
        "median_triggered": float(np.median(after)),
        "median_benign": float(np.median(before)),
        "share": float((after < 0.5 * np.median(before)).mean()),
    }


def place(restart: Mapping[str, Any]) -> list[float] | None:
    """Where a search stands in output space: where its answers ended, else its target."""
    point: list[float] | None = restart.get("found")
    return point if point is not None else restart.get("target")


def landscape(finding: Finding) -> dict[str, Any]:
    """Cost over output space: a point per search, with its distance from the mean answer."""
    outputs = finding.benign_outputs.detach().double().cpu()
    mean, sd = outputs.mean(dim=0), outputs.std(dim=0).clamp_min(1e-12)
    points = []
    for restart in finding.restarts:
        point = place(restart)
        if point is not None:
            z = (torch.tensor(point, dtype=torch.float64) - mean) / sd
            kept = {k: restart.get(k) for k in ("role", "cost", "baseline", "converged")}
            points.append({"place": point, "distance_sd": float(z.norm()), **kept})
    return {"benign_mean": mean.tolist(), "benign_sd": sd.tolist(), "points": points}


def _examples(evidence: Evidence) -> list[dict[str, Any]]:
    finding = evidence.finding
    return [
        {
            "name": evidence.benign.names[i],
            "label": evidence.benign.labels[i].tolist(),
            "benign": finding.benign_outputs[i].tolist(),
            "triggered": finding.triggered_outputs[i].tolist(),
        }
        for i in finding.examples.tolist()
    ]


def tool() -> dict[str, Any]:
    """Name, version and, in a clone of the repository, the commit of this tool."""
    try:
        version = importlib.metadata.version("drmguard")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    return {"name": "DRMGuard", "version": version, "commit": _commit()}


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # installed inside somebody else's repository
        return None
    command = ["git", "-C", str(root), "rev-parse", "--verify", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def plain_json(value: Any) -> Any:
    """The value in JSON's own types; what JSON can't say (NaN, infinity) becomes None."""
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): plain_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_json(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
