"""Parts of Swin Transformers: attention in windows that shift from block to block, merging and expanding of patches.

Liu et al., *Swin Transformer*, ICCV 2021; the expanding layers are from Cao et al., *Swin-Unet*, ECCV Workshops 2022. Maps of any size:
windows that reach over the border hold positions that no query sees; a map smaller than a window is one window. A shift is a margin of
window - shift before the first row and column: the groups of pixels of the published cyclic shift with its masks, and nothing is rolled.

Axes: B batch, H and W rows and columns of tokens, C channels, E heads, D channels of a head, G windows, K tokens of a window.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def drop_path(x_BHWC: Tensor, rate: float, training: bool) -> Tensor:
    """Stochastic depth: each sample of a batch is set to 0 with probability `rate`, else divided by 1 - rate. One draw a sample, from
    torch's generator; `x` itself when not training or at rate 0. Huang et al., *Deep Networks with Stochastic Depth*, ECCV 2016.
    """
    if not training or not rate:
        return x_BHWC
    kept_B111 = x_BHWC.new_empty((x_BHWC.shape[0], 1, 1, 1)).bernoulli_(1 - rate).div_(1 - rate)
    return x_BHWC * kept_B111


def window_along(size: int, window: int, shift: int) -> tuple[int, int, int]:
    """(window, margin before, margin after) along an axis of `size` tokens. Nothing is shifted where one window holds them all."""
    if size <= window:
        return size, 0, 0
    before = -shift % window
    return window, before, -(before + size) % window


class WindowAttention(nn.Module):
    """Self-attention of the tokens of each window, with a learnt bias for each offset between two of them."""

    position_table_names: ClassVar = ("bias_table",)
    offsets: Tensor

    def __init__(self, channels: int, *, heads: int, window: int, shift: int) -> None:
        """`shift`: tokens by which the windows are moved to the lower right, less than `window`."""
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.normal_(self.bias_table, std=0.02)
        row_or_column = torch.arange(window)
        offset_ww = row_or_column[:, None] - row_or_column[None, :] + window - 1
        index = offset_ww[:, None, :, None] * (2 * window - 1) + offset_ww[None, :, None, :]
        self.register_buffer("offsets", index, persistent=False)

    def bias(self, height: int, width: int) -> Tensor:
        """(E, K, K) of a window of height × width tokens, none larger than the window of the network."""
        index_KK = self.offsets[:height, :width, :height, :width].reshape(height * width, height * width)
        return self.bias_table[index_KK.flatten()].T.reshape(self.heads, *index_KK.shape)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        B, H, W, C = x_BHWC.shape
        (height, top, bottom), (width, left, right) = (
            window_along(size, self.window, self.shift) for size in (H, W)
        )
        qkv, real = self.qkv(x_BHWC), None
        if any((top, bottom, left, right)):
            margins = (0, 0, left, right, top, bottom)
            qkv, real = F.pad(qkv, margins), F.pad(x_BHWC.new_ones(H, W, 1), margins)
            real = real.unflatten(1, (-1, width)).unflatten(0, (-1, height))
        # (B, rows of windows, height, columns of windows, width, 3, E, D) → (3, B, rows, columns, E, height, width, D)
        split = qkv.unflatten(3, (3, self.heads, -1)).unflatten(2, (-1, width)).unflatten(1, (-1, height))
        grouped = split.permute(5, 0, 1, 3, 6, 2, 4, 7)
        rows, columns, D = grouped.shape[2], grouped.shape[3], grouped.shape[-1]
        mask = self.bias(height, width).to(qkv.dtype)
        if real is None:  # one mask for all windows, which are a batch
            q, k, v = grouped.reshape(3, -1, self.heads, height * width, D)
        else:  # one mask for each window, which lie along the heads: so images share them without a copy
            unseen_GK = real.permute(0, 2, 1, 3, 4).reshape(rows * columns, height * width) == 0
            q, k, v = grouped.reshape(3, B, -1, height * width, D)
            mask = mask.masked_fill(unseen_GK[:, None, None, :], -torch.inf).flatten(0, 1)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[None])
        whole = attended.reshape(B, rows, columns, self.heads, height, width, D).permute(0, 1, 4, 2, 5, 3, 6)
        whole_BHWC = whole.reshape(B, rows * height, columns * width, C)
        y: Tensor = self.out(whole_BHWC[:, top : top + H, left : left + W])
        return y


class SwinBlock(nn.Module):
    """x + attention(LN(x)), then + MLP(LN(x)), each dropped at random for whole samples in training."""

    def __init__(
        self, channels: int, *, heads: int, window: int, shift: int, mlp_ratio: int, drop_path: float
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads=heads, window=window, shift=shift)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, mlp_ratio * channels), nn.GELU(), nn.Linear(mlp_ratio * channels, channels)
        )

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x = x_BHWC + drop_path(self.attention(self.norm1(x_BHWC)), self.drop_path, self.training)
        return x + drop_path(self.mlp(self.norm2(x)), self.drop_path, self.training)


def swin_blocks(
    channels: int, drop_paths: Sequence[float], *, heads: int, window: int, mlp_ratio: int
) -> nn.Sequential:
    """A block for each rate of stochastic depth; every second one with its windows shifted by half a window."""
    sizes = {"heads": heads, "window": window, "mlp_ratio": mlp_ratio}
    return nn.Sequential(
        *(
            SwinBlock(channels, shift=window // 2 if position % 2 else 0, drop_path=rate, **sizes)
            for position, rate in enumerate(drop_paths)
        )
    )


class PatchEmbedding(nn.Module):
    """Image (B, C, H, W) → tokens (B, H/4, W/4, channels). A single channel is taken three times, as weights of colour images want it."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.repeat = in_channels == 1
        self.conv = nn.Conv2d(3 if self.repeat else in_channels, channels, 4, stride=4)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        weight = self.conv.weight
        if self.repeat:  # three equal channels under three weights are one channel under their sum
            weight = weight.sum(dim=1, keepdim=True)
        tokens: Tensor = self.norm(F.conv2d(x_BCHW, weight, self.conv.bias, stride=4).permute(0, 2, 3, 1))
        return tokens


class PatchMerging(nn.Module):
    """2 × 2 tokens of C channels become one of 2C."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduce = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        pairs = x_BHWC.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        merged: Tensor = self.reduce(self.norm(pairs.permute(0, 1, 3, 4, 2, 5).flatten(3)))
        return merged


class PatchExpanding(nn.Module):
    """A token of C channels becomes `factor`² tokens of `channels`, normalised.

    The published linear layer to factor² · channels and its rearrangement are one transposed convolution, which makes no copy.
    """

    def __init__(self, in_channels: int, channels: int, factor: int) -> None:
        super().__init__()
        self.expand = nn.ConvTranspose2d(in_channels, channels, factor, stride=factor, bias=False)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.expand(x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return tokens


def initialise(network: nn.Module) -> None:
    """Linear and expanding layers: weights N(0, .02²) and biases 0, as published. The rest keeps torch's defaults."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def drop_paths(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Rates of stochastic depth of the blocks of each stage: rising linearly from 0 to `rate`, as published."""
    last = max(sum(depths) - 1, 1)
    ends = [sum(depths[:stage]) for stage in range(len(depths) + 1)]
    return [[rate * block / last for block in range(*stage)] for stage in pairwise(ends)]
