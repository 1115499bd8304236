"""What only a CUDA device can show."""

from dataclasses import replace

import pytest
import torch

from guard.device import environment, pick_device, set_precision
from guard.lesson import PursuitSettings
from guard.mitigation import mitigate
from guard.screen import Settings, screen
from tests.conftest import Backdoored, Reader, benign_of, model_of
from tests.mitigation_files import BRIEF, Corner, Gated
from tests.screen_files import ENOUGH, SHORT

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("method", ["calibrated", "paper"])
def test_a_short_screening_runs_on_the_gpu(method: str) -> None:
    model = model_of(Reader(2))
    benign = benign_of(model, 60).to(torch.device("cuda"))
    settings = Settings(method, 0, SHORT.paper, SHORT.calibrated)
    finding = screen(model.to("cuda"), benign, settings)
    assert len(finding.triggered_outputs) == len(finding.benign_outputs)


@pytest.mark.parametrize("backdoored", [False, True])
def test_the_verdict_is_that_of_the_cpu(backdoored: bool) -> None:
    found = []
    for device in ("cpu", "cuda"):
        model = model_of(Backdoored((0.15, 0.05)) if backdoored else Reader(2))
        benign = benign_of(model, 80).to(torch.device(device))
        found.append(screen(model.to(device), benign, Settings(calibrated=ENOUGH)))
    assert [f.verdict for f in found] == ["backdoored" if backdoored else "clean"] * 2
    if backdoored:
        assert found[1].target == pytest.approx(found[0].target, abs=0.07)


@pytest.mark.parametrize("tf32", [False, True])
def test_the_environment_records_tf32_and_the_gpu(tf32: bool) -> None:
    device = pick_device("auto")
    set_precision(tf32)
    facts = environment(device)
    set_precision(False)
    assert facts["device"].startswith("cuda")
    assert facts["tf32"] == {"matmul": tf32, "cudnn": tf32}
    assert facts["gpu"]
    assert facts["search_precision"] == "bfloat16 autocast"


def test_a_mitigation_runs_on_the_gpu() -> None:
    model = model_of(Gated()).to("cuda")
    benign = benign_of(model_of(Gated()), 120, noise=0.6).to(torch.device("cuda"))
    settings = replace(BRIEF, pursuit=PursuitSettings(every=2, steps=3))
    result = mitigate(model, benign, [Corner()], settings)
    assert next(result.model.parameters()).is_cuda
    assert result.before.triggered > result.before.benign
