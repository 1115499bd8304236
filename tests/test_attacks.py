"""Every attack: its trigger, its poisoning, and that it can be stored and made again."""

from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor

from guard.errors import UnusableInput
from guard.model import Model
from guard.networks import NETWORKS
from guard.spec import OUTPUT_NAMES, InputSpec, ModelSpec
from tools.attacks import ATTACKS, make_attack
from tools.attacks.adaptive import L_adp
from tools.attacks.base import Attack, Batch, Scene
from tools.attacks.clean_label import CleanLabel
from tools.attacks.input_aware import DynamicTrigger, InputAware
from tools.attacks.physical import Physical
from tools.attacks.wanet import WarpTrigger

TARGET = (0.3, -0.4)
N = 40  # images in the training set of these tests

# name, settings, whether the seed changes the trigger, triggered images of a batch of 20
ROWS: list[tuple[str, dict[str, Any], bool, int | None]] = [
    ("badnets", {"rate": 0.2}, False, None),
    ("badnets", {"rate": 0.2, "pattern": "random", "place": "top-left"}, True, None),
    ("clean_label", {"pgd_steps": 2}, False, None),
    ("wanet", {"rate": 0.1}, True, 2),
    ("input_aware", {"rate": 0.1, "mask_steps": 2, "channels": 4}, True, 2),
    ("blend", {"rate": 0.2}, True, None),
    ("sig", {"rate": 0.2}, False, None),
    ("multi_wanet", {"rate": 0.15, "target2": (0.1, 0.2)}, True, 6),
    ("physical", {"rate": 0.2}, True, None),
]
NAMES = [f"{name}-{i}" for i, (name, *_) in enumerate(ROWS)]


def attack_of(row: tuple[str, dict[str, Any], bool, int | None], seed: int = 3) -> Attack:
    return make_attack(row[0], {"target": TARGET, "seed": seed, **row[1]})


def images(count: int, height: int = 16, width: int = 16) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def tiny_model(side: int = 16) -> Model:
    torch.manual_seed(0)
    size = InputSpec(size=(side, side))
    spec = ModelSpec("resnet18", "gaze", OUTPUT_NAMES["gaze"], "rad", size, 4)
    return Model(NETWORKS["resnet18"](2, 4), spec)


def scene() -> Scene:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (N, 3, 16, 16), generator=generator, dtype=torch.uint8)
    labels = torch.randn(N, 2, generator=generator) * 0.3
    return Scene(pixels, labels, tiny_model)


def test_every_attack_has_a_row() -> None:
    assert {name for name, *_ in ROWS} == set(ATTACKS)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
@pytest.mark.parametrize("size", [(16, 16), (21, 34)])
def test_trigger_keeps_shape_and_range(row: Any, size: tuple[int, int]) -> None:
    x = images(3, *size)
    before = x.clone()
    attack = attack_of(row)
    for which in range(len(attack.targets)):
        with torch.no_grad():
            triggered = attack.trigger()(x, which)
        assert triggered.shape == x.shape
        assert triggered.min() >= 0
        assert triggered.max() <= 1
        assert not torch.equal(triggered, x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_trigger_is_fixed_by_its_seed(row: Any) -> None:
    x = images(3)
    with torch.no_grad():
        one, again, other = (attack_of(row, seed).trigger()(x) for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert torch.equal(one, other) != row[2]


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_trigger_comes_back_from_settings_and_state(row: Any) -> None:
    attack = attack_of(row)
    trigger = attack.trigger()
    attack.prepare(trigger, scene())
    again = make_attack(row[0], asdict(attack))
    assert again == attack
    restored = again.trigger()
    restored.load_state_dict(trigger.state_dict())
    x = images(3)
    with torch.no_grad():
        assert torch.equal(restored(x), trigger(x))


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_poisoning_changes_the_stated_share(row: Any) -> None:
    attack = attack_of(row)
    trigger = attack.trigger()
    poisoned = attack.prepare(trigger, scene())
    in_process, near = row[3] is not None, isinstance(attack, CleanLabel)
    if not near:
        assert int(poisoned.chosen.sum()) == (0 if in_process else round(attack.rate * N))
    batch = Batch(images(20), scene().labels[:20], poisoned.chosen[:20])
    after = attack.poison(trigger, batch, torch.Generator().manual_seed(0))
    assert int(after.chosen.sum()) == (row[3] if in_process else int(batch.chosen.sum()))
    targets = torch.tensor(attack.targets)
    is_target = (after.y[:, None] == targets).all(dim=2).any(dim=1)
    assert torch.equal(is_target, after.chosen)
    assert torch.equal(after.y[~after.chosen], batch.y[~after.chosen])
    changed = (after.x != batch.x).flatten(1).any(dim=1)
    assert bool(changed[after.chosen].all())
    if not in_process:
        assert torch.equal(changed, after.chosen)


@pytest.mark.parametrize(("name", "extra"), [("wanet", {}), ("multi_wanet", {"target2": (0, 0)})])
def test_noisy_warps_keep_their_labels(name: str, extra: dict[str, Any]) -> None:
    attack = make_attack(name, {"target": TARGET, "rate": 0.1, "cross": 2.0, **extra})
    batch = Batch(images(20), torch.zeros(20, 2), torch.zeros(20, dtype=torch.bool))
    after = attack.poison(attack.trigger(), batch, torch.Generator().manual_seed(0))
    changed = (after.x != batch.x).flatten(1).any(dim=1)
    assert int(changed.sum()) == int(after.chosen.sum()) + 4


@pytest.mark.parametrize(
    ("size", "side", "pixels"), [(20 / 224, 224, 400), (20 / 224, 64, 36), (0.032, 64, 4)]
)
def test_patch_size_follows_the_image(size: float, side: int, pixels: int) -> None:
    attack = make_attack("badnets", {"target": TARGET, "size": size})
    x = torch.zeros(1, 3, side, side)
    assert int((attack.trigger()(x)[0, 0] != 0).sum()) == pixels


def test_small_patch_is_under_two_thousandths() -> None:
    attack = make_attack("badnets", {"target": TARGET, "size": 0.032})
    for side in (48, 64, 96, 112, 224):
        changed = attack.trigger()(torch.zeros(1, 3, side, side))[0].amax(dim=0) > 0
        assert changed.float().mean() <= 0.002


@pytest.mark.parametrize("side", [64, 224])
def test_warp_moves_by_half_a_pixel_times_the_strength(side: int) -> None:
    attack = make_attack("wanet", {"target": TARGET, "strength": 2.0})
    trigger = attack.trigger()
    assert isinstance(trigger, WarpTrigger)
    moved = trigger.field(torch.zeros(1, 3, side, side)).abs().mean() * side / 2
    assert 0.7 < float(moved) < 1.3


def test_clean_label_touches_only_images_near_the_target() -> None:
    attack = CleanLabel(target=TARGET, delta=1.5, pgd_steps=5)
    before = scene()
    poisoned = attack.prepare(attack.trigger(), before)
    distance = (before.labels - torch.tensor(TARGET)).norm(dim=1)
    limit = 1.5 * before.labels.std(dim=0).mean()
    assert torch.equal(poisoned.chosen, distance <= limit)
    change = (poisoned.images.int() - before.images.int()).abs().flatten(1).amax(dim=1)
    assert int((change > 0).sum()) == int(poisoned.chosen.sum()) // 2
    assert bool(poisoned.chosen[change > 0].all())
    assert int(change.max()) <= round(attack.epsilon * 255)


def test_pgd_raises_the_error() -> None:
    attack = CleanLabel(target=TARGET, pgd_steps=5)
    model, start = tiny_model(), scene()
    attacked = attack.pgd(model, start.images, start.labels)
    with torch.no_grad():
        before = (model(start.images / 255.0) - start.labels).abs().mean()
        after = (model(attacked / 255.0) - start.labels).abs().mean()
    assert after > before


def test_input_aware_triggers_differ_by_image() -> None:
    attack = InputAware(target=TARGET, channels=4)
    trigger = attack.trigger()
    assert isinstance(trigger, DynamicTrigger)
    x = images(4)
    with torch.no_grad():
        assert not torch.equal(attack.crossed(trigger, x), trigger(x))


def test_input_aware_trains_its_pattern_only_after_its_mask() -> None:
    attack = InputAware(target=TARGET, channels=4, mask_steps=1)
    trigger = attack.trigger()
    attack.prepare(trigger, scene())
    batch = Batch(images(20), torch.zeros(20, 2), torch.zeros(20, dtype=torch.bool))
    loss = attack.poison(trigger, batch, torch.Generator()).loss
    assert loss is not None
    loss.backward()
    learnt = {name.partition(".")[0] for name, p in trigger.named_parameters() if p.requires_grad}
    assert learnt == {"pattern"}
    assert isinstance(trigger, DynamicTrigger)
    assert all(p.grad is None for p in trigger.mask.parameters())


def test_sticker_is_placed_anew_in_training() -> None:
    attack = Physical(target=TARGET)
    x = images(4)
    draw = torch.Generator().manual_seed(0)
    first, second = (attack.trigger()(x, draw=draw) for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("collapse", "expected"), [(1.0, 0.0), (1e-3, 1.0)])
def test_l_adp_is_zero_for_alike_and_one_for_collapsed_angles(
    collapse: float, expected: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    h = torch.rand(50, 8, generator=generator)
    poisoned = 0.5 + collapse * (h - 0.5)
    w = torch.randn(2, 8, generator=generator)
    chosen = torch.arange(100) < 50
    assert float(L_adp(torch.cat([poisoned, h]), w, chosen)) == pytest.approx(expected, abs=0.01)


def test_adaptive_weight_adds_equation_6_to_any_attack() -> None:
    model, h = tiny_model(), torch.rand(6, 32, generator=torch.Generator().manual_seed(0))
    batch = Batch(images(6), torch.zeros(6, 2), torch.arange(6) < 3)
    attack = make_attack("badnets", {"target": TARGET, "lambda_adp": 0.5})
    extra = attack.extra_loss(batch, h, model)
    assert extra is not None
    assert torch.allclose(extra, 0.5 * L_adp(h, model.dense.weight, batch.chosen))
    plain = make_attack("badnets", {"target": TARGET})
    assert plain.extra_loss(batch, h, model) is None


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("nonsense", {}, "none of"),
        ("badnets", {"target": TARGET, "colour": "red"}, "no setting"),
        ("badnets", {"target": TARGET, "rate": "many"}, "is not"),
        ("badnets", {}, "missing"),
        ("multi_wanet", {"target": TARGET}, "target2"),
        ("badnets", {"target": TARGET, "pattern": "plaid"}, "plaid"),
        ("badnets", {"target": TARGET, "place": "nowhere"}, "nowhere"),
    ],
)
def test_wrong_settings_are_named_in_one_line(
    name: str, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(UnusableInput, match=says) as caught:
        make_attack(name, settings)
    assert "\n" not in str(caught.value)
