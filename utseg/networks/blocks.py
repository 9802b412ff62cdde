"""Blocks that several networks are made of."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DepthwiseSeparable(nn.Module):
    """Depthwise 3×3, then 1×1, neither with a bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x: Tensor = self.pointwise(self.depthwise(x_BCHW))
        return x


class PreActivationBlock(nn.Module):
    """(BN → ReLU → 3×3) twice plus a shortcut: identity, or BN → ReLU → 1×1 where the channels change. Nothing follows the sum.

    He et al., *Identity Mappings in Deep Residual Networks*, ECCV 2016.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if in_channels != out_channels:
            self.shortcut_norm = nn.BatchNorm2d(in_channels)
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = self.conv1(F.relu_(self.norm1(x_BCHW)))
        y = self.conv2(F.relu_(self.norm2(y)))
        kept = x_BCHW if self.shortcut is None else self.shortcut(F.relu_(self.shortcut_norm(x_BCHW)))
        return torch.add(y, kept)
