"""Blocks that several networks are made of."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.networks.layers.device_path import on_cpu
from utseg.networks.layers.norm_relu_conv import norm_relu_conv
from utseg.networks.layers.sizes import upsample

# The `foldable` of a block: its convolutions, each with the normalisation that alone reads the result. Subclasses say their own.
Pairs = tuple[tuple[str, str], ...]


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Full precision inside, on devices that have autocast at all (the meta device has none)."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


class DepthwiseSeparable(nn.Module):
    """Depthwise 3×3, then 1×1, neither with a bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x: Tensor = self.pointwise(self.depthwise(x_BCHW))
        return x


class _Residual(nn.Module):
    """What a block computes plus a shortcut. Nothing follows the sum.

    The shortcut is the identity, or BN → ReLU → 1×1 where channels or resolution change.
    He et al., *Identity Mappings in Deep Residual Networks*, ECCV 2016.
    """

    def add_shortcut(self, in_channels: int, out_channels: int, stride: int) -> None:
        self.shortcut: nn.Conv2d | None = None
        if in_channels != out_channels or stride != 1:
            self.shortcut_norm = nn.BatchNorm2d(in_channels)
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def residual(self, x_BCHW: Tensor) -> Tensor:
        """What is added to the shortcut."""
        raise NotImplementedError

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = self.residual(x_BCHW)
        if self.shortcut is None:
            return torch.add(y, x_BCHW)
        return torch.add(y, norm_relu_conv(self.shortcut_norm, self.shortcut, x_BCHW))


class PreActivationBlock(_Residual):
    """(BN → ReLU → 3×3) twice plus a shortcut. `stride` is that of the first 3×3 and of the shortcut."""

    foldable: ClassVar[Pairs] = (("conv1", "norm2"),)

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.add_shortcut(in_channels, out_channels, stride)

    def residual(self, x_BCHW: Tensor) -> Tensor:
        return norm_relu_conv(self.norm2, self.conv2, norm_relu_conv(self.norm1, self.conv1, x_BCHW))


class PreActivationBottleneck(_Residual):
    """BN → ReLU → 1×1, BN → ReLU → 3×3, BN → ReLU → 1×1 plus a shortcut; a quarter of the channels, a multiple of 4, inside.

    `stride` is that of the 3×3 and of the shortcut.
    """

    foldable: ClassVar[Pairs] = (("conv1", "norm2"), ("conv2", "norm3"))

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        inner = out_channels // 4
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.add_shortcut(in_channels, out_channels, stride)

    def residual(self, x_BCHW: Tensor) -> Tensor:
        y = norm_relu_conv(self.norm2, self.conv2, norm_relu_conv(self.norm1, self.conv1, x_BCHW))
        return norm_relu_conv(self.norm3, self.conv3, y)


class InstanceNorm(nn.Module):
    """Each channel of each image to mean 0 and variance 1 over its pixels, then a learnt scale and offset.

    On the CPU as a group norm of one channel a group: the same numbers, without a copy of channels-last maps to and fro.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if on_cpu(x_BCHW):
            return F.group_norm(x_BCHW, x_BCHW.shape[1], self.weight, self.bias, self.eps)
        return F.instance_norm(x_BCHW, weight=self.weight, bias=self.bias, eps=self.eps)


class UpsampledProjection(nn.Conv2d):
    """A 1×1 convolution, then bilinear upsampling. Publications do it the other way round, on four times as many pixels: the two commute,
    since bilinear weights sum to one.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, low_BCHW: Tensor, size_HW: Sequence[int]) -> Tensor:  # type: ignore[override]
        return upsample(super().forward(low_BCHW), size_HW)

    def macs_spared(self, low_BCHW: Tensor, size_HW: Sequence[int]) -> int:
        """What the published order costs more."""
        batch, _, height, width = low_BCHW.shape
        return batch * (size_HW[0] * size_HW[1] - height * width) * self.in_channels * self.out_channels


def split_heads(x_BCHW: Tensor, heads: int) -> Tensor:
    """(B, C, H, W) → (B, E, H·W, D); a view of a channels-last map."""
    x_BNED: Tensor = x_BCHW.permute(0, 2, 3, 1).flatten(1, 2).unflatten(2, (heads, -1))
    return x_BNED.transpose(1, 2)


def join_heads(x_BEND: Tensor, size_HW: Sequence[int]) -> Tensor:
    """The inverse of `split_heads`, channels last."""
    x_BCHW: Tensor = x_BEND.transpose(1, 2).flatten(2).unflatten(1, tuple(size_HW)).permute(0, 3, 1, 2)
    return x_BCHW


def conv_norm_relu(in_channels: int, out_channels: int, kernel: int = 3) -> nn.Sequential:
    """kernel × kernel without a bias → BN → ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def encode(stages: nn.ModuleList, x_BCHW: Tensor) -> list[Tensor]:
    """The map of each encoder stage, finest first; each stage takes the map before it."""
    maps: list[Tensor] = []
    for stage in stages:
        maps.append(stage(maps[-1] if maps else x_BCHW))
    return maps


def decode(stages: nn.ModuleList, maps: list[Tensor]) -> list[Tensor]:
    """Decoder maps, finest first, from encoder maps (one more than there are stages). Empties `maps`, so that inference can let go.

    `stages`: finest first; each takes the coarser decoder map (the first, the coarsest encoder map) and the skip of its level.
    """
    decoded = [maps.pop()]
    for stage in reversed(stages):
        decoded.append(stage(decoded[-1], maps.pop()))
    return decoded[:0:-1]
