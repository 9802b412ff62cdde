"""CBAM: the formulas of the paper, in their order, and the network round them."""

import pytest
import torch
from torch import Tensor

from networks.small import build_small
from utseg.errors import SettingError
from utseg.networks import build_network, count_parameters
from utseg.networks.cbam_unet import CBAM, CBAMBlock
from utseg.networks.layers.blocks import PreActivationBlock

RESUNET_PARAMETERS = 15_449_256  # the same network without attention, as published


def channel_weights(attention: CBAM, x: Tensor) -> Tensor:
    """Woo et al., equation 2, (B, C, 1, 1)."""
    first, second = (
        layer.weight[..., 0, 0] for layer in (attention.channels.reduce, attention.channels.expand)
    )
    both = [(pooled @ first.T).clamp(min=0) @ second.T for pooled in (x.mean((2, 3)), x.flatten(2).max(2)[0])]
    return (1 / (1 + torch.exp(-sum(both))))[:, :, None, None]


def pixel_weights(attention: CBAM, x: Tensor) -> Tensor:
    """Woo et al., equation 3, (B, 1, H, W): the 7 × 7 convolution offset by offset."""
    padded = torch.nn.functional.pad(torch.stack([x.mean(1), x.max(1)[0]], 1), (3, 3, 3, 3))
    height, width = x.shape[2:]
    total = torch.zeros_like(x[:, :1])
    for dy in range(7):
        for dx in range(7):
            weight = attention.pixels.conv.weight[0, :, dy, dx, None, None]
            total += (padded[..., dy : dy + height, dx : dx + width] * weight).sum(1, keepdim=True)
    return 1 / (1 + torch.exp(-total))


def test_channels_are_weighed_first_and_then_the_pixels_of_the_result() -> None:
    torch.manual_seed(0)
    attention = CBAM(8, 2).double()
    x = torch.randn(2, 8, 9, 5, dtype=torch.float64)
    with torch.no_grad():
        weighed = x * channel_weights(attention, x)
        expected = weighed * pixel_weights(attention, weighed)
        torch.testing.assert_close(attention(x), expected)
        other_order = x * pixel_weights(attention, x)
        other_order = other_order * channel_weights(attention, other_order)
        assert not torch.allclose(attention(x), other_order)


@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (6, 1), (4, 2)])
def test_attention_is_on_the_residual_branch_only(channels: int, stride: int) -> None:
    torch.manual_seed(0)
    block = CBAMBlock(4, channels, stride, reduction=2).eval()
    plain = PreActivationBlock(4, channels, stride).eval()
    plain.load_state_dict({k: v for k, v in block.state_dict().items() if not k.startswith("attention")})
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        branch = plain.residual(x)
        torch.testing.assert_close(block(x), plain(x) - branch + block.attention(branch))
        assert not torch.allclose(block(x), plain(x))


def test_it_is_the_residual_unet_and_attention_in_every_block() -> None:
    network = build_network("CBAM_UNet", in_channels=1, num_classes=4)
    blocks = [module for module in network.modules() if isinstance(module, PreActivationBlock)]
    assert len(blocks) == 18
    assert all(isinstance(block, CBAMBlock) for block in blocks)
    widths = [32, 64, 128, 256, 512, 256, 128, 64, 32]
    attention = sum(2 * (2 * c * max(4, c // 16) + 2 * 49) for c in widths)
    assert count_parameters(network) == RESUNET_PARAMETERS + attention


@pytest.mark.parametrize("reduction", [0, 2.0, "16"])
def test_wrong_reduction(reduction: object) -> None:
    with pytest.raises(SettingError, match=r"^reduction is [^\n]*; it must be [^\n]*$"):
        build_small("CBAM_UNet", reduction=reduction)
