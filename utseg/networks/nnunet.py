"""nnU-Net's two U-Nets, plain and with a residual encoder, as nnU-Net 2.8 plans them for 2-D: the strongest convolutional baseline.

Isensee et al.: *nnU-Net*, Nature Methods 2021; the residual encoder: Isensee et al., *nnU-Net Revisited*, MICCAI 2024, whose presets M,
L and XL share it and differ in patch and batch. Depth, strides and kernels follow from patch size and spacing (`nnunet_topology`).
Only the network: planning, augmentation and recipe are this package's, so that what is compared is the network.
"""

import math
from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.errors import SettingError
from utseg.networks.layers.blocks import InstanceNorm, decode, encode
from utseg.networks.layers.checks import check_choice, check_counts
from utseg.networks.network import SegmentationNetwork, prefer_channels_last
from utseg.networks.nnunet_topology import Pair, plan_topology

ARCHITECTURES = ("plain", "residual")
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


class NnUNetUpStage(nn.Module):
    """A transposed convolution to the skip's size and channels, join with the skip, convolutions."""

    def __init__(self, low_channels: int, channels: int, kernel: Pair, stride: Pair, convs: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(low_channels, channels, stride, stride)
        self.convs = nn.Sequential(
            ConvNorm(2 * channels, channels, kernel),
            *(ConvNorm(channels, channels, kernel) for _ in range(convs - 1)),
        )

    def forward(self, low_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        x: Tensor = self.convs(torch.cat([self.up(low_BCHW), skip_BCHW], dim=1))
        return x


def _plain_stage(stage: int, in_channels: int, channels: int, kernel: Pair, stride: Pair) -> nn.Sequential:
    return nn.Sequential(
        ConvNorm(in_channels, channels, kernel, stride),
        *(ConvNorm(channels, channels, kernel) for _ in range(_PLAIN_CONVS - 1)),
    )


def _residual_stage(stage: int, in_channels: int, channels: int, kernel: Pair, stride: Pair) -> nn.Sequential:
    blocks = _RESIDUAL_BLOCKS[min(stage, len(_RESIDUAL_BLOCKS) - 1)]
    return nn.Sequential(
        ResidualBlock(in_channels, channels, kernel, stride),
        *(ResidualBlock(channels, channels, kernel) for _ in range(blocks - 1)),
    )


def _initialise(module: nn.Module) -> None:
    """He's normal initialisation for the LeakyReLU's slope, biases 0, a residual branch silent at first: as nnU-Net."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, a=_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, ResidualBlock):
        nn.init.zeros_(module.second.norm.weight)
        nn.init.zeros_(module.second.norm.bias)


def _check_patch_size(value: Any) -> Pair:
    whole = isinstance(value, Collection) and all(
        isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in value
    )
    if not whole or len(value) != 2:
        raise SettingError(
            f"patch_size is {value!r}; it must be two whole numbers of pixels, (y, x), such as (256, 256)"
        )
    height, width = value
    return height, width


def _check_spacing(value: Any) -> tuple[float, float]:
    positive = isinstance(value, Collection) and all(
        isinstance(mm, int | float) and not isinstance(mm, bool) and 0 < mm < math.inf for mm in value
    )
    if not positive or len(value) != 2:
        raise SettingError(
            f"spacing_yx_mm is {value!r}; it must be two positive numbers of mm, (y, x), such as (1.25, 1.25)"
        )
    y, x = value
    return float(y), float(x)


class NnUNet(SegmentationNetwork):
    """nnU-Net's 2-D U-Net, plain or residual, planned by its own rule (Isensee et al., 2021).

    See the module. Channels of stage S are base_channels · 2^S, but no more than max_features.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 4,
        architecture: str = "plain",
        patch_size: Collection[int] = (256, 256),
        spacing_yx_mm: Collection[float] = (1.0, 1.0),
        base_channels: int = 32,
        max_features: int = 512,
        aux_loss: bool = False,
    ) -> None:
        """architecture: "plain" or "residual". patch_size in pixels and spacing_yx_mm in mm, both (y, x), decide depth, strides and
        kernels; images of any size are taken. aux_loss: heads at all decoder stages but the coarsest (of whose loss nnU-Net takes
        nothing). Raises SettingError.
        """
        patch, spacing = _check_patch_size(patch_size), _check_spacing(spacing_yx_mm)
        topology = plan_topology(patch, spacing)
        stages = len(topology.strides)
        if stages < 2:
            raise SettingError(
                f"patch_size is {patch}, at spacing_yx_mm {spacing} too small to be halved once; it must be at least (8, 8), "
                "or 12 along one axis"
            )
        check_counts(base_channels=base_channels, max_features=max_features, in_channels=in_channels)
        channels = [min(base_channels * 2**stage, max_features) for stage in range(stages)]
        super().__init__(
            num_classes=num_classes, map_channels=channels[: max(1, stages - 2)], levels=0, aux_loss=aux_loss
        )
        self.multiple = topology.multiple
        residual = check_choice("architecture", architecture, ARCHITECTURES) == "residual"
        self.stem = ConvNorm(in_channels, channels[0], topology.kernels[0]) if residual else None
        make_stage = _residual_stage if residual else _plain_stage
        inputs = [channels[0] if residual else in_channels, *channels]
        self.encoder = nn.ModuleList(
            map(make_stage, range(stages), inputs, channels, topology.kernels, topology.strides)
        )
        make_up = partial(NnUNetUpStage, convs=1 if residual else _PLAIN_CONVS)
        self.decoder = nn.ModuleList(
            map(make_up, channels[1:], channels, topology.kernels, topology.strides[1:])
        )
        self.apply(_initialise)
        prefer_channels_last(self)

    def decoder_maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """Decoder maps of all stages, finest first; of those, all but the coarsest can have heads."""
        return decode(self.decoder, encode(self.encoder, x_BCHW if self.stem is None else self.stem(x_BCHW)))
