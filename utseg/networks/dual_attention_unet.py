"""The pre-activation residual U-Net with dual attention at its bottleneck: each position asks all others, each channel all others.

Fu et al.: *Dual Attention Network for Scene Segmentation* (DANet), CVPR 2019, in the network that is UTNet without attention; the
sum of the two branches replaces the bottleneck's map. Convolutions are pre-activation as everywhere in that network.

The paper multiplies what attention adds by γ, which is learnt and starts at 0, so that no gradient reaches queries and keys at first.
Here it starts at 0.1.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.networks.layers.blocks import PreActivationBlock, join_heads, without_autocast
from utseg.networks.layers.checks import Count, Flag
from utseg.networks.network import UShapedNetwork
from utseg.networks.utnet import residual_decoder, residual_encoder

_PARTS = 8  # queries and keys have an eighth of the channels of the values
_FIRST_GAMMA = 0.1


class PositionAttention(nn.Module):
    """γ·softmax(q·kᵀ)·v + x over all H·W positions. Fu et al., section 3.2; the logits are not scaled.

    Values are taken in eighths, each as wide as queries and keys, as heads that share these: torch's fused attention asks for equal
    widths, and keeps no position-by-position matrix.
    """

    def __init__(self, channels: int) -> None:
        """`channels`: a multiple of 8."""
        super().__init__()
        self.query = nn.Conv2d(channels, channels // _PARTS, 1)
        self.key = nn.Conv2d(channels, channels // _PARTS, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.full((1,), _FIRST_GAMMA))

    def _parts(self, x_BCHW: Tensor) -> Tensor:
        """(B, eighths, H·W, channels of one); channels next to each other in memory, as fused attention wants them."""
        x_BNC = x_BCHW.permute(0, 2, 3, 1).flatten(1, 2).contiguous()
        x_BPND: Tensor = x_BNC.unflatten(2, (-1, self.query.out_channels)).transpose(1, 2)
        return x_BPND

    def forward(self, x_BCHW: Tensor) -> Tensor:
        q, k, v = (self._parts(project(x_BCHW)) for project in (self.query, self.key, self.value))
        q_BPND, k_BPND = (x.expand(-1, _PARTS, -1, -1) for x in (q, k))
        out_BPND = F.scaled_dot_product_attention(q_BPND, k_BPND, v, scale=1.0)
        return torch.addcmul(x_BCHW, self.gamma[:, None, None], join_heads(out_BPND, x_BCHW.shape[-2:]))


class ChannelAttention(nn.Module):
    """γ·softmax(largest - x·xᵀ)·x + x over all channels, without weights. Fu et al., section 3.3, as in the authors' code, where the
    energies are taken from their row's largest: channels that are unlike weigh most. (softmax does not see the largest.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((1,), _FIRST_GAMMA))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCN = x_BCHW.flatten(2)
        with without_autocast(x_BCN.device.type):  # sums over all pixels: too large for half precision
            wide = x_BCN.float()
            weights_BCC = torch.softmax(-(wide @ wide.transpose(1, 2)), dim=-1)
        out_BCHW = (weights_BCC.to(x_BCN.dtype) @ x_BCN).view_as(x_BCHW)
        return torch.addcmul(x_BCHW, self.gamma[:, None, None], out_BCHW)


class NormConv(nn.Module):
    """BN → ReLU → 3×3 without a bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x: Tensor = self.conv(F.relu_(self.norm(x_BCHW)))
        return x


class DualAttention(nn.Module):
    """Position and channel attention side by side, each on a quarter of the channels, and summed at all of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inside = -(-channels // (4 * _PARTS)) * _PARTS
        self.branches = nn.ModuleList(
            nn.Sequential(NormConv(channels, inside), attention, NormConv(inside, channels))
            for attention in (PositionAttention(inside), ChannelAttention())
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        by_position, by_channel = self.branches
        return torch.add(by_position(x_BCHW), by_channel(x_BCHW))


class DualAttentionUNet(UShapedNetwork):
    """Residual U-Net, position and channel attention at its bottleneck (DANet: Fu et al., 2019)."""

    def __init__(
        self,
        *,
        in_channels: Count = 1,
        num_classes: Count = 4,
        base_channels: Count = 32,
        levels: Count = 4,
        aux_loss: Flag = False,
    ) -> None:
        super().__init__(num_classes, base_channels, levels, aux_loss)
        self.encoder = residual_encoder(in_channels, self.channels, PreActivationBlock)
        self.attention = DualAttention(self.channels[-1])
        self.decoder = residual_decoder(self.channels, PreActivationBlock)

    def encode(self, x_BCHW: Tensor) -> list[Tensor]:
        """Encoder maps at levels 0 … levels, the coarsest after attention."""
        *maps, coarsest = super().encode(x_BCHW)
        return [*maps, self.attention(coarsest)]
