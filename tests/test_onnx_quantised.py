"""Quantised values and weights in ONNX files, against onnxruntime."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.onnx_files import by_hand, by_onnxruntime, node
from tests.onnx_rows import PICTURE, SCALE, f, network_of, of

SCALES_OF_CHANNELS = of(0.25, 0.03, 0.1)


def quantised(kind: Any, scale: np.ndarray, shifted: bool = True, **attributes: Any) -> Any:
    """QuantizeLinear, then DequantizeLinear, with zero points of `kind`."""
    zero = (3 + np.arange(scale.size)).reshape(scale.shape).astype(kind)
    names = "scale zero" if shifted else "scale"
    nodes = [
        node("QuantizeLinear", f"input {names}", "q", **attributes),
        node("DequantizeLinear", f"q {names}", "output", **attributes),
    ]
    weights = {"scale": scale, "zero": zero} if shifted else {"scale": scale}
    return by_hand(nodes, weights, takes=PICTURE, gives=None, opset=13)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize(
    ("scale", "attributes"),
    [(SCALE, {}), (of(0.25), {}), (SCALES_OF_CHANNELS, {}), (f(8) ** 2 + 1, {"axis": -1})],
    ids=["per tensor", "one value", "per channel", "last axis"],
)
def test_quantisation_is_that_of_onnxruntime(
    kind: Any, scale: np.ndarray, attributes: dict[str, Any]
) -> None:
    """Also halves, which go to the even neighbour, and both ends of the range."""
    proto = quantised(kind, scale, **attributes)
    x = np.random.default_rng(0).normal(size=PICTURE).astype(np.float32) * 20
    x[0, 0, 0] = 0.25 * np.array([0.5, 1.5, -0.5, -1.5, 2.5, 400, -400, 0])
    network = network_of(proto)
    ours = network(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, by_onnxruntime(proto, x), rtol=1e-6, atol=1e-6)
    assert {name for name, _ in network.named_buffers()} == {"scale", "zero"}  # go to a GPU


def test_without_a_zero_point_the_type_is_uint8() -> None:
    proto = quantised(np.uint8, SCALE, shifted=False)
    x = np.linspace(-30, 90, 432, dtype=np.float32).reshape(PICTURE)
    ours = network_of(proto)(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(ours, by_onnxruntime(proto, x))


def test_rounding_passes_gradients_through_but_not_beyond_the_range() -> None:
    x = torch.linspace(-20, 90, 432).reshape(PICTURE).requires_grad_()
    y = network_of(quantised(np.uint8, SCALE, shifted=False))(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    inside = ((4 * x).round() >= 0) & ((4 * x).round() <= 255)
    assert torch.equal(slope, inside.float())


def test_a_quantised_weight_becomes_a_float_that_can_be_tuned() -> None:
    weight, scale, zero = (
        np.random.default_rng(0).integers(-127, 127, (4, 3, 3, 3)).astype(np.int8),
        np.abs(f(4)) / 100,
        np.zeros(4, np.int8),
    )
    nodes = [
        node("DequantizeLinear", "weight scale zero", "w", axis=0),
        node("Conv", "input w", "output"),
    ]
    proto = by_hand(
        nodes, {"weight": weight, "scale": scale, "zero": zero}, takes=PICTURE, gives=None
    )
    network = network_of(proto)
    (parameter,) = network.parameters()
    assert torch.equal(parameter, torch.from_numpy(weight * scale[:, None, None, None]))
