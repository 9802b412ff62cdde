"""The pre-activation residual U-Net with CBAM: each block weighs its channels, then its pixels, before the shortcut is added.

Woo, Park, Lee, Kweon: *CBAM: Convolutional Block Attention Module*, ECCV 2018, in the network that is UTNet without attention.
Does not normalise inside the attention, as the paper's formulas do not.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.networks.layers.blocks import PreActivationBlock
from utseg.networks.layers.checks import Count, Flag
from utseg.networks.network import UShapedNetwork
from utseg.networks.utnet import residual_decoder, residual_encoder

# Channels inside the weighing of channels, at least: what the narrowest stage of the paper's ResNets has at reduction 16.
_LEAST_INSIDE = 4


class ChannelGate(nn.Module):
    """sigmoid(MLP(mean over pixels) + MLP(maximum over pixels)): a weight a channel. Woo et al., equation 2."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        inside = max(_LEAST_INSIDE, channels // reduction)
        self.reduce = nn.Conv2d(channels, inside, 1, bias=False)
        self.expand = nn.Conv2d(inside, channels, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Weights (B, C, 1, 1)."""
        mean, largest = x_BCHW.mean((2, 3), keepdim=True), x_BCHW.amax((2, 3), keepdim=True)
        inside = F.relu_(self.reduce(mean)) + F.relu_(self.reduce(largest))  # the second layer is linear
        return torch.sigmoid(self.expand(inside))


class SpatialGate(nn.Module):
    """sigmoid(7×7 convolution of [mean over channels, maximum over channels]): a weight a pixel. Woo et al., equation 3."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Weights (B, 1, H, W)."""
        both = torch.cat([x_BCHW.mean(1, keepdim=True), x_BCHW.amax(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.conv(both))


class CBAM(nn.Module):
    """Channels first, then pixels of what that leaves: the order that the paper found best."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.channels = ChannelGate(channels, reduction)
        self.pixels = SpatialGate()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = x_BCHW * self.channels(x_BCHW)
        return torch.mul(x, self.pixels(x))


class CBAMBlock(PreActivationBlock):
    """A pre-activation block with CBAM on its residual branch, where the paper's ResNets have it."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, reduction: int) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.attention = CBAM(out_channels, reduction)

    def residual(self, x_BCHW: Tensor) -> Tensor:
        x: Tensor = self.attention(super().residual(x_BCHW))
        return x


class CBAMUNet(UShapedNetwork):
    """Residual U-Net, channel and spatial attention in every block (CBAM: Woo et al., 2018)."""

    def __init__(
        self,
        *,
        in_channels: Count = 1,
        num_classes: Count = 4,
        base_channels: Count = 32,
        levels: Count = 4,
        reduction: Count = 16,
        aux_loss: Flag = False,
    ) -> None:
        """reduction: how many times fewer channels there are inside the weighing of channels; four at least are left."""
        super().__init__(num_classes, base_channels, levels, aux_loss)
        block = partial(CBAMBlock, reduction=reduction)
        self.encoder = residual_encoder(in_channels, self.channels, block)
        self.decoder = residual_decoder(self.channels, block)
