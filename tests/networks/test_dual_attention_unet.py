"""Dual attention: both formulas of the paper in float64, and nothing position-by-position kept."""

import pytest
import torch
from torch import Tensor

from networks.small import build_small
from utseg.errors import SettingError
from utseg.networks import build_network, count_parameters
from utseg.networks.dual_attention_unet import ChannelAttention, DualAttention, PositionAttention

RESUNET_PARAMETERS = 15_449_256  # the same network without attention, as published


def project(layer: torch.nn.Conv2d, x: Tensor) -> Tensor:
    """A 1×1 convolution on (B, C, N)."""
    return layer.weight[..., 0, 0] @ x + layer.bias[:, None]


def test_position_attention_is_plain_softmax_over_all_positions() -> None:
    torch.manual_seed(0)
    attention = PositionAttention(16)
    with torch.no_grad():
        attention.gamma.fill_(0.7)
        for layer in (attention.query, attention.key):
            layer.weight.mul_(4)  # so that the softmax is far from even
    x = torch.randn(2, 16, 5, 7, requires_grad=True)
    y = attention(x)
    y.square().sum().backward()
    found = {"x": x.grad, **{name: p.grad for name, p in attention.named_parameters()}}

    attention.zero_grad()
    attention.double()
    wide = x.detach().double().requires_grad_()
    flat = wide.flatten(2)
    energy = project(attention.query, flat).transpose(1, 2) @ project(attention.key, flat)
    attended = project(attention.value, flat) @ torch.softmax(energy, dim=-1).transpose(1, 2)
    expected = attention.gamma * attended.view_as(wide) + wide
    torch.testing.assert_close(y, expected.float(), atol=1e-5, rtol=1e-4)
    expected.square().sum().backward()
    torch.testing.assert_close(found["x"], wide.grad.float(), atol=1e-4, rtol=1e-4)
    for name, parameter in attention.named_parameters():
        torch.testing.assert_close(
            found[name], parameter.grad.float(), atol=2e-4, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("channels", [16, 128])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_position_attention_keeps_no_matrix_of_positions(
    channels: int, memory_format: torch.memory_format
) -> None:
    torch.manual_seed(0)
    attention = PositionAttention(channels)
    x = torch.randn(2, channels, 24, 24).contiguous(memory_format=memory_format).requires_grad_()
    kept: list[int] = []

    def keep(saved: Tensor) -> Tensor:
        kept.append(saved.numel())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        attention(x).sum().backward()
    assert max(kept) <= x.numel() < (24 * 24) ** 2


def test_channel_attention_weighs_channels_that_are_unlike_most() -> None:
    torch.manual_seed(0)
    attention = ChannelAttention().double()
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    energy = torch.einsum("bcyx,bdyx->bcd", x, x)
    weights = torch.softmax(energy.max(-1, keepdim=True)[0] - energy, dim=-1)
    with torch.no_grad():
        expected = attention.gamma * torch.einsum("bcd,bdyx->bcyx", weights, x) + x
        torch.testing.assert_close(attention(x), expected)
    own = weights.diagonal(dim1=1, dim2=2)
    assert (own <= weights.max(-1)[0] / 2).all()


def test_channel_energies_are_not_summed_in_half_precision() -> None:
    torch.manual_seed(0)
    attention = ChannelAttention()
    x = (40 + torch.randn(1, 8, 32, 32)).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        y = attention(x)
    with torch.no_grad():
        torch.testing.assert_close(y.float(), attention(x.float()), atol=0.5, rtol=0.01)


@pytest.mark.parametrize(("channels", "inside"), [(4, 8), (512, 128), (48, 16), (33, 16)])
def test_any_number_of_channels_has_whole_eighths_inside(channels: int, inside: int) -> None:
    attention = DualAttention(channels)
    assert attention.branches[0][1].value.out_channels == inside
    assert attention(torch.randn(2, channels, 3, 2)).shape == (2, channels, 3, 2)


def test_it_is_the_residual_unet_and_attention_at_the_bottleneck() -> None:
    network = build_network("DualAttention_UNet", in_channels=1, num_classes=4)
    to_inside_and_back = (2 * 512 + 512 * 128 * 9) + (2 * 128 + 128 * 512 * 9)
    position = 2 * (128 * 16 + 16) + (128 * 128 + 128) + 1
    assert count_parameters(network) == RESUNET_PARAMETERS + 2 * to_inside_and_back + position + 1


def test_wrong_settings() -> None:
    with pytest.raises(SettingError, match=r"^levels is 0; it must be greater than or equal to 1$"):
        build_small("DualAttention_UNet", levels=0)
