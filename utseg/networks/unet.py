"""The original U-Net: two 3×3 convolutions a level, max-pooling down, learnt upsampling, skips joined by concatenation.

Ronneberger, Fischer, Brox: *U-Net*, MICCAI 2015; with padded convolutions, normalisation before each ReLU, and channels that double at
every level without a cap. No attention and no residual connections.
"""

from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.networks.layers.blocks import InstanceNorm, Pairs
from utseg.networks.layers.checks import Count, Flag
from utseg.networks.layers.sizes import upsample
from utseg.networks.network import UShapedNetwork

NORMS = {"batch": nn.BatchNorm2d, "instance": InstanceNorm}


class DoubleConv(nn.Module):
    """(3×3 → norm → ReLU) twice, after max-pooling where said. The convolutions have no bias: the norm takes it out again."""

    foldable: ClassVar[Pairs] = (("conv1", "norm1"), ("conv2", "norm2"))

    def __init__(self, in_channels: int, out_channels: int, norm: str, *, pool: bool = False) -> None:
        super().__init__()
        self.pool = pool
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = NORMS[norm](out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = NORMS[norm](out_channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = F.max_pool2d(x_BCHW, 2) if self.pool else x_BCHW
        x = F.relu_(self.norm1(self.conv1(x)))
        return F.relu_(self.norm2(self.conv2(x)))


class UNetUpStage(nn.Module):
    """Double the resolution and halve the channels, join with the skip, two convolutions.

    "transposed": a 2×2 transposed convolution. "bilinear": a 1×1 convolution, then bilinear upsampling.
    """

    def __init__(self, channels: int, norm: str, upsampling: str) -> None:
        super().__init__()
        self.up: nn.Module
        if upsampling == "transposed":
            self.up = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        else:
            self.up = nn.Conv2d(2 * channels, channels, 1)
        self.convs = DoubleConv(2 * channels, channels, norm)

    def forward(self, low_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        up = upsample(self.up(low_BCHW), skip_BCHW.shape[-2:])
        x: Tensor = self.convs(torch.cat([skip_BCHW, up], dim=1))
        return x


class UNet(UShapedNetwork):
    """The original U-Net: two 3×3 convolutions a level, skips (Ronneberger, Fischer, Brox 2015)."""

    def __init__(
        self,
        *,
        in_channels: Count = 1,
        num_classes: Count = 4,
        base_channels: Count = 32,
        levels: Count = 4,
        norm: Literal["batch", "instance"] = "batch",
        upsampling: Literal["transposed", "bilinear"] = "transposed",
        aux_loss: Flag = False,
    ) -> None:
        """aux_loss: heads at ½, ¼, … as UTNet's, so that deep supervision is comparable."""
        super().__init__(num_classes, base_channels, levels, aux_loss)
        self.encoder = nn.ModuleList(
            DoubleConv(before, after, norm, pool=level > 0)
            for level, (before, after) in enumerate(pairwise((in_channels, *self.channels)))
        )
        self.decoder = nn.ModuleList(
            self.up_stage(level)(self.channels[level], norm, upsampling) for level in range(levels)
        )

    def up_stage(self, level: int) -> type[nn.Module]:
        """What a decoder level is made of."""
        return UNetUpStage
