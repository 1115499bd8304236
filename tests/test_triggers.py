"""The shared triggers: range, shape, independence of one another; triggers as files."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from guard.dynamic import ImageTrigger
from guard.errors import UnusableInput
from guard.files import write_json
from guard.generator import Generator
from guard.paper import MomentumTrigger
from guard.settings import PaperSettings
from guard.store import save_weights
from guard.trigger_file import load_triggers, save_triggers
from guard.triggers import AMPLITUDE, WARP_LIMIT, WARP_UNIT, Enlarged, SharedTriggers
from tests.conftest import Reader, model_of, stirred

quick = settings(max_examples=25, deadline=None)


@quick
@given(
    count=st.integers(1, 4),
    batch=st.integers(1, 3),
    height=st.integers(8, 21),
    width=st.integers(8, 21),
    seed=st.integers(0, 999),
)
def test_triggered_images_keep_shape_and_range(
    count: int, batch: int, height: int, width: int, seed: int
) -> None:
    triggers = stirred(count, (height, width), seed, 4.0)
    x = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        changed = triggers(x)
    assert len(triggers) == count
    assert changed.shape == (count, batch, 3, height, width)
    assert float(changed.min()) >= -1e-6
    assert float(changed.max()) <= 1 + 1e-6
    assert triggers.flow().shape == (count, 2, height, width)


@quick
@given(
    points=st.integers(2, 16),
    height=st.integers(4, 40),
    width=st.integers(4, 40),
    mode=st.sampled_from(["bicubic", "bilinear"]),
    corners=st.booleans(),
)
def test_enlarging_is_torchs_interpolation(
    points: int, height: int, width: int, mode: str, corners: bool
) -> None:
    values = torch.rand(2, 3, points, points, generator=torch.Generator().manual_seed(points))
    size = (height, width)
    wanted = functional.interpolate(values, size=size, mode=mode, align_corners=corners)
    made = Enlarged(points, size, mode, corners=corners)(values)
    assert torch.allclose(made, wanted, atol=1e-5)


def test_a_trigger_moves_each_image_as_if_it_were_alone() -> None:
    """The images of a batch are moved as channels of one."""
    triggers = stirred(3, (16, 12), 7)
    x = torch.rand(4, 3, 16, 12, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        alone = torch.cat([triggers(one[None]) for one in x], dim=1)
        together = triggers(x.contiguous(memory_format=torch.channels_last))
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("k", [0, 1, 3])
def test_a_selected_trigger_does_what_it_did_among_the_others(k: int) -> None:
    triggers = stirred(4, (16, 12), 5)
    x = torch.rand(3, 3, 16, 12)
    one = triggers.select(k)
    with torch.no_grad():
        assert torch.allclose(one(x), triggers(x)[k], atol=1e-6)
        assert torch.allclose(one.flow(), triggers.flow()[k], atol=1e-6)


def test_a_selected_trigger_is_a_copy() -> None:
    triggers = stirred(2, (8, 8), 1)
    x = torch.rand(1, 3, 8, 8)
    one = triggers.select(1)
    before = one(x).detach()
    with torch.no_grad():
        triggers.pattern.add_(3.0)
    assert torch.equal(one(x), before)


def still(count: int, size: tuple[int, int]) -> SharedTriggers:
    """Triggers that change nothing yet."""
    triggers = SharedTriggers(count, size, 0)
    with torch.no_grad():
        triggers.pattern.zero_()
    return triggers


def test_no_flow_and_no_pattern_change_nothing() -> None:
    x = torch.rand(3, 3, 16, 20)
    assert torch.allclose(still(2, (16, 20))(x), x.expand(2, *x.shape), atol=1e-5)


def test_an_even_pattern_is_added_up_to_the_limits_of_an_image() -> None:
    triggers = still(2, (8, 8))
    with torch.no_grad():
        triggers.pattern[0] = 30.0
        triggers.pattern[1] = -0.1
    x = torch.rand(2, 3, 8, 8)
    changed = triggers(x)
    assert torch.allclose(changed[0], (x + AMPLITUDE).clamp(0, 1), atol=1e-6)
    less = AMPLITUDE * torch.tanh(torch.tensor(0.1))
    assert torch.allclose(changed[1], (x - less).clamp(0, 1), atol=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (32, 48), (128, 128)])
def test_a_pattern_has_the_same_form_at_any_size(size: tuple[int, int]) -> None:
    """Fine noise is out of reach: neighbouring pixels differ by less the larger the image is."""
    added = stirred(1, size, 3).added()[0]
    coarse = functional.adaptive_avg_pool2d(added[None], 16)[0]
    again = functional.interpolate(coarse[None], size=size, mode="bicubic")[0]
    assert (added - again).abs().mean() < 0.5 * added.abs().mean()


def test_triggers_like_others_have_their_form() -> None:
    like = SharedTriggers(1, (16, 12), 4, grid=5, coarse=7).like(3)
    assert like.pattern.shape == (3, 3, 7, 7)
    assert like.nodes.shape == (3, 2, 5, 5)
    assert like.size == (16, 12)


def test_triggers_drawn_on_a_coarser_grid_keep_their_warps_and_their_mean_pattern() -> None:
    fine = stirred(2, (16, 12), 4)
    drawn = fine.drawn_on(4)
    assert drawn.pattern.shape == (2, 3, 4, 4)
    assert torch.equal(drawn.nodes, fine.nodes)
    mean = functional.adaptive_avg_pool2d(fine.pattern.tanh(), 4)
    assert torch.allclose(drawn.pattern.tanh(), mean, atol=2e-3)
    again = fine.drawn_on(fine.pattern.shape[-1])
    assert torch.allclose(again.pattern.tanh(), fine.pattern.tanh(), atol=2e-3)


def test_flow_is_the_displacement_in_pixels() -> None:
    """An even flow of two columns shows each pixel's neighbour two columns to the right."""
    triggers = still(1, (9, 41))
    share = 2.0 / 20 / WARP_LIMIT  # half the width is 20 pixels
    with torch.no_grad():
        triggers.nodes[:, 0] = WARP_LIMIT / WARP_UNIT * math.atanh(share)
    flow = triggers.flow()[0].detach()
    assert torch.allclose(flow[0], torch.full((9, 41), 2.0))
    assert (flow[1] == 0).all()
    x = torch.rand(1, 3, 9, 41)
    assert torch.allclose(triggers(x)[0, ..., :-2], x[..., 2:], atol=1e-4)


def test_no_warp_moves_a_pixel_beyond_the_limit() -> None:
    triggers = still(1, (21, 41))
    with torch.no_grad():
        triggers.nodes.copy_(1e3 * torch.randn(triggers.nodes.shape))
    across, down = triggers.flow()[0].detach().abs().amax(dim=(1, 2)).tolist()
    assert across == pytest.approx(WARP_LIMIT * 20, rel=1e-3)
    assert down == pytest.approx(WARP_LIMIT * 10, rel=1e-3)


def test_gradients_reach_each_trigger_from_its_own_outputs_only() -> None:
    triggers = stirred(3, (8, 8), 2)
    triggers(torch.rand(2, 3, 8, 8))[1].square().sum().backward()
    for parameter in triggers.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        assert float(parameter.grad[1].abs().sum()) > 0
        assert float(parameter.grad[[0, 2]].abs().sum()) == 0


def test_the_seed_decides_the_start() -> None:
    first, again, other = (SharedTriggers(2, (8, 8), seed) for seed in (3, 3, 4))
    assert torch.equal(first.pattern, again.pattern)
    assert not torch.equal(first.pattern, other.pattern)


# --- files ---------------------------------------------------------------------------------------


def generated(momentum: bool, attention: str = "each") -> nn.Module:
    torch.manual_seed(0)
    chosen = PaperSettings(momentum=momentum, attention=attention)
    return MomentumTrigger(Generator(), model_of(Reader(2)), chosen).eval()


@pytest.mark.parametrize(
    "trigger",
    [
        stirred(3, (16, 16), 4).select(2),
        SharedTriggers(1, (16, 16), 4, grid=5, coarse=9).select(0),
        generated(True),
        generated(True, "sum"),
        generated(False),
        ImageTrigger(),
        nn.Identity(),
    ],
    ids=["shared", "other grids", "generator", "sum of outputs", "no momentum", "image", "none"],
)
def test_a_stored_trigger_does_what_it_did(trigger: nn.Module, tmp_path: Path) -> None:
    path, x = tmp_path / "trigger.safetensors", torch.rand(2, 3, 16, 16)
    save_triggers([trigger], path)
    (again,) = load_triggers(path, model_of(Reader(2)))
    assert torch.allclose(again(x), trigger(x), atol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["trigger.json", "trigger.safetensors"]


def test_a_file_holds_all_that_was_found_in_its_order(tmp_path: Path) -> None:
    path, x = tmp_path / "trigger.safetensors", torch.rand(2, 3, 16, 16)
    triggers = [stirred(3, (16, 16), seed=4).select(2), ImageTrigger(), generated(True)]
    triggers.append(SharedTriggers(1, (16, 16), seed=5, grid=5, coarse=9).select(0))
    save_triggers(triggers, path)
    again = load_triggers(path, model_of(Reader(2)))
    assert len(again) == len(triggers)
    for one, other in zip(again, triggers, strict=True):
        assert torch.allclose(one(x), other(x), atol=1e-6)


def test_a_trigger_for_images_of_another_size_is_refused(tmp_path: Path) -> None:
    save_triggers([stirred(1, (16, 12), 4).select(0)], tmp_path / "trigger.safetensors")
    with pytest.raises(UnusableInput, match="another size than 16 x 16"):
        load_triggers(tmp_path / "trigger.safetensors", model_of(Reader(2)))


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize(
    "content", [None, b"", b"junk", b"[]", b"{}", b'{"triggers": [{"kind": "shared"}]}', b"3"]
)
def test_an_unusable_trigger_file_is_refused_in_one_line(
    tmp_path: Path, suffix: str, content: bytes | None
) -> None:
    path = tmp_path / "trigger.safetensors"
    save_triggers([SharedTriggers(1, (8, 8), 0).select(0)], path)
    if content is None:
        path.with_suffix(suffix).unlink()
    else:
        path.with_suffix(suffix).write_bytes(content)
    with pytest.raises(UnusableInput, match="trigger") as caught:
        load_triggers(path, model_of(Reader(2)))
    assert "\n" not in str(caught.value)


def filled(trigger: nn.Module, name: str, value: float) -> nn.Module:
    with torch.no_grad():
        trigger.get_parameter(name).fill_(value)
    return trigger


@pytest.mark.parametrize(
    ("triggers", "said"),
    [
        ([], "empty"),
        ([filled(stirred(1, (16, 16), 4).select(0), "one.pattern", math.nan)], "NaN or infinite"),
        ([filled(stirred(1, (16, 16), 4).select(0), "one.nodes", math.inf)], "NaN or infinite"),
        ([nn.Identity(), filled(generated(False), "generator.last.bias", math.nan)], "NaN"),
        ([filled(generated(False), "generator.down.0.0.weight", 3e38)], "NaN or infinite"),
        ([generated(True, "none such")], "none such"),
    ],
    ids=["none", "pattern", "warp", "the second", "too large", "settings"],
)
def test_triggers_that_do_not_work_are_refused(
    triggers: list[nn.Module], said: str, tmp_path: Path
) -> None:
    save_triggers(triggers, tmp_path / "trigger.safetensors")
    with pytest.raises(UnusableInput, match=said):
        load_triggers(tmp_path / "trigger.safetensors", model_of(Reader(2)))


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"triggers": [{"kind": "shared", "size": [16, 16], "grid": 0, "coarse": 0}]}, "grids of"),
        ({"triggers": [{"kind": "shared", "size": [16, 16], "grid": 8, "coarse": 10**6}]}, "grids"),
        ({"triggers": [{"kind": 5}]}, "not a trigger"),
        ({"kind": "shared", "size": [16, 16], "grid": 8, "coarse": 16}, "screen the model again"),
    ],
    ids=["no grid", "more than memory holds", "unknown kind", "an earlier version"],
)
def test_a_description_that_can_not_be_is_refused(
    about: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """The weights fit what is described."""
    path = tmp_path / "trigger.safetensors"
    nothing = {"0.one.pattern": torch.zeros(1, 3, 0, 0), "0.one.nodes": torch.zeros(1, 2, 0, 0)}
    save_weights(nothing if said == "grids of" else {}, path)
    write_json(path.with_suffix(".json"), about)
    with pytest.raises(UnusableInput, match=said):
        load_triggers(path, model_of(Reader(2)))
