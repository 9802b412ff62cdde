"""U-Net on the ResNet-50 of the public hybrid vision Transformers, with UTNet's efficient attention on its skips and bottom.

Gao, Zhou, Metaxas: *UTNet*, MICCAI 2021, official code: Transformer blocks stand between the encoder's maps and the decoder, so that the
convolutions of the encoder never see their results. Heads are meant as heads here; the official code takes the number given for the
channels of a head. The decoder is the official UTNet's: one pre-activation block a level, logits by a 3×3 convolution of the finest
map (½), upsampled. The encoder takes the public weights `R50+ViT-B_16.npz`. `resnet50_unet` is this without attention.
"""

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from utseg.networks.layers.attention import EfficientAttention
from utseg.networks.layers.blocks import PreActivationBlock, UpsampledProjection, decode
from utseg.networks.layers.checks import (
    Count,
    Counts,
    Flag,
    Fraction,
    Levels,
    Projection,
    ReduceSize,
    RelativePosition,
    check_divides,
    check_listed,
    one_each,
)
from utseg.networks.layers.resnet50 import LEVELS, ResNet50, Units, Width
from utseg.networks.layers.sizes import upsample
from utseg.networks.network import Family, SegmentationNetwork
from utseg.networks.pretrained.r50_vit_weights import import_r50_vit, resnet_layers
from utseg.networks.utnet import TransformerBlock


class ResNetUpStage(nn.Module):
    """Bring the coarser map to the skip's size and channels, join them, one pre-activation block."""

    def __init__(self, low_channels: int, channels: int) -> None:
        super().__init__()
        self.project = UpsampledProjection(low_channels, channels)
        self.block = PreActivationBlock(2 * channels, channels)

    def forward(self, low_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        up = self.project(low_BCHW, skip_BCHW.shape[-2:])
        x: Tensor = self.block(torch.cat([skip_BCHW, up], dim=1))
        return x


class ResNet50UTNet(SegmentationNetwork):
    """ResNet-50 U-Net with efficient attention on its skips and bottom (Gao et al. 2021).

    Channels are resnet_width · (1, 4, 8, 16) at ½, ¼, ⅛ and 1/16.
    """

    family: ClassVar[Family] = "hybrid"

    def __init__(
        self,
        *,
        in_channels: Count = 1,
        num_classes: Count = 4,
        resnet_width: Width = 64,
        resnet_units: Units = (3, 4, 9),
        attention_blocks: Levels = (1, 2, 3),
        transformer_blocks: Counts = (1,),
        attention_heads: Counts = (4,),
        reduce_size: ReduceSize = 8,
        projection: Projection = "interp",
        relative_position: RelativePosition = "2d-bias",
        attention_dropout: Fraction = 0.1,
        aux_loss: Flag = False,
    ) -> None:
        """resnet_width: channels of the stem. resnet_units: bottleneck units of the three blocks. attention_blocks: blocks whose maps get
        attention, 0 (the stem, ½) to 3 (1/16). transformer_blocks, attention_heads: an entry for each of them, or one for all.
        reduce_size, …, attention_dropout: as in UTNet. aux_loss: heads at ¼ and ⅛ too.
        """
        attended = check_listed("attention_blocks", attention_blocks, 3, "numbers")
        blocks = one_each("transformer_blocks", transformer_blocks, attended, "attention_blocks")
        heads = one_each("attention_heads", attention_heads, attended, "attention_blocks")
        encoder = ResNet50(in_channels, resnet_width, resnet_units)
        super().__init__(
            num_classes=num_classes,
            map_channels=encoder.channels[:-1],
            levels=LEVELS,
            aux_loss=aux_loss,
            head_kernel=3,
        )
        self.encoder = encoder
        self.decoder = nn.ModuleList(ResNetUpStage(low, own) for own, low in pairwise(encoder.channels))
        attention = partial(
            EfficientAttention,
            reduce_size=reduce_size,
            projection=projection,
            relative_position=relative_position,
            dropout=attention_dropout,
        )
        self.transformers = nn.ModuleDict()
        for block in attended:
            channels = encoder.channels[block]
            check_divides("attention_heads", heads[block], channels, f"block {block}")
            layers = (TransformerBlock(channels, heads[block], attention) for _ in range(blocks[block]))
            self.transformers[str(block)] = nn.Sequential(*layers)

    def skips(self, maps: list[Tensor]) -> list[Tensor]:
        """The encoder's maps after their Transformer blocks."""
        return [
            self.transformers[str(block)](x) if str(block) in self.transformers else x
            for block, x in enumerate(maps)
        ]

    def decoder_maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """Decoder maps at ½ (upsampled to full size), ¼ and ⅛."""
        finest, *others = decode(self.decoder, self.skips(self.encoder(x_BCHW)))
        return [upsample(finest, x_BCHW.shape[-2:]), *others]

    def from_public_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """The encoder out of the public `R50+ViT-B_16.npz`; see `r50_vit_weights.py`."""
        return import_r50_vit({"encoder.": self.encoder}, weights)

    def pretrained_layers(self) -> list[tuple[str, ...]]:
        """Stem and blocks of the ResNet."""
        return resnet_layers(self.encoder, "encoder.")
