"""FCN-8s: how its scores are made, upsampled and summed."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.small import build_small
from utseg.errors import SettingError
from utseg.networks import build_network
from utseg.networks.fcn import learnt_upsampling

VGG16_CONVOLUTION_WEIGHTS = (
    14_710_464  # of the published VGG-16, three channels in, without biases and classifier
)


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_upsampling_is_bilinear_to_begin_with_and_learnt(factor: int) -> None:
    layer = learnt_upsampling(3, factor)
    x = torch.randn(2, 3, 4, 5)
    y = layer(x)
    assert y.shape == (2, 3, 4 * factor, 5 * factor)
    bilinear = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    inner = (..., slice(factor // 2, -factor // 2), slice(factor // 2, -factor // 2))
    torch.testing.assert_close(y[inner], bilinear[inner], atol=1e-5, rtol=1e-5)
    assert layer.weight.requires_grad


def test_scores_of_three_depths_are_summed_from_the_coarsest_up() -> None:
    network = build_small("FCN", aux_loss=True).eval()
    scores: list[Tensor] = []
    for layer in network.scores:
        layer.register_forward_hook(lambda *call: scores.append(call[-1]))
    x = torch.randn(2, 1, 64, 96)
    with torch.no_grad():
        y = network(x)
        at_8, at_16, at_32 = scores
        assert [tuple(score.shape[2:]) for score in scores] == [(8, 12), (4, 6), (2, 3)]
        sum_16 = at_16 + network.doubling[1](at_32)
        sum_8 = at_8 + network.doubling[0](sum_16)
        for logits, head, total in zip(y, network.heads, (sum_8, sum_16, at_32), strict=True):
            torch.testing.assert_close(logits, head(total))


def test_the_convolutions_are_those_of_vgg16() -> None:
    with torch.device("meta"):
        network = build_network("FCN", in_channels=3, num_classes=21, base_channels=64)
    convolutions = [module for module in network.stages.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 13
    assert sum(layer.weight.numel() for layer in convolutions) == VGG16_CONVOLUTION_WEIGHTS


def test_dropout_acts_in_training_only() -> None:
    x = torch.randn(2, 1, 64, 64)
    for rate, differs in ((0.5, True), (0.0, False)):
        network = build_small("FCN", dropout=rate)
        with torch.no_grad():
            assert torch.equal(network(x), network(x)) != differs
            network.eval()
            assert torch.equal(network(x), network(x))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": 1.0}, "dropout is 1.0; it must be less than 1"),
        ({"base_channels": 0}, "base_channels is 0"),
        ({"levels": 4}, "network FCN has no setting 'levels'"),
    ],
)
def test_wrong_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=r"^[^\n]*$") as caught:
        build_small("FCN", **settings)
    assert message in str(caught.value)
