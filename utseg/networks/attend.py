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

from utseg.networks.dropout import Mask, draw_seed

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
    if q_BEND.device.type == "cpu" and not torch.compiler.is_compiling():
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
    out_BEND = F.scaled_dot_product_attention(q_BEND, k_BEKD, v_BEKD, attn_mask=mask, dropout_p=dropout)
    return out_BEND.transpose(1, 2).contiguous()


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class _Tile(NamedTuple):
    """One head of one image, and a range of whole coarse rows: queries start … stop."""

    image: int
    head: int
    start: int
    stop: int
    rows: list[tuple[int, int, int]]  # coarse row, and its first and last query counted from `start`


def _tiles(images: int, heads: int, size_HW: tuple[int, int], reduce_size: int) -> Iterator[_Tile]:
    H, W = size_HW
    groups: list[list[tuple[int, int, int]]] = []
    for row in range(reduce_size):
        first, last = (-(-edge * H // reduce_size) * W for edge in (row, row + 1))
        if first == last:
            continue
        if groups and last - groups[-1][0][1] <= _TILE:
            groups[-1].append((row, first, last))
        else:
            groups.append([(row, first, last)])
    for image in range(images):
        for head in range(heads):
            for group in groups:
                start = group[0][1]
                yield _Tile(
                    image, head, start, group[-1][2], [(r, a - start, b - start) for r, a, b in group]
                )


class _Scratch:
    """Buffers that all tiles of a call share, and the parts of the computation that forward and backward share.

    Logits are scaled by scaling the keys and the position beforehand, which are small.
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
        most = max(tile.stop - tile.start for tile in self.tiles)
        self.logits_TK = q_BEND.new_empty(most, K)
        self.weights_TK = q_BEND.new_empty(most, K)
        if dropout:
            self.mask = Mask(most * K, dropout, seed, q_BEND)

    def weights(self, tile: _Tile) -> Tensor:
        """Attention weights (T, K) of a tile, before dropout. Overwritten by the next call."""
        T = tile.stop - tile.start
        logits = self.logits_TK[:T]
        torch.mm(
            self.q[tile.image, tile.head, tile.start : tile.stop], self.k[tile.image, tile.head].T, out=logits
        )
        if self.bias is not None:
            for row, first, last in tile.rows:
                logits[first:last].view(-1, self.W, logits.shape[1]).add_(self.bias[tile.head, row])
        if self.s_h is not None and self.s_w is not None:
            part = (tile.image, tile.head, slice(tile.start, tile.stop))
            by_row_and_column = logits.view(T, self.R, self.R)
            by_row_and_column.add_(self.s_h[part][:, :, None], alpha=self.scale)
            by_row_and_column.add_(self.s_w[part][:, None, :], alpha=self.scale)
        return torch.softmax(logits, -1, out=self.weights_TK[:T])


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
            out = out_BNED[tile.image, tile.start : tile.stop, tile.head]
            torch.mm(weights, v[tile.image, tile.head], out=out)
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
            at, queries = (tile.image, tile.head), slice(tile.start, tile.stop)
            grad_out = grad_BNED[tile.image, queries, tile.head]
            weights = scratch.weights(tile)
            T, K = weights.shape
            grad = torch.mm(grad_out, v[at].T, out=scratch.logits_TK[:T])
            if dropout:
                kept = scratch.mask.draw((T, K))
                grad.mul_(kept)
                grad_v[at].addmm_(kept.mul_(weights).T, grad_out)
            else:
                grad_v[at].addmm_(weights.T, grad_out)
            torch.ops.aten._softmax_backward_data.out(grad, weights, -1, weights.dtype, grad_input=grad)
            torch.mm(grad, scratch.k[at], out=grad_q_BNED[tile.image, queries, tile.head])
            grad_k[at].addmm_(grad.T, q[at][queries])
            if grad_bias is not None:
                for row, first, last in tile.rows:
                    grad_bias[tile.head, row].add_(grad[first:last].view(-1, size_HW[1], K).sum(0))
            if grad_h is not None and grad_w is not None:
                by_row_and_column = grad.view(T, scratch.R, scratch.R)
                torch.sum(by_row_and_column, 2, out=grad_h[at][queries])
                torch.sum(by_row_and_column, 1, out=grad_w[at][queries])
        grad_v.div_(1 - dropout)
        for scaled in (grad_k, grad_bias, grad_h, grad_w):
            if scaled is not None:
                scaled.mul_(scratch.scale)
        return grad_q_BNED.transpose(1, 2), grad_k, grad_v, grad_bias, grad_h, grad_w, None, None, None
