"""ResNet-50 of the public hybrid vision Transformers: standardised convolutions, group norm, three of the four blocks.

Kolesnikov et al., *Big Transfer*, ECCV 2020, as it stands before the Transformer in Dosovitskiy et al., *An Image is Worth 16x16 Words*,
ICLR 2021 ("R50+ViT-B_16"). Everything is as those weights were trained: "same" padding (which puts the odd pixel behind), norm and ReLU
after each convolution, 32 groups with eps 1e-6 in every norm. The TransUNet code, the usual port, differs in padding and groups, not in
its parameters. Weights are loaded by `r50_vit_weights.py`.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import gcd
from typing import Annotated

import torch
from pydantic import Field, Strict
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.networks.layers.checks import Count

LEVELS = 4
Width = Annotated[int, Strict(), Field(ge=2)]
Units = tuple[Count, Count, Count]


class StandardisedConv2d(nn.Conv2d):
    """A convolution without bias whose kernels have mean 0 and deviation 1 for each output channel; "same" padding for even sizes.

    The deviation is √(variance + 1e-10) where the public model has deviation + 1e-5: the norm that follows takes the difference out, and
    layer norm does it all in one pass, 1 % of an inference of one 256² image on a processor (7 % in several). So nothing is cached.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, bias=False)
        self.margin = (kernel - stride) // 2, (kernel - stride + 1) // 2

    def forward(self, x_BCHW: Tensor) -> Tensor:
        weight_OHWI = self.weight.permute(0, 2, 3, 1)  # a view of a channels-last weight
        weight = F.layer_norm(weight_OHWI, weight_OHWI.shape[1:], eps=1e-10).permute(0, 3, 1, 2)
        before, after = self.margin
        if before == after:
            return F.conv2d(x_BCHW, weight, None, self.stride, before)
        if after > 0:
            x_BCHW = F.pad(x_BCHW, (before, after, before, after))
        return F.conv2d(x_BCHW, weight, None, self.stride)


def group_norm(channels: int) -> nn.GroupNorm:
    """32 groups, or as many as divide the channels."""
    return nn.GroupNorm(gcd(32, channels), channels, eps=1e-6)


class BottleneckUnit(nn.Module):
    """1×1 → 3×3 → 1×1, each with its norm, plus the shortcut, projected where channels or resolution change; ReLU after the sum."""

    def __init__(self, in_channels: int, inner: int, stride: int = 1) -> None:
        super().__init__()
        channels = 4 * inner
        self.conv1 = StandardisedConv2d(in_channels, inner, 1)
        self.gn1 = group_norm(inner)
        self.conv2 = StandardisedConv2d(inner, inner, 3, stride)
        self.gn2 = group_norm(inner)
        self.conv3 = StandardisedConv2d(inner, channels, 1)
        self.gn3 = group_norm(channels)
        self.conv_proj: nn.Module | None = None
        if stride > 1 or in_channels != channels:
            self.conv_proj = StandardisedConv2d(in_channels, channels, 1, stride)
            self.gn_proj = group_norm(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        kept = x_BCHW if self.conv_proj is None else self.gn_proj(self.conv_proj(x_BCHW))
        y = F.relu_(self.gn1(self.conv1(x_BCHW)))
        y = F.relu_(self.gn2(self.conv2(y)))
        return F.relu_(torch.add(self.gn3(self.conv3(y)), kept))


class ResNet50(nn.Module):
    """Image (B, in_channels, H, W), H and W multiples of 16 → maps at ½, ¼, ⅛ and 1/16 of `channels`.

    A single channel is repeated to the three that the public weights know; any other number has a stem of its own.
    """

    def __init__(self, in_channels: int, width: int, units: Sequence[int]) -> None:
        super().__init__()
        self.repeat = 3 if in_channels == 1 else 1
        self.channels = (width, 4 * width, 8 * width, 16 * width)
        self.conv_root = StandardisedConv2d(in_channels * self.repeat, width, 7, 2)
        self.gn_root = group_norm(width)
        self.blocks = nn.ModuleList()
        for block, (before, channels) in enumerate(pairwise(self.channels)):
            first = BottleneckUnit(before, channels // 4, 2 if block else 1)
            others = (BottleneckUnit(channels, channels // 4) for _ in range(units[block] - 1))
            self.blocks.append(nn.Sequential(first, *others))

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        if self.repeat > 1:
            x_BCHW = x_BCHW.expand(-1, self.repeat, -1, -1)
        maps = [F.relu_(self.gn_root(self.conv_root(x_BCHW)))]
        x = F.max_pool2d(maps[0], 3, 2, ceil_mode=True)  # ceil_mode is "same" padding here
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps
