"""Where the work runs: the choice of a device, and of bf16 where it is faster."""

import contextlib

import pytest
import torch

from guard import device
from guard.device import search_autocast, too_far_for_bf16
from guard.errors import UnusableInput


@pytest.mark.parametrize(
    ("tiles", "products", "processor", "bf16"),
    [
        (True, True, "Intel(R) Xeon(R) Platinum 8488C", True),
        (False, True, "Intel(R) Xeon(R) Processor", False),
        (False, True, "AMD EPYC 9R14", True),
        (False, True, None, False),
        (False, False, "AMD EPYC 7R13", False),
    ],
)
def test_bf16_is_used_where_it_is_faster(
    tiles: bool,
    products: bool,
    processor: str | None,
    bf16: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: products, raising=False)
    monkeypatch.setattr(device, "_processor", lambda: processor)
    monkeypatch.setattr(device, "_onednn_multiplies_bf16", lambda: True)
    device.bf16_is_faster.cache_clear()
    used = device.search_autocast(torch.device("cpu"))
    assert isinstance(used, contextlib.nullcontext) != bf16
    stated = device.environment(torch.device("cpu"))["search_precision"]
    assert stated == ("bfloat16 autocast" if bf16 else "float32")
    device.bf16_is_faster.cache_clear()


@pytest.mark.parametrize("name", ["gpu", "cuda:x", ""])
def test_a_device_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UnusableInput, match="expected auto, cpu or cuda"):
        device.pick_device(name)


@pytest.mark.parametrize(
    ("middle", "spread", "far"), [(0.0, 0.2, False), (60.0, 8.0, False), (300.0, 3.0, True)]
)
def test_outputs_far_from_0_are_searched_in_float32(
    middle: float, spread: float, far: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guard.device.bf16_is_faster", lambda: True)
    draw = torch.Generator().manual_seed(0)
    outputs = torch.stack([torch.randn(50, generator=draw), torch.randn(50, generator=draw)], dim=1)
    exact = too_far_for_bf16(middle + spread * outputs)
    assert exact is far
    with search_autocast(torch.device("cpu"), exact=exact):
        found = torch.ones(2, 2) @ torch.ones(2, 2)
    assert found.dtype == (torch.float32 if far else torch.bfloat16)
