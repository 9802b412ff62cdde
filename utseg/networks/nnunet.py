"""nnU-Net's two U-Nets, plain and with a residual encoder, as nnU-Net 2.8 plans them for 2-D: the strongest convolutional baseline.

Isensee et al.: *nnU-Net*, Nature Methods 2021; the residual encoder: Isensee et al., *nnU-Net Revisited*, MICCAI 2024, whose presets M,
L and XL share it and differ in patch and batch. Depth, strides and kernels follow from patch size and spacing (`nnunet_topology`).
Only the network: planning, augmentation and recipe are this package's, so that what is compared is the network.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field, Strict
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.errors import SettingError
from utseg.networks.layers.blocks import InstanceNorm, decode, encode
from utseg.networks.layers.checks import Count, Flag
from utseg.networks.network import SegmentationNetwork
from utseg.networks.nnunet_topology import Pair, plan_topology

Millimetres = Annotated[float, Strict(), Field(gt=0)]
_PLAIN_CONVS = 2
_RESIDUAL_BLOCKS = (1, 3, 4, 6)  # of the first stages; 6 in all others
_SLOPE = 0.01


class ConvNorm(nn.Module):
    """Convolution → instance norm, → LeakyReLU unless `activate` is False."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Pair,
        stride: Pair = (1, 1),
        *,
        bias: bool = True,
        activate: bool = True,
    ) -> None:
        super().__init__()
        padding = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=bias)
        self.norm = InstanceNorm(out_channels)
        self.activate = activate

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x: Tensor = self.norm(self.conv(x_BCHW))
        return F.leaky_relu_(x, _SLOPE) if self.activate else x


class ResidualBlock(nn.Module):
    """Two convolutions plus a shortcut, then LeakyReLU. The shortcut is average-pooled by the stride, then 1×1 where channels change.

    He et al., *Bag of Tricks for Image Classification*, CVPR 2019 (ResNet-D).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Pair, stride: Pair = (1, 1)) -> None:
        super().__init__()
        self.first = ConvNorm(in_channels, out_channels, kernel, stride)
        self.second = ConvNorm(out_channels, out_channels, kernel, activate=False)
        self.pool = None if stride == (1, 1) else stride
        self.shortcut = (
            ConvNorm(in_channels, out_channels, (1, 1), bias=False, activate=False)
            if in_channels != out_channels
            else None
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        kept = x_BCHW if self.pool is None else F.avg_pool2d(x_BCHW, self.pool, self.pool)
        if self.shortcut is not None:
            kept = self.shortcut(kept)
        return F.leaky_relu_(self.second(self.first(x_BCHW)).add_(kept), _SLOPE)


def _stage(
    block: Callable[..., nn.Module],
    count: int,
    in_channels: int,
    channels: int,
    kernel: Pair,
    stride: Pair = (1, 1),
) -> nn.Sequential:
    """So many blocks, the first of which takes the input's channels and the stride."""
    others = (block(channels, channels, kernel) for _ in range(count - 1))
    return nn.Sequential(block(in_channels, channels, kernel, stride), *others)


class NnUNetUpStage(nn.Module):
    """A transposed convolution to the skip's size and channels, join with the skip, convolutions."""

    def __init__(self, low_channels: int, channels: int, kernel: Pair, stride: Pair, convs: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(low_channels, channels, stride, stride)
        self.convs = _stage(ConvNorm, convs, 2 * channels, channels, kernel)

    def forward(self, low_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        x: Tensor = self.convs(torch.cat([self.up(low_BCHW), skip_BCHW], dim=1))
        return x


def _initialise(module: nn.Module) -> None:
    """He's normal initialisation for the LeakyReLU's slope, biases 0, a residual branch silent at first: as nnU-Net."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, a=_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, ResidualBlock):
        nn.init.zeros_(module.second.norm.weight)
        nn.init.zeros_(module.second.norm.bias)


class NnUNet(SegmentationNetwork):
    """nnU-Net's 2-D U-Net, plain or residual, planned by its own rule (Isensee et al., 2021).

    Channels of stage S are base_channels · 2^S, but no more than max_features.
    """

    def __init__(
        self,
        *,
        in_channels: Count = 1,
        num_classes: Count = 4,
        architecture: Literal["plain", "residual"] = "plain",
        patch_size: tuple[Count, Count] = (256, 256),
        spacing_yx_mm: tuple[Millimetres, Millimetres] = (1.0, 1.0),
        base_channels: Count = 32,
        max_features: Count = 512,
        aux_loss: Flag = False,
    ) -> None:
        """patch_size in pixels and spacing_yx_mm in mm, both (y, x), decide depth, strides and kernels; images of any size are taken.
        aux_loss: heads at all decoder stages but the coarsest (of whose loss nnU-Net takes nothing).
        """
        topology = plan_topology(patch_size, spacing_yx_mm)
        stages = len(topology.strides)
        if stages < 2:
            raise SettingError(
                f"patch_size is {patch_size}, at spacing_yx_mm {spacing_yx_mm} too small to be halved once; it must be at least (8, 8), "
                "or 12 along one axis"
            )
        channels = [min(base_channels * 2**stage, max_features) for stage in range(stages)]
        super().__init__(
            num_classes=num_classes, map_channels=channels[: max(1, stages - 2)], levels=0, aux_loss=aux_loss
        )
        self.multiple = topology.multiple
        residual = architecture == "residual"
        self.stem = ConvNorm(in_channels, channels[0], topology.kernels[0]) if residual else None
        make_stage = partial(_stage, ResidualBlock if residual else ConvNorm)
        deepest = _RESIDUAL_BLOCKS[-1]
        counts = (*_RESIDUAL_BLOCKS, *[deepest] * stages) if residual else [_PLAIN_CONVS] * stages
        inputs = [channels[0] if residual else in_channels, *channels]
        self.encoder = nn.ModuleList(
            map(make_stage, counts, inputs, channels, topology.kernels, topology.strides)
        )
        make_up = partial(NnUNetUpStage, convs=1 if residual else _PLAIN_CONVS)
        self.decoder = nn.ModuleList(
            map(make_up, channels[1:], channels, topology.kernels, topology.strides[1:])
        )
        self.apply(_initialise)

    def decoder_maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """Decoder maps of all stages, finest first; of those, all but the coarsest can have heads."""
        return decode(self.decoder, encode(self.encoder, x_BCHW if self.stem is None else self.stem(x_BCHW)))
