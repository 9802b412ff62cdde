"""A U-Net whose skips pass additive attention gates: the coarser map decides where a skip is let through.

Oktay et al.: *Attention U-Net: Learning Where to Look for the Pancreas*, MIDL 2018. As there, the gate works at the coarser map's
resolution, and the skip of full resolution has none: it does not represent the image in a high enough dimension. The U-Net round the
gates is `unet`'s, so that a comparison of the two is one of the gates alone.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.networks.blocks import decode
from utseg.networks.checks import check_choice, check_whole
from utseg.networks.network import SegmentationNetwork, prefer_channels_last, upsample
from utseg.networks.unet import NORMS, UPSAMPLINGS, DoubleConv, UpStage


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
        self.up = UpStage(channels, norm, upsampling)

    def forward(self, low_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        x: Tensor = self.up(low_BCHW, self.gate(skip_BCHW, low_BCHW))
        return x


class AttentionUNet(SegmentationNetwork):
    """U-Net with additive attention gates on its skips (Oktay et al., 2018).

    See the module. Channels at level L are base_channels · 2^L.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 4,
        base_channels: int = 32,
        levels: int = 4,
        norm: str = "batch",
        upsampling: str = "transposed",
        aux_loss: bool = False,
    ) -> None:
        """levels: halvings; skips of levels 1 … levels - 1 have gates. norm: "batch" or "instance". upsampling: "transposed" or
        "bilinear". aux_loss: heads at ½, ¼, … too. Raises SettingError.
        """
        check_whole("levels", levels)
        check_whole("base_channels", base_channels)
        channels = [base_channels * 2**level for level in range(levels + 1)]
        super().__init__(
            num_classes=num_classes, map_channels=channels[:-1], levels=levels, aux_loss=aux_loss
        )
        check_whole("in_channels", in_channels)
        check_choice("norm", norm, tuple(NORMS))
        check_choice("upsampling", upsampling, UPSAMPLINGS)
        self.encoder = nn.ModuleList(
            DoubleConv(channels[level - 1] if level else in_channels, channels[level], norm)
            for level in range(levels + 1)
        )
        self.decoder = nn.ModuleList(
            (GatedUpStage if level else UpStage)(channels[level], norm, upsampling) for level in range(levels)
        )
        prefer_channels_last(self)

    def decoder_maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """Decoder maps at levels 0 … levels - 1."""
        maps: list[Tensor] = []
        for level, stage in enumerate(self.encoder):
            maps.append(stage(F.max_pool2d(maps[-1], 2) if level else x_BCHW))
        return decode(self.decoder, maps)
