"""The split f = H(F(x)) of any network, the built-in networks, and the preprocessing."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.model import Model
from guard.networks import NETWORKS
from guard.preprocess import Preprocess
from guard.spec import InputSpec
from tests.conftest import Reader, model_of, plain, spec_of


def pooled(*last: nn.Module) -> nn.Sequential:
    """A convolution, a pooled vector of 8 values, and what comes after."""
    first = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*first, *last)


class TwoHeads(nn.Module):
    """Each output has a dense layer of its own: none alone decides."""

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        self.body, self.bias = pooled(), bias
        self.pitch, self.yaw = nn.Linear(8, 1), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return torch.cat([self.pitch(h), self.yaw(h)], dim=1) + self.bias


class DefinedBackwards(nn.Module):
    """The layer that runs last is defined first, and an unused one after both."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 2)
        self.hidden = nn.Linear(8, 5)
        self.body = pooled()
        self.unused = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(self.body(x)).relu())


class BesidesDense(nn.Module):
    """A second path leads past the dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = pooled(), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x)) + x[:, :2].mean(dim=(2, 3))


class DropoutLeftOn(nn.Module):
    """Dropout that no eval() turns off."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = pooled(), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(functional.dropout(self.body(x), 0.5, training=True))


SPLITS = [
    ("resnet18", NETWORKS["resnet18"](2, 4), "fc", 32),
    ("resnet34", NETWORKS["resnet34"](2, 4), "fc", 32),
    ("mobilenet_v1", NETWORKS["mobilenet_v1"](2, 4), "fc", 64),
    ("plain", plain(2), "7", 32),
    ("MLP head", pooled(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)), "6", 6),
    ("activation last", pooled(nn.Linear(8, 2), nn.Tanh()), "4", 8),
    ("scaled last", pooled(nn.Linear(8, 2), nn.Hardtanh(-9, 9), nn.Identity()), "4", 8),
    ("defined backwards", DefinedBackwards(), "head", 5),
    ("two heads", TwoHeads(), None, 0),
    ("a path besides", BesidesDense(), None, 0),
    ("no dense layer", nn.Sequential(nn.Conv2d(3, 2, 32), nn.Flatten()), None, 0),
    ("two heads, large bias", TwoHeads(bias=1e3), None, 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("network", "layer", "m"), [row[1:] for row in SPLITS], ids=[row[0] for row in SPLITS]
)
def test_split_is_found_without_help(network: nn.Module, layer: str | None, m: int) -> None:
    model = model_of(network, side=32)
    assert (model.split.layer, model.split.features) == (layer, m)
    assert bool(model.split.reason) == (layer is None)
    x = torch.rand(3, 3, 32, 32)
    y, h = model.with_features(x)
    assert torch.equal(y, model(x))
    if layer is None:
        assert h is None
    else:
        assert h is not None
        assert h.shape == (3, m)


def test_features_times_weights_give_the_outputs_of_a_bare_dense_layer() -> None:
    model = model_of(Reader(2))
    y, h = model.with_features(torch.rand(5, 3, 16, 16))
    assert h is not None
    assert torch.allclose(h @ model.dense.weight.T + model.dense.bias, y, atol=1e-6)


def test_features_carry_gradients_to_the_images() -> None:
    model = model_of(plain(2))
    x = torch.rand(2, 3, 16, 16, requires_grad=True)
    _, h = model.with_features(x)
    assert h is not None
    (slope,) = torch.autograd.grad(h.sum(), x)
    assert slope.abs().sum() > 0


def test_a_named_layer_is_taken() -> None:
    network = pooled(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    model = Model(network, spec_of(), "4")
    assert (model.split.layer, model.split.features) == ("4", 8)


@pytest.mark.parametrize("named", ["nowhere", "0", "unused"])
def test_a_named_layer_that_does_not_decide_gives_no_split_but_a_reason(named: str) -> None:
    model = Model(DefinedBackwards(), spec_of(), named)
    assert model.split.layer is None
    assert named in model.split.reason


def test_dropout_layers_are_off_under_examination() -> None:
    model = model_of(pooled(nn.Dropout(0.5), nn.Linear(8, 2)).train())
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(model(x), model(x))
    assert model.split.layer == "5"


def test_a_model_that_changes_from_call_to_call_has_no_proven_split() -> None:
    assert model_of(DropoutLeftOn()).split.layer is None


def test_examination_leaves_no_probe_behind() -> None:
    model = model_of(plain(2))
    model.with_features(torch.rand(2, 3, 16, 16))
    hooks = sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())
    assert hooks == 0


# --- networks ------------------------------------------------------------------------------------


def torchvision_names(blocks: tuple[int, ...]) -> set[str]:
    """The parameters and buffers of torchvision's ResNet of basic blocks."""
    bn = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{part}" for part in bn)}
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            stem = f"layer{stage}.{block}"
            for k in (1, 2):
                names |= {f"{stem}.conv{k}.weight", *(f"{stem}.bn{k}.{part}" for part in bn)}
            if stage > 1 and block == 0:
                names |= {f"{stem}.downsample.0.weight"}
                names |= {f"{stem}.downsample.1.{part}" for part in bn}
    return names


@pytest.mark.parametrize(
    ("arch", "blocks", "count"),
    [("resnet18", (2, 2, 2, 2), 11_689_512), ("resnet34", (3, 4, 6, 3), 21_797_672)],
)
def test_resnets_bear_torchvisions_names_and_sizes(
    arch: str, blocks: tuple[int, ...], count: int
) -> None:
    with torch.device("meta"):
        network = NETWORKS[arch](1000, 64)
    assert set(network.state_dict()) == torchvision_names(blocks)
    assert sum(p.numel() for p in network.parameters()) == count
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["layer2.0.downsample.0.weight"] == (128, 64, 1, 1)
    assert shapes["layer4.1.conv2.weight"] == (512, 512, 3, 3)
    assert shapes["fc.weight"] == (1000, 512)


def test_mobilenet_has_the_published_size() -> None:
    with torch.device("meta"):
        network = NETWORKS["mobilenet_v1"](1000, 64)
    assert sum(p.numel() for p in network.parameters()) == 4_231_976


@pytest.mark.parametrize("arch", sorted(NETWORKS))
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (64, 32)])
def test_networks_take_any_size(arch: str, height: int, width: int) -> None:
    network = NETWORKS[arch](3, 4).eval()
    with torch.no_grad():
        assert network(torch.rand(2, 3, height, width)).shape == (2, 3)


# --- preprocessing -------------------------------------------------------------------------------


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)])
def test_preprocessing_orders_scales_then_normalises(color: str, ends: tuple[float, float]) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 2.0, 4.0)
    x = torch.rand(2, 3, 5, 5)
    found = Preprocess(InputSpec((5, 5), color, ends, mean, std))(x)
    for channel in range(3):
        source = x[:, channel if color == "rgb" else 2 - channel]
        wanted = (ends[0] + source * (ends[1] - ends[0]) - mean[channel]) / std[channel]
        assert torch.allclose(found[:, channel], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_preprocessing_gives_the_same_in_either_order_of_memory(color: str) -> None:
    step = Preprocess(InputSpec((5, 7), color, mean=(0.1, 0.2, 0.3), std=(0.5, 2.0, 4.0)))
    x = torch.rand(2, 3, 5, 7)
    found = step(x.contiguous(memory_format=torch.channels_last))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, step(x))
