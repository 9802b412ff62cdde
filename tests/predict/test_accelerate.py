"""The network that predicts is the one that was trained: the same logits but for rounding, and the same tensors."""

import pytest
import torch
from networks.small import build_small
from torch import Tensor, nn

from utseg.networks import network_names
from utseg.predict.accelerate import folded


def randomise(network: nn.Module) -> None:
    """Statistics, scales and offsets as after a training, so that folding them has something to do."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.3, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("name", network_names())
@torch.inference_mode()
def test_every_network_says_the_same(name: str) -> None:
    network = build_small(name).eval()
    randomise(network)
    x_BCHW = torch.randn(2, 1, 64, 64)
    before: Tensor = network.main_logits(x_BCHW)
    found = folded(network).main_logits(x_BCHW)
    torch.testing.assert_close(found, before, rtol=0, atol=2e-5 * before.abs().max().item())
    assert torch.equal(network.main_logits(x_BCHW), before)


@pytest.mark.parametrize(("name", "left"), [("UTNet", 0.8), ("ResUNet", 0.7), ("UNet", 0), ("FCN", 0)])
def test_normalisations_are_folded(name: str, left: float) -> None:
    network = build_small(name).eval()
    assert norms(folded(network)) <= left * norms(network)


def test_a_network_with_instance_norm_stays_as_it_is() -> None:
    network = build_small("UNet", norm="instance").eval()
    assert [type(module) for module in folded(network).modules()] == [type(m) for m in network.modules()]


def test_the_tensors_that_stay_are_shared_and_the_network_is_untouched() -> None:
    network = build_small("UTNet").train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    faster = folded(network)
    assert network.training and not faster.training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    shared = {parameter.data_ptr() for parameter in network.parameters()}
    own = sum(value.numel() for value in faster.parameters() if value.data_ptr() not in shared)
    assert own < 0.5 * sum(value.numel() for value in network.parameters())


def test_a_subclass_may_do_something_else_between_its_layers() -> None:
    class Rectified(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[1](self[0](x).relu())

    network = Rectified(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    randomise(network)
    x = torch.randn(1, 1, 8, 8)
    assert torch.equal(folded(network)(x), network(x))
    assert norms(folded(network)) == 1
