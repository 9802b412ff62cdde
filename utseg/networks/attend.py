"""softmax((q·kᵀ + position)·dim_head^-½)·v for many queries and few keys.

Axes: B batch, E heads, D dim_head, N = H·W query pixels, R reduce_size, C = R² query cells, K = R² keys.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


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
    dropout: the fraction of attention weights that is dropped.
    """
    logits = q_BEND @ k_BEKD.transpose(2, 3)
    if bias_ECK is not None:
        H, W = size_HW
        r = round(k_BEKD.shape[2] ** 0.5)
        rows = torch.arange(H, device=q_BEND.device) * r // H
        columns = torch.arange(W, device=q_BEND.device) * r // W
        cell = (rows[:, None] * r + columns).flatten()
        logits = logits + bias_ECK[:, cell]
    if rows_columns is not None:
        s_h, s_w = rows_columns
        logits = logits + (s_h[..., :, None] + s_w[..., None, :]).flatten(3)
    weights = F.dropout((logits * q_BEND.shape[-1] ** -0.5).softmax(-1), dropout, dropout > 0)
    return (weights @ v_BEKD).transpose(1, 2).contiguous()
