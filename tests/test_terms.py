"""The terms of the paper, its generator, and the errors of the tasks, against plain float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from guard import terms
from guard.generator import (
    ATTENTIONS,
    Generator,
    attention_map,
    attention_maps,
    momentum_reverse_trigger,
)
from guard.tasks import errors, gaze_angle, gaze_vector, unit_factor
from tests.conftest import benign_of, images_of, model_of, plain, spec_of

SHAPES = {"n": st.integers(2, 30), "m": st.integers(2, 12), "d": st.integers(1, 4)}
SCALES = st.floats(-3, 3).map(lambda power: 10.0**power)
SEEDS = st.integers(0, 10_000)
quick = settings(max_examples=40, deadline=None)


def draws(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(size=shape) for shape in shapes]


def single(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).float()


def plain_angles(h: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Equation 4, loop by loop."""
    angles = np.empty((len(h), len(w)))
    for i, row in enumerate(h):
        for j, column in enumerate(w):
            cosine = row @ column / (np.sqrt(row @ row) * np.sqrt(column @ column))
            angles[i, j] = np.arccos(np.clip(cosine, -1, 1))
    return angles


@quick
@given(seed=SEEDS, scale=SCALES, n=SHAPES["n"], d=SHAPES["d"])
def test_variance_and_first_term_equal_numpy(seed: int, scale: float, n: int, d: int) -> None:
    y = scale * draws(seed, (n, d))[0]
    assert np.allclose(terms.variance(single(y)), y.var(axis=0), rtol=1e-4)
    wanted = float(np.mean([np.mean((column - column.mean()) ** 2) for column in y.T]))
    assert float(terms.output_variance(single(y))) == pytest.approx(wanted, rel=1e-4)


@quick
@given(seed=SEEDS, scale=SCALES, n=st.integers(1, 5), side=st.integers(1, 9))
def test_input_change_is_the_mean_over_pixels_and_images(
    seed: int, scale: float, n: int, side: int
) -> None:
    x, changed = (scale * part for part in draws(seed, (n, 3, side, side), (n, 3, side, side)))
    per_image = [np.abs(b - a).sum() / a.size for a, b in zip(x, changed, strict=True)]
    assert float(terms.input_change(single(changed), single(x))) == pytest.approx(
        np.mean(per_image), rel=1e-4
    )
    relative = float(terms.relative_change(single(changed), single(x), 0.5))
    assert relative == pytest.approx(2 * np.mean(per_image), rel=1e-4)


@quick
@given(seed=SEEDS, scale=SCALES, **SHAPES)
def test_angles_equal_numpy(seed: int, scale: float, n: int, m: int, d: int) -> None:
    h, w = draws(seed, (n, m), (d, m))
    found = terms.B(single(scale * h), single(w / scale))
    # A cosine is held 1e-6 away from 1, where arccos would lose its slope: 0.0015 rad.
    assert found.shape == (n, d)
    assert np.allclose(found, plain_angles(h, w), atol=3e-3)


@quick
@given(seed=SEEDS, scale=SCALES, n=st.integers(3, 30), m=SHAPES["m"], d=SHAPES["d"])
def test_r_f_equals_numpy(seed: int, scale: float, n: int, m: int, d: int) -> None:
    h, triggered, w = draws(seed, (n, m), (n, m), (d, m))
    benign, angles = plain_angles(h, w), plain_angles(triggered * scale, w)
    wanted = np.mean([a.var() / b.var() for a, b in zip(angles.T, benign.T, strict=True)])
    found = terms.r_f(single(angles), terms.variance(single(benign)))
    assert float(found) == pytest.approx(wanted, rel=1e-3)


@quick
@given(seed=SEEDS, scale=SCALES, n=st.integers(3, 30), m=SHAPES["m"])
def test_rnv_equals_numpy(seed: int, scale: float, n: int, m: int) -> None:
    h, triggered = draws(seed, (n, m), (n, m))
    lengths = [np.sqrt((part**2).sum(axis=1)) for part in (triggered * scale, h)]
    wanted = lengths[0].var() / lengths[1].var()
    found = float(terms.rnv(single(triggered * scale), single(h)))
    assert found == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(
    ("h", "angle"),
    [
        ([0.0, 0.0, 0.0], math.pi / 2),
        ([2.0, 0.0, 0.0], 0.0),
        ([-3.0, 0.0, 0.0], math.pi),
        ([1.0, 1e-9, 0.0], 0.0),
        ([0.0, 5.0, 0.0], math.pi / 2),
    ],
    ids=["zero", "parallel", "opposite", "nearly parallel", "orthogonal"],
)
def test_angles_and_their_gradients_are_finite_at_the_edges(h: list[float], angle: float) -> None:
    features = torch.tensor([h, [0.3, 0.2, 0.1]], requires_grad=True)
    w = torch.tensor([[1.0, 0.0, 0.0]])
    angles = terms.B(features, w)
    angles.sum().backward()
    assert float(angles[0].detach()) == pytest.approx(angle, abs=3e-3)
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()
    assert features.grad[1].abs().sum() > 0


def test_collapsed_features_leave_a_finite_gradient_of_r_f() -> None:
    features = torch.zeros(5, 3, requires_grad=True)
    terms.r_f(terms.B(features, torch.eye(3)), torch.ones(3)).backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


class Smooth(nn.Module):
    """A model with curvature, in float64 for finite differences."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(outputs)
        self.weight = torch.randn(3 * 64, outputs, generator=draw, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(0.3 * x.flatten(1) @ self.weight) + x.flatten(1).square() @ self.weight


@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
@pytest.mark.parametrize("d", [1, 2, 3])
def test_attention_equals_finite_differences(d: int, attention: str) -> None:
    network, above, step = Smooth(d), 1.25, 1e-6
    x = images_of(2, 8).double() / 255
    found = attention_map(network, x, attention, above)  # type: ignore[arg-type]
    slopes = torch.empty(2, d, 3 * 64, dtype=torch.float64)
    for k in range(3 * 64):
        shift = torch.zeros(3 * 64, dtype=torch.float64)
        shift[k] = step
        moved = shift.view(3, 8, 8)
        slopes[:, :, k] = (network(x + moved) - network(x - moved)) / (2 * step)
    total = slopes.sum(dim=1, keepdim=True).abs() if attention == "sum" else slopes.abs()
    wanted = total.sum(dim=1).view(2, 3, 8, 8).sum(dim=1, keepdim=True)
    wanted /= above * wanted.amax(dim=(2, 3), keepdim=True)
    assert found.shape == (2, 1, 8, 8)
    assert torch.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
@pytest.mark.parametrize("task", ["regression", "gaze", "headpose"])
def test_attention_lies_in_0_to_1_and_is_kept_as_computed(task: str, attention: str) -> None:
    torch.manual_seed(0)
    model = model_of(plain(len(spec_of(task).outputs)), task)
    benign = benign_of(model, 150)
    kept = attention_maps(model, benign, attention, 1.001).float()
    assert kept.shape == (150, 1, 16, 16)
    assert float(kept.min()) >= 0.0
    assert float(kept.max()) < 1.0
    again = attention_map(model, benign.x(slice(140, 150)), attention, 1.001)
    assert torch.allclose(kept[140:], again, atol=1e-3)


@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
def test_attention_without_any_slope_is_zero(attention: str) -> None:
    dense = nn.Linear(48, 2)
    flat = nn.Sequential(nn.Flatten(), dense)
    nn.init.zeros_(dense.weight)
    found = attention_map(flat, torch.rand(2, 3, 4, 4), attention, 1.001)  # type: ignore[arg-type]
    assert (found == 0).all()


@quick
@given(seed=SEEDS)
def test_reverse_trigger_lies_between_g_and_x(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    g, x = (torch.rand(2, 3, 5, 5, generator=draw) for _ in range(2))
    T = torch.rand(2, 1, 5, 5, generator=draw)
    mixed = momentum_reverse_trigger(g, x, T)
    assert (mixed >= torch.minimum(g, x) - 1e-6).all()
    assert (mixed <= torch.maximum(g, x) + 1e-6).all()
    assert torch.equal(momentum_reverse_trigger(g, x, torch.zeros_like(T)), g)
    assert torch.equal(momentum_reverse_trigger(g, x, torch.ones_like(T)), x)


@settings(max_examples=12, deadline=None)
@given(height=st.integers(8, 41), width=st.integers(8, 41), train=st.booleans(), seed=SEEDS)
def test_generator_keeps_any_size_and_answers_inside_0_to_1(
    height: int, width: int, train: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    generator = Generator((4, 4, 8)).train(train)
    with torch.no_grad():
        out = generator(torch.rand(2, 3, height, width))
    assert out.shape == (2, 3, height, width)
    assert float(out.min()) > 0.0
    assert float(out.max()) < 1.0


def test_generator_sends_gradients_to_all_its_parameters() -> None:
    torch.manual_seed(0)
    generator = Generator((4, 4, 8))
    generator(torch.rand(4, 3, 16, 16)).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in generator.parameters())


# --- tasks ---------------------------------------------------------------------------------------


@quick
@given(seed=SEEDS)
def test_gaze_angle_equals_arccos_of_unit_vectors(seed: int) -> None:
    random = np.random.default_rng(seed)
    pitch, yaw = random.uniform(-1.5, 1.5, (2, 6)), random.uniform(-3, 3, (2, 6))
    vectors = np.stack([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)])
    dots = (vectors[:, 0] * vectors[:, 1]).sum(axis=0)
    wanted = np.degrees(np.arccos(np.clip(dots, -1, 1)))
    first, second = (torch.from_numpy(np.stack([pitch[k], yaw[k]], 1)) for k in range(2))
    assert np.allclose(gaze_angle(first, second), wanted, atol=1e-5)
    assert torch.allclose(gaze_vector(first).norm(dim=1), torch.ones(6, dtype=torch.float64))


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-8, 1e-5, 1e-3])
def test_gaze_angles_near_zero_keep_their_digits(angle: float) -> None:
    first = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    second = first + torch.tensor([[angle, 0.0]], dtype=torch.float64)
    found = float(gaze_angle(first, second))
    assert found == pytest.approx(math.degrees(angle), rel=1e-3, abs=1e-14)


@pytest.mark.parametrize("units", ["rad", "deg"])
def test_gaze_error_does_not_depend_on_units_or_order_of_outputs(units: str) -> None:
    scale = 1.0 if units == "rad" else 180 / math.pi
    predicted, right = 0.3 * single(np.stack(draws(3, (9, 2), (9, 2))))
    wanted = gaze_angle(predicted, right)
    spec = spec_of("gaze", units=units)
    assert torch.allclose(errors(spec, scale * predicted, scale * right), wanted, atol=1e-4)
    turned = spec_of("gaze", units=units, outputs=("yaw", "pitch"))
    found = errors(turned, scale * predicted.flip(1), scale * right.flip(1))
    assert torch.allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("task", "units", "scale", "unit"),
    [
        ("headpose", "rad", 180 / math.pi, "deg"),
        ("headpose", "deg", 1.0, "deg"),
        ("regression", "years", 1.0, "years"),
        ("regression", "rad", 1.0, "rad"),
    ],
)
def test_other_errors_are_the_mean_absolute_difference(
    task: str, units: str, scale: float, unit: str
) -> None:
    spec = spec_of(task, units=units)
    y, right = draws(5, (7, len(spec.outputs)), (7, len(spec.outputs)))
    found = errors(spec, single(y), single(right))
    assert np.allclose(found, scale * np.abs(y - right).mean(axis=1), rtol=1e-5)
    assert spec.error_unit == unit


@pytest.mark.parametrize(
    ("source", "wanted", "factor"),
    [
        ("rad", "rad", 1.0),
        ("deg", "rad", math.pi / 180),
        ("rad", "deg", 180 / math.pi),
        ("years", "years", 1.0),
        ("years", "deg", None),
        ("deg", "months", None),
    ],
)
def test_units_convert_only_between_angles(source: str, wanted: str, factor: float | None) -> None:
    assert unit_factor(source, wanted) == pytest.approx(factor)
