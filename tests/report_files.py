"""What a report is made of, for its tests: a finding and what stands around it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guard.benign import BenignSet
from guard.finding import Curves, Finding
from guard.model import Model
from guard.spec import InputSpec, ModelSpec
from tools.report import Evidence

N, SIDE, NASTY = 40, 32, "<script>alert(1)</script>$x"
OUTPUTS = {"gaze": ("pitch", "yaw"), "headpose": ("yaw", "pitch", "roll"), "regression": ("a$e",)}
UNITS = {"gaze": "rad", "headpose": "deg", "regression": "years"}


class Patch(nn.Module):
    """A bright corner and a small shift: a trigger with a displacement field."""

    def forward(self, x: Tensor) -> Tensor:
        out = x.roll(1, dims=3)
        out[:, 0, -6:, -6:] = 1.0
        return out

    def flow(self) -> Tensor:
        return torch.ones(2, SIDE, SIDE)


def network(d: int, split: bool) -> nn.Module:
    body: list[nn.Module] = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    head = [nn.Flatten(), nn.Linear(8, d)] if split else [nn.Conv2d(8, d, 1), nn.Flatten()]
    return nn.Sequential(*body, *head)


def evidence(
    task: str = "gaze", verdict: str = "backdoored", split: bool = True, nan: bool = False
) -> Evidence:
    torch.manual_seed(0)
    names, d = OUTPUTS[task], len(OUTPUTS[task])
    unit = {"rad": 0.2, "deg": 12.0, "years": 15.0}[UNITS[task]]
    benign = unit * torch.randn(N, d)
    target = [0.3 * unit * (j + 1) for j in range(d)]
    triggered = torch.tensor(target) + 0.05 * unit * torch.randn(N, d)
    smooth = nn.functional.interpolate(torch.rand(N, 3, 4, 4), size=SIDE, mode="bilinear")
    spec = ModelSpec("resnet18", task, names, UNITS[task], InputSpec((SIDE, SIDE)))
    places = [[unit * (k - 3) / 2] * d for k in range(7)]
    searches: list[dict[str, Any]] = [
        {"role": "scan", "target": p, "cost": 0.01 + 0.002 * k, "variance_ratio": 0.004,
         "found": p, "converged": k != 3, "steps": 300, "baseline": 0.02}
        for k, p in enumerate(places)
    ]  # fmt: skip
    free = {"role": "free", "target": None, "cost": 0.004, "variance_ratio": 0.003, "found": target}
    steps = list(range(0, 300, 10))
    bad = math.nan if nan else 1.0
    finding = Finding(
        method="calibrated",
        verdict=verdict,
        reason="the cost became NaN" if nan else "the dip is deep",
        score=4.1 * bad,
        threshold=2.2,
        threshold_source="16 models",
        perturbation=0.004 * bad,
        output_variance_ratio=0.003 * bad,
        rav=0.02 if split else None,
        rnv=0.4 if split else None,
        target=[t * bad for t in target],
        mechanism="patch",
        trigger=Patch(),
        curves=Curves(
            steps,
            {"variance": [0.9**s * bad for s in steps], "signed": [s - 5.0 for s in steps]},
            [[t * (1 - 0.9**s) for t in target] for s in steps],
        ),
        restarts=[*searches, {**free, "converged": True, "steps": 300}],
        benign_outputs=benign,
        triggered_outputs=triggered * bad,
        benign_angles=90 + 5 * torch.randn(N, d) if split else None,
        triggered_angles=80 + 0.5 * torch.randn(N, d) if split else None,
        examples=torch.tensor([0, 3, 5, 7, 9, 11]),
        settings={"epsilon": 0.03},
        timings={"search": 12.5},
        warnings=[f"odd {NASTY}"],
    )
    images = (255 * smooth).to(torch.uint8)
    return Evidence(
        finding=finding,
        model=Model(network(d, split), spec),
        benign=BenignSet(images, benign.clone(), [f"{k}{NASTY}.png" for k in range(N)]),
        benign_error={
            "value": 3.5, "unit": spec.error_unit, "ci95": [3.1, 3.9], "mean_answer": 14.0
        },
        model_facts={
            "path": f"/models/{NASTY}.safetensors", "sha256": "ab" * 32, "bytes": 1,
            "format": "safetensors", "arch": "resnet18", "parameters": 12345,
            "split": {"layer": "4" if split else None, "features": 8, "reason": "no dense layer"},
        },
        data_facts={
            "path": "d", "n": N, "manifest_sha256": "cd" * 32, "roles": {"search": N},
            "missing": [f"{NASTY}.jpg"], "columns": ["c"],
        },
        config={"seed": 0, "out": Path("x")},
        environment={"torch": torch.__version__, "tf32": False},
        timings={"total": np.float32(20.5)},
        warnings=["few images"],
    )  # fmt: skip


def removal(**changes: Any) -> dict[str, Any]:
    """An accepted mitigation, as report.json holds it."""
    return {
        "accepted": True, "unit": "deg", "held_back": 120, "held_back_persons": 0,
        "unlearnt_triggers": 1, "benign_error_before": 4.0, "benign_error_after": 4.1,
        "trigger_error_before": 22.6, "trigger_error_after": 4.6, "rescreen": {"score": 1.1},
        "settings": {"rise": 1.07, "harm": 0.25, "spoilt": 0.5}, **changes
    }  # fmt: skip
