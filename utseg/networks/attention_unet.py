"""A U-Net whose skips pass additive attention gates: the coarser map decides where a skip is let through.

Oktay et al.: *Attention U-Net: Learning Where to Look for the Pancreas*, MIDL 2018. As there, the gate works at the coarser map's
resolution, and the skip of full resolution has none: it does not represent the image in a high enough dimension. The U-Net round the
gates is `unet`'s, so that a comparison of the two is one of the gates alone.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.networks.layers.sizes import upsample
from utseg.networks.unet import UNet, UNetUpStage


class AttentionGate(nn.Module):
    """α·x with α = sigmoid(ψ(ReLU(W_x x + W_g g))), one α a pixel. W_x halves the resolution, α is brought back bilinearly."""

    def __init__(self, channels: int, gate_channels: int) -> None:
        """`channels` of the skip, which is also how many there are inside; `gate_channels` of the coarser map."""
        super().__init__()
        self.from_skip = nn.Conv2d(channels, channels, 2, stride=2, bias=False)
        self.from_gate = nn.Conv2d(gate_channels, channels, 1)
        self.score = nn.Conv2d(channels, 1, 1)

    def coefficients(self, skip_BCHW: Tensor, gate_BGhw: Tensor) -> Tensor:
        """α (B, 1, H, W), each from 0 to 1; `gate_BGhw` has half the skip's height and width."""
        inside = F.relu_(torch.add(self.from_skip(skip_BCHW), self.from_gate(gate_BGhw)))
        return upsample(torch.sigmoid(self.score(inside)), skip_BCHW.shape[-2:])

    def forward(self, skip_BCHW: Tensor, gate_BGhw: Tensor) -> Tensor:
        return skip_BCHW * self.coefficients(skip_BCHW, gate_BGhw)


class GatedUpStage(nn.Module):
    """A U-Net's decoder level, whose skip passes a gate that the coarser map opens."""

    def __init__(self, channels: int, norm: str, upsampling: str) -> None:
        super().__init__()
        self.gate = AttentionGate(channels, 2 * channels)
        self.up = UNetUpStage(channels, norm, upsampling)

    def forward(self, low_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        x: Tensor = self.up(low_BCHW, self.gate(skip_BCHW, low_BCHW))
        return x


class AttentionUNet(UNet):
    """U-Net with additive attention gates on its skips (Oktay et al., 2018)."""

    def up_stage(self, level: int) -> type[nn.Module]:
        """A gated stage; at full resolution a plain one."""
        return GatedUpStage if level else UNetUpStage
