"""Batch norm folded into convolutions: the same answers, features and gradients."""

import pytest
import torch
from torch import Tensor, nn

from guard.bench import Bench
from guard.folding import folded
from guard.model import Model
from guard.networks import NETWORKS
from tests.conftest import benign_of, model_of, plain

SIDE = 32


def built_in(arch: str) -> Model:
    """One of the built-in architectures, with statistics and scales as a training leaves them."""
    network = NETWORKS[arch](2, 4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_var, module.weight):
                assert values is not None
                nn.init.uniform_(values, 0.5, 2.0)
            for values in (module.running_mean, module.bias):
                assert values is not None
                nn.init.normal_(values, std=0.3)
    return model_of(network, side=SIDE, arch=arch)


def with_slope(model: Model, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, features, and the gradient of the outputs' sum by the images."""
    x = x.clone().requires_grad_(True)
    y, h = model.with_features(x)
    assert h is not None
    (slope,) = torch.autograd.grad(y.sum(), x)
    return y.detach(), h.detach(), slope


@pytest.mark.parametrize("arch", list(NETWORKS))
def test_a_built_in_network_computes_the_same_without_its_batch_norm(arch: str) -> None:
    model = built_in(arch)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin = folded(model)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in twin.network.modules())
    assert not any(weight.requires_grad for weight in twin.network.parameters())
    x = torch.rand(5, 3, SIDE, SIDE)
    for made, wanted in zip(with_slope(twin, x), with_slope(model, x), strict=True):
        torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_steps_of_a_search_are_those_of_the_folded_network() -> None:
    model = built_in("resnet18")
    bench = Bench(model, benign_of(model, 8))
    x, with_norms = bench.benign.x(slice(0, 8)), list[nn.Module]()
    y, _ = bench.fast_pass(x)
    torch.testing.assert_close(y, bench.outputs, rtol=2e-2, atol=2e-2)
    for part in model.network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.register_forward_hook(lambda part, *_: with_norms.append(part))
    bench.fast_pass(x)
    assert not with_norms


def test_the_code_of_a_factory_runs_as_it_is() -> None:
    model = model_of(plain(2))
    assert folded(model) is model
