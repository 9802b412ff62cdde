"""softmax((q·kᵀ + position)·D^-½)·v for many queries and few keys.

Two formulations of the same. On CUDA, and while a graph is exported or compiled, torch's fused `scaled_dot_product_attention` with the
position as mask. On CPU its kernel has neither a gradient for the mask nor dropout, and falls back to a form that keeps four N × K matrices
a layer; there `_Tiled` runs over a few thousand queries at a time that stay in cache, keeps nothing N × K, and computes each tile
again in backward (Chen et al., *Training Deep Nets with Sublinear Memory Cost*, 2016; Dao et al., *FlashAttention*, NeurIPS 2022).

Axes: B batch, E heads, D dim_head, N = H·W query pixels, R reduce_size, C = R² query cells, K = R² keys, T queries of a tile.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from utseg.networks.layers.device_path import on_cpu
from utseg.networks.layers.dropout import Mask, draw_seed

# Queries of a tile: logits of 4096 × 64 are 1 MiB, so that three such buffers stay in the second-level caches of two cores.
_TILE = 4096


def coarse_cells(size: int, reduce_size: int, device: torch.device | None = None) -> Tensor:
    """Which of `reduce_size` cells each of `size` positions falls into: floor(i · reduce_size / size)."""
    return torch.arange(size, device=device) * reduce_size // size


def attend(
    q_BEND: Tensor,
    k_BEKD: Tensor,
    v_BEKD: Tensor,
    size_HW: tuple[int, int],
    *,
    bias_ECK: Tensor | None = None,
    rows_columns: tuple[Tensor, Tensor] | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """The attended values (B, N, E, D), contiguous.

    bias_ECK: added to the logits, by the coarse cell of the query. rows_columns: two (B, E, N, R), added by the key's row and column.
    dropout: the fraction of attention weights that is dropped. On the CPU the seed of the draw is drawn from torch's generator.
    """
    R = round(k_BEKD.shape[2] ** 0.5)
    bias_ERWK = None
    if bias_ECK is not None:
        columns = coarse_cells(size_HW[1], R, q_BEND.device)
        bias_ERWK = bias_ECK.unflatten(1, (R, R))[:, :, columns]
    if on_cpu(q_BEND) and not torch.compiler.is_compiling():
        s_h, s_w = rows_columns or (None, None)
        seed = draw_seed(q_BEND) if dropout else 0
        with torch.autocast("cpu", enabled=False):
            wide = [
                None if x is None else _at_least_float32(x)
                for x in (q_BEND, k_BEKD, v_BEKD, bias_ERWK, s_h, s_w)
            ]
            out_BNED: Tensor = _Tiled.apply(*wide, size_HW, dropout, seed)
        return out_BNED.to(q_BEND.dtype)
    mask = None
    if bias_ERWK is not None:
        mask = bias_ERWK[:, coarse_cells(size_HW[0], R, q_BEND.device)].flatten(1, 2)[None]
    if rows_columns is not None:
        mask = (rows_columns[0][..., :, None] + rows_columns[1][..., None, :]).flatten(3)
    mask = None if mask is None else (mask * q_BEND.shape[-1] ** -0.5).to(q_BEND.dtype)
    if isinstance(q_BEND, FakeTensor) and not on_cpu(q_BEND):
        # what the fused one runs on a GPU, which CPUs do not have
        mask = None if mask is None else mask.expand(*q_BEND.shape[:3], -1)
        efficient = torch.ops.aten._scaled_dot_product_efficient_attention
        out_BEND = efficient(q_BEND, k_BEKD, v_BEKD, mask, torch.is_grad_enabled(), dropout)[0]
    else:
        out_BEND = F.scaled_dot_product_attention(q_BEND, k_BEKD, v_BEKD, attn_mask=mask, dropout_p=dropout)
    result_BNED: Tensor = out_BEND.transpose(1, 2).contiguous()
    return result_BNED


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class _Tile(NamedTuple):
    """Some heads of one image, and a range of whole coarse rows: queries start … stop."""

    image: int
    heads: slice
    start: int
    stop: int
    rows: list[tuple[int, slice]]  # coarse rows, each with its queries counted from `start`


def _tiles(images: int, heads: int, size_HW: tuple[int, int], reduce_size: int) -> Iterator[_Tile]:
    """As many whole coarse rows as `_TILE` queries hold; of a map that is smaller, as many heads."""
    height, width = size_HW
    edges = [-(-row * height // reduce_size) * width for row in range(reduce_size + 1)]
    groups: list[list[int]] = []  # coarse rows of a tile
    for row in range(reduce_size):
        if groups and edges[row + 1] - edges[groups[-1][0]] <= _TILE:
            groups[-1].append(row)
        elif edges[row] < edges[row + 1]:
            groups.append([row])
    at_once = max(1, min(heads, _TILE // (height * width)))
    for image in range(images):
        for head in range(0, heads, at_once):
            for group in groups:
                start, stop = edges[group[0]], edges[group[-1] + 1]
                rows = [(row, slice(edges[row] - start, edges[row + 1] - start)) for row in group]
                rows = [(row, queries) for row, queries in rows if queries.start < queries.stop]
                yield _Tile(image, slice(head, min(head + at_once, heads)), start, stop, rows)


class _Scratch:
    """Buffers that all tiles of a call share, and the parts of the computation that forward and backward share.

    Logits are scaled by scaling the keys and the position beforehand, which are small. Of a tile: h heads, T queries.
    """

    def __init__(
        self,
        q_BEND: Tensor,
        k_BEKD: Tensor,
        position: tuple[Tensor | None, Tensor | None, Tensor | None],
        size_HW: tuple[int, int],
        dropout: float,
        seed: int,
    ) -> None:
        B, E, _, D = q_BEND.shape
        K = k_BEKD.shape[2]
        self.q, self.W, self.R = q_BEND, size_HW[1], round(K**0.5)
        self.scale = D**-0.5
        self.k = k_BEKD * self.scale
        bias, self.s_h, self.s_w = position
        self.bias = None if bias is None else bias * self.scale
        tiles = _tiles(B, E, size_HW, self.R)
        # All tiles share the buffers: where only sizes matter (planning memory) one tells as much as thousands.
        self.tiles = list(islice(tiles, 1) if isinstance(q_BEND, FakeTensor) else tiles)
        most = max((tile.heads.stop - tile.heads.start) * (tile.stop - tile.start) for tile in self.tiles) * K
        self._logits = q_BEND.new_empty(most)
        self._weights = q_BEND.new_empty(most)
        if dropout:
            self.mask = Mask(most, dropout, seed, q_BEND)

    def shape(self, tile: _Tile) -> tuple[int, int, int]:
        """(h, T, K) of a tile."""
        return tile.heads.stop - tile.heads.start, tile.stop - tile.start, self.k.shape[2]

    def logits(self, tile: _Tile) -> Tensor:
        """The buffer for logits, or their gradient, (h, T, K)."""
        h, T, K = self.shape(tile)
        return self._logits[: h * T * K].view(h, T, K)

    def by_pixel_row(self, x_hTK: Tensor, queries: slice) -> Tensor:
        """The queries of a coarse row, (h, its pixel rows, W, K); a view."""
        rows_hYWK: Tensor = x_hTK[:, queries].unflatten(1, (-1, self.W))
        return rows_hYWK

    def weights(self, tile: _Tile) -> Tensor:
        """Attention weights (h, T, K) of a tile, before dropout. Overwritten by the next call."""
        at, queries = (tile.image, tile.heads), slice(tile.start, tile.stop)
        logits = self.logits(tile)
        torch.bmm(self.q[at][:, queries], self.k[at].mT, out=logits)
        if self.bias is not None:
            for row, of_row in tile.rows:
                self.by_pixel_row(logits, of_row).add_(self.bias[tile.heads, row, None])
        if self.s_h is not None and self.s_w is not None:
            by_row_and_column = logits.unflatten(2, (self.R, self.R))
            by_row_and_column.add_(self.s_h[at][:, queries, :, None], alpha=self.scale)
            by_row_and_column.add_(self.s_w[at][:, queries, None, :], alpha=self.scale)
        return torch.softmax(logits, -1, out=self._weights[: logits.numel()].view(logits.shape))


class _Tiled(torch.autograd.Function):
    """See the module. bias_ERWK: the bias of the coarse cells, with columns repeated to pixels."""

    @staticmethod
    def forward(
        ctx: Any,
        q_BEND: Tensor,
        k_BEKD: Tensor,
        v_BEKD: Tensor,
        bias_ERWK: Tensor | None,
        s_h: Tensor | None,
        s_w: Tensor | None,
        size_HW: tuple[int, int],
        dropout: float,
        seed: int,
    ) -> Tensor:
        ctx.save_for_backward(q_BEND, k_BEKD, v_BEKD, bias_ERWK, s_h, s_w)
        ctx.settings = (size_HW, dropout, seed)
        scratch = _Scratch(q_BEND, k_BEKD, (bias_ERWK, s_h, s_w), size_HW, dropout, seed)
        v = v_BEKD / (1 - dropout)
        B, E, N, D = q_BEND.shape
        out_BNED = q_BEND.new_empty(B, N, E, D)
        for tile in scratch.tiles:
            weights = scratch.weights(tile)
            if dropout:
                weights.mul_(scratch.mask.draw(weights.shape))
            attended_hDT = torch.bmm(v[tile.image, tile.heads].mT, weights.mT)
            out_BNED[tile.image, tile.start : tile.stop, tile.heads] = attended_hDT.permute(2, 0, 1)
        return out_BNED

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BNED: Tensor) -> tuple[Tensor | None, ...]:
        q, k_BEKD, v_BEKD, *position = ctx.saved_tensors
        size_HW, dropout, seed = ctx.settings
        scratch = _Scratch(q, k_BEKD, tuple(position), size_HW, dropout, seed)
        v = v_BEKD / (1 - dropout)
        grad_q_BNED = torch.empty_like(grad_BNED, memory_format=torch.contiguous_format)
        grad_k, grad_v = (
            torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (k_BEKD, v_BEKD)
        )
        grad_bias, grad_h, grad_w = (None if x is None else torch.zeros_like(x) for x in position)
        for tile in scratch.tiles:
            at, queries = (tile.image, tile.heads), slice(tile.start, tile.stop)
            grad_out = grad_BNED[tile.image, queries, tile.heads].transpose(0, 1)
            weights = scratch.weights(tile)
            grad = torch.bmm(grad_out, v[at].mT, out=scratch.logits(tile))
            if dropout:
                kept = scratch.mask.draw(weights.shape)
                grad.mul_(kept)
                grad_v[at].mT.add_(torch.bmm(grad_out.mT, kept.mul_(weights)))
            else:
                grad_v[at].mT.add_(torch.bmm(grad_out.mT, weights))
            torch.ops.aten._softmax_backward_data.out(grad, weights, -1, weights.dtype, grad_input=grad)
            grad_q_hDT = torch.bmm(scratch.k[at].mT, grad.mT)
            grad_q_BNED[tile.image, queries, tile.heads] = grad_q_hDT.permute(2, 0, 1)
            grad_k[at].mT.add_(torch.bmm(q[at][:, queries].mT, grad))
            if grad_bias is not None:
                for row, of_row in tile.rows:
                    grad_bias[tile.heads, row].add_(scratch.by_pixel_row(grad, of_row).sum(1))
            if grad_h is not None and grad_w is not None:
                by_row_and_column = grad.unflatten(2, (scratch.R, scratch.R))
                grad_h[at][:, queries] = by_row_and_column.sum(3)
                grad_w[at][:, queries] = by_row_and_column.sum(2)
        grad_v.div_(1 - dropout)
        for scaled in (grad_k, grad_bias, grad_h, grad_w):
            if scaled is not None:
                scaled.mul_(scratch.scale)
        return grad_q_BNED.transpose(1, 2), grad_k, grad_v, grad_bias, grad_h, grad_w, None, None, None
