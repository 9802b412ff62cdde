"""UTNet's efficient attention: queries from every pixel, keys and values from a map resized to reduce_size².

One implementation for encoder (self-attention) and decoder (the skip asks, the coarser map answers). Logits are
(q·kᵀ + position) · dim_head^-½. Gao, Zhou, Metaxas, *UTNet*, MICCAI 2021, section 2.1; there is no pixel-by-pixel matrix anywhere.

What is cheaper here than in the plain form, and exactly equal to it:
- bilinear resizing commutes with the 1×1 convolution that makes keys and values, so they are made for reduce_size² pixels only;
- channels are stored as (heads, dim_head), so a head is a contiguous slice (`official.py` reorders checkpoints).

Axes: B batch, E heads, D dim_head, N = H·W query pixels, R reduce_size, K = R² keys.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.networks.layers.attend import attend, coarse_cells
from utseg.networks.layers.blocks import DepthwiseSeparable, join_heads, split_heads
from utseg.networks.layers.dropout import dropout as drop


class PositionBias2D(nn.Module):
    """A learnt bias for each offset between coarse cells, the same for every input."""

    position_table_names: ClassVar = ("table",)
    offsets: Tensor

    def __init__(self, reduce_size: int, heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn((2 * reduce_size - 1) ** 2, heads) * 0.02)
        cell = torch.cartesian_prod(torch.arange(reduce_size), torch.arange(reduce_size)).reshape(-1, 2)
        offset_CK2 = cell[:, None] - cell[None, :] + reduce_size - 1
        index_CK = offset_CK2[..., 0] * (2 * reduce_size - 1) + offset_CK2[..., 1]
        self.register_buffer("offsets", index_CK, persistent=False)

    def forward(self) -> Tensor:
        """Bias (E, R² query cells, R² keys)."""
        cells, keys = self.offsets.shape
        return self.table[self.offsets.flatten()].T.reshape(-1, cells, keys)


class PositionLogits1D(nn.Module):
    """The paper's S_H and S_W: query times the embedding of its row (column) offset to the key, on the coarse grid."""

    position_table_names: ClassVar = ("key_w", "key_h")

    def __init__(self, reduce_size: int, dim_head: int) -> None:
        super().__init__()
        self.reduce_size = reduce_size
        self.key_w = nn.Parameter(torch.randn(2 * reduce_size - 1, dim_head) * 0.02)
        self.key_h = nn.Parameter(torch.randn(2 * reduce_size - 1, dim_head) * 0.02)

    def _along(self, q_BENsD: Tensor, table: Tensor, cells: Tensor) -> Tensor:
        """(…, S, D) and the cells (S) of one axis → (…, S, R)."""
        offset_SR = (
            torch.arange(self.reduce_size, device=cells.device) - cells[:, None] + self.reduce_size - 1
        )
        return torch.einsum("...sd,srd->...sr", q_BENsD, table[offset_SR].to(q_BENsD.dtype))

    def forward(self, q_BEND: Tensor, size_HW: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(S_H, S_W), each (B, E, N, R): the part of the logits that depends on a key's row, and on its column."""
        q_BEHWD = q_BEND.unflatten(2, size_HW)
        rows, columns = (coarse_cells(size, self.reduce_size, q_BEND.device) for size in size_HW)
        s_h = self._along(q_BEHWD.transpose(2, 3), self.key_h, rows).transpose(2, 3)
        s_w = self._along(q_BEHWD, self.key_w, columns)
        return s_h.flatten(2, 3), s_w.flatten(2, 3)


class EfficientAttention(nn.Module):
    """Attention from a map (B, C, H, W) to `reduce_size`² resized keys and values of itself or of another map."""

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        reduce_size: int,
        projection: str,
        relative_position: str,
        dropout: float,
        key_channels: int | None = None,
    ) -> None:
        """`projection`: how keys and values are resized, "interp" (bilinear) or "maxpool". `relative_position`: "2d-bias" (a table),
        "1d-qk" (the paper's S_H + S_W) or "none". `key_channels`: channels of the other map; None is self-attention, where one depthwise
        convolution serves q, k and v.
        """
        super().__init__()
        self.heads, self.reduce_size, self.projection, self.dropout = heads, reduce_size, projection, dropout
        if key_channels is None:
            self.to_qkv = DepthwiseSeparable(channels, 3 * channels)
        else:
            self.to_q = DepthwiseSeparable(channels, channels)
            self.to_kv = DepthwiseSeparable(key_channels, 2 * channels)
        self.to_out = DepthwiseSeparable(channels, channels)
        self.bias = PositionBias2D(reduce_size, heads) if relative_position == "2d-bias" else None
        logits = relative_position == "1d-qk"
        self.logits = PositionLogits1D(reduce_size, channels // heads) if logits else None

    def _keys_and_values(self, mixed_BCHW: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Resized keys and values (B, E, K, D) of a map that went through its depthwise convolution."""
        size = (self.reduce_size, self.reduce_size)
        if self.projection == "interp":
            resized = F.interpolate(mixed_BCHW, size, mode="bilinear", align_corners=True)
            both = F.conv2d(resized, weight)
        else:
            both = F.adaptive_max_pool2d(F.conv2d(mixed_BCHW, weight), size)
        key, value = both.chunk(2, dim=1)
        return split_heads(key, self.heads), split_heads(value, self.heads)

    def forward(self, x_BCHW: Tensor, other: Tensor | None = None) -> Tensor:
        """`other`: the map that keys and values come from, of any size; None is `x_BCHW` itself. Returns the shape of `x_BCHW`."""
        channels, size_HW = x_BCHW.shape[1], (x_BCHW.shape[2], x_BCHW.shape[3])
        if other is None:
            mixed = self.to_qkv.depthwise(x_BCHW)
            weight = self.to_qkv.pointwise.weight
            q_BEND = split_heads(F.conv2d(mixed, weight[:channels]), self.heads)
            k_BEKD, v_BEKD = self._keys_and_values(mixed, weight[channels:])
        else:
            q_BEND = split_heads(self.to_q(x_BCHW), self.heads)
            k_BEKD, v_BEKD = self._keys_and_values(self.to_kv.depthwise(other), self.to_kv.pointwise.weight)
        dropout = self.dropout if self.training else 0.0
        bias_ECK = None if self.bias is None else self.bias()
        rows_columns = None if self.logits is None else self.logits(q_BEND, size_HW)
        out_BNED = attend(
            q_BEND, k_BEKD, v_BEKD, size_HW, bias_ECK=bias_ECK, rows_columns=rows_columns, dropout=dropout
        )
        out_BCHW = join_heads(out_BNED.transpose(1, 2), size_HW)
        return drop(self.to_out(out_BCHW), dropout, self.training)

    def macs_spared(self, x_BCHW: Tensor, other: Tensor | None = None) -> int:
        """What the published order costs more: keys and values of all pixels before they are resized, and logits of all 2R - 1 offsets."""
        source = x_BCHW if other is None else other
        R, channels = self.reduce_size, x_BCHW.shape[1]
        spared = 0
        if self.projection == "interp":
            pixels = source.shape[0] * (source.shape[2] * source.shape[3] - R**2)
            spared += pixels * source.shape[1] * 2 * channels
        if self.logits is not None:
            spared += 2 * (R - 1) * x_BCHW.numel()
        return spared
