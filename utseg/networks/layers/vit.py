"""Vision Transformer on a map: patches, learnt positions, pre-norm layers of full self-attention.

Dosovitskiy et al., *An Image is Worth 16x16 Words*, ICLR 2021; without the class token, so that a map comes out. Full attention grows with
the square of the number of patches; `attention.py` has the one that does not. Public weights are loaded by `r50_vit_weights.py`.

Axes: B batch, N = H·W patches, C hidden size, E heads, D = C/E.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.networks.layers.dropout import dropout as drop
from utseg.networks.layers.sizes import upsample

GRID = 16


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """Initialised as the public model: Xavier-uniform weights, biases next to zero."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.normal_(layer.bias, std=1e-6)
    return layer


class TransformerLayer(nn.Module):
    """x + attention(LN(x)), then + MLP(LN(·)) with GELU; dropout inside the MLP and after it."""

    def __init__(self, hidden: int, heads: int, mlp_size: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.norm1 = nn.LayerNorm(hidden, eps=1e-6)
        self.qkv = _linear(hidden, 3 * hidden)
        for projection in self.qkv.weight.data.chunk(
            3
        ):  # each its own Xavier fan, though they are stored as one
            nn.init.xavier_uniform_(projection)
        self.out = _linear(hidden, hidden)
        self.norm2 = nn.LayerNorm(hidden, eps=1e-6)
        self.fc1 = _linear(hidden, mlp_size)
        self.fc2 = _linear(mlp_size, hidden)

    def forward(self, x_BNC: Tensor) -> Tensor:
        qkv_BN3ED = self.qkv(self.norm1(x_BNC)).unflatten(2, (3, self.heads, -1))
        q_BEND, k_BEND, v_BEND = qkv_BN3ED.permute(2, 0, 3, 1, 4).unbind()
        seen_BEND = F.scaled_dot_product_attention(q_BEND, k_BEND, v_BEND)
        x_BNC = x_BNC + self.out(seen_BEND.transpose(1, 2).flatten(2))
        inner = drop(F.gelu(self.fc1(self.norm2(x_BNC))), self.dropout, self.training)
        return x_BNC + drop(self.fc2(inner), self.dropout, self.training)


class VisionTransformer(nn.Module):
    """Map (B, in_channels, H, W) → (B, hidden, H/patch, W/patch).

    Positions are stored for a 16 × 16 grid and resized to any other, bilinearly with corners aligned.
    """

    position_table_names: ClassVar = ("positions",)

    def __init__(
        self,
        in_channels: int,
        *,
        patch: int,
        hidden: int,
        layers: int,
        heads: int,
        mlp_size: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.embedding = nn.Conv2d(in_channels, hidden, patch, patch)
        self.positions = nn.Parameter(torch.randn(1, hidden, GRID, GRID) * 0.02)
        self.layers = nn.ModuleList(TransformerLayer(hidden, heads, mlp_size, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden, eps=1e-6)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        patches_BCHW = self.embedding(x_BCHW)
        grid_HW = (patches_BCHW.shape[2], patches_BCHW.shape[3])
        placed_BCHW = patches_BCHW + upsample(self.positions, grid_HW)
        x_BNC = drop(placed_BCHW.permute(0, 2, 3, 1).flatten(1, 2), self.dropout, self.training)
        for layer in self.layers:
            x_BNC = layer(x_BNC)
        y_BCHW: Tensor = self.norm(x_BNC).unflatten(1, grid_HW).permute(0, 3, 1, 2)
        return y_BCHW
