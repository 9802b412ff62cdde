"""The original U-Net: two 3×3 convolutions a level, max-pooling down, learnt upsampling, skips joined by concatenation.

Ronneberger, Fischer, Brox: *U-Net*, MICCAI 2015; with padded convolutions, normalisation before each ReLU, and channels that double at
every level without a cap. No attention and no residual connections.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.networks.layers.blocks import InstanceNorm, Pairs
from utseg.networks.layers.checks import check_choice
from utseg.networks.layers.sizes import upsample
from utseg.networks.network import UShapedNetwork, prefer_channels_last

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": InstanceNorm,
}
UPSAMPLINGS = ("transposed", "bilinear")


class DoubleConv(nn.Module):
    """(3×3 → norm → ReLU) twice. The convolutions have no bias: the norm takes it out again."""

    foldable: ClassVar[Pairs] = (("conv1", "norm1"), ("conv2", "norm2"))

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = NORMS[norm](out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = NORMS[norm](out_channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = F.relu_(self.norm1(self.conv1(x_BCHW)))
        return F.relu_(self.norm2(self.conv2(x)))


class UNetUpStage(nn.Module):
    """Double the resolution and halve the channels, join with the skip, two convolutions.

    "transposed": a 2×2 transposed convolution. "bilinear": a 1×1 convolution, then bilinear upsampling.
    """

    def __init__(self, channels: int, norm: str, upsampling: str) -> None:
        super().__init__()
        self.transposed = upsampling == "transposed"
        self.up = (
            nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
            if self.transposed
            else nn.Conv2d(2 * channels, channels, 1)
        )
        self.convs = DoubleConv(2 * channels, channels, norm)

    def forward(self, low_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        up = self.up(low_BCHW)
        if not self.transposed:
            up = upsample(up, skip_BCHW.shape[-2:])
        x: Tensor = self.convs(torch.cat([skip_BCHW, up], dim=1))
        return x


class UNet(UShapedNetwork):
    """The original U-Net: two 3×3 convolutions a level, skips (Ronneberger, Fischer, Brox 2015).

    Channels at level L are base_channels · 2^L.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 4,
        base_channels: int = 32,
        levels: int = 4,
        norm: str = "batch",
        upsampling: str = "transposed",
        aux_loss: bool = False,
    ) -> None:
        """levels: halvings. norm: "batch" or "instance". upsampling: "transposed" or "bilinear". aux_loss: heads at ½, ¼, … as UTNet's,
        so that deep supervision is comparable. Raises SettingError.
        """
        super().__init__(
            in_channels=in_channels,
            num_classes=num_classes,
            base_channels=base_channels,
            levels=levels,
            aux_loss=aux_loss,
        )
        check_choice("norm", norm, tuple(NORMS))
        check_choice("upsampling", upsampling, UPSAMPLINGS)
        self.encoder = nn.ModuleList(
            DoubleConv(before, channels, norm) for before, channels in pairwise((in_channels, *self.channels))
        )
        self.decoder = nn.ModuleList(
            self.up_stage(level)(self.channels[level], norm, upsampling) for level in range(levels)
        )
        prefer_channels_last(self)

    def up_stage(self, level: int) -> type[nn.Module]:
        """What a decoder level is made of."""
        return UNetUpStage

    def encode(self, x_BCHW: Tensor) -> list[Tensor]:
        """Encoder maps at levels 0 … levels, max-pooling between them."""
        maps: list[Tensor] = []
        for stage in self.encoder:
            maps.append(stage(F.max_pool2d(maps[-1], 2) if maps else x_BCHW))
        return maps
