"""Swin-Unet: a U-Net whose encoder and decoder are shifted-window Transformers.

Cao et al., *Swin-Unet: Unet-like Pure Transformer for Medical Image Segmentation*, ECCV Workshops 2022. Stage S works on tokens of
4·2^S pixels. The defaults are the tiny network of the publication; its head has no bias and the one here has.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from utseg.errors import SettingError
from utseg.networks.layers.checks import Count, Counts, Flag, Fraction, check_divides
from utseg.networks.layers.swin import (
    PatchEmbedding,
    PatchExpanding,
    PatchMerging,
    drop_paths,
    initialise,
    swin_blocks,
)
from utseg.networks.network import Family, SegmentationNetwork
from utseg.networks.pretrained.swin import import_swin


class SwinUpStage(nn.Module):
    """Expand the coarser tokens to half their channels, join them with the skip, blocks."""

    def __init__(self, channels: int, blocks: nn.Sequential) -> None:
        super().__init__()
        self.expand = PatchExpanding(2 * channels, channels, 2)
        self.join = nn.Linear(2 * channels, channels)
        self.blocks = blocks

    def forward(self, expanded_BHWC: Tensor, skip_BHWC: Tensor) -> Tensor:
        x: Tensor = self.blocks(self.join(torch.cat([expanded_BHWC, skip_BHWC], dim=-1)))
        return x


class SwinUNet(SegmentationNetwork):
    """Swin-Unet: shifted-window Transformer as encoder and decoder (Cao et al. 2022).

    Channels of stage S are embed_channels · 2^S. Images are padded to a multiple of 4 · 2^(stages - 1), 32 by default; windows need no
    more than that.
    """

    family: ClassVar[Family] = "transformer"

    def __init__(
        self,
        *,
        in_channels: Count = 1,
        num_classes: Count = 4,
        embed_channels: Count = 96,
        depths: Annotated[Counts, Field(min_length=1)] = (2, 2, 2, 2),
        window_heads: Counts = (3, 6, 12, 24),
        window_size: Count = 7,
        mlp_ratio: Count = 4,
        drop_path: Fraction = 0.2,
        aux_loss: Flag = False,
    ) -> None:
        """depths, window_heads: blocks and heads of each stage, finest first; the decoder mirrors them. window_size: tokens along each
        side of a window; 8 divides every map of a patch that is a multiple of 256. mlp_ratio: hidden channels of the MLPs to their
        input. drop_path: stochastic depth of the last block, rising linearly from none in the first. aux_loss: heads on the expanded
        tokens of 4, 8, 16 … pixels. One channel is taken three times; any other number has a patch embedding of its own.
        """
        if len(window_heads) != len(depths):
            raise SettingError(
                f"window_heads is {window_heads!r}, {len(window_heads)} entries; it must have one for each stage, "
                f"and depths has {len(depths)}"
            )
        channels = [embed_channels * 2**stage for stage in range(len(depths))]
        for stage, heads in enumerate(window_heads):
            check_divides("window_heads", heads, channels[stage], f"stage {stage}")
        super().__init__(
            num_classes=num_classes,
            map_channels=[embed_channels, *channels[:-1]],
            levels=len(depths) + 1,
            aux_loss=aux_loss,
        )
        self.depths = depths
        rates = drop_paths(drop_path, depths)

        def blocks(stage: int) -> nn.Sequential:
            sizes = {"heads": window_heads[stage], "window": window_size, "mlp_ratio": mlp_ratio}
            return swin_blocks(channels[stage], rates[stage], **sizes)

        self.embed = PatchEmbedding(in_channels, embed_channels)
        self.encoder = nn.ModuleList()
        for stage, width in enumerate(channels):
            self.encoder.append(nn.Sequential(OrderedDict(blocks=blocks(stage))))
            if width < channels[-1]:
                self.encoder[-1].add_module("merge", PatchMerging(width))
        self.norm = nn.LayerNorm(channels[-1])
        self.decoder = nn.ModuleList(
            SwinUpStage(width, blocks(stage)) for stage, width in enumerate(channels[:-1])
        )
        self.norm_up = nn.LayerNorm(embed_channels)
        self.final = PatchExpanding(embed_channels, embed_channels, 4)
        initialise(self)

    def decoder_maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """The full-resolution map, then the expanded tokens of stages 0, 1, … before they meet their skips."""
        tokens = self.embed(x_BCHW)
        skips = []
        for stage in self.encoder:
            skips.append(tokens)
            tokens = stage(tokens)
        tokens = self.norm(tokens)
        maps: list[Tensor] = []
        for stage, skip in zip(reversed(self.decoder), reversed(skips[:-1]), strict=True):
            assert isinstance(stage, SwinUpStage)
            tokens = stage.expand(tokens)
            maps.append(tokens)
            tokens = stage(tokens, skip)
        maps.append(self.final(self.norm_up(tokens)))
        return [tokens_BHWC.permute(0, 3, 1, 2) for tokens_BHWC in reversed(maps)]

    def pretrained_layers(self) -> list[tuple[str, ...]]:
        """The patch embedding (its norm alone where its convolution is not a colour image's), then block by block to the last stage."""
        embedded = "embed." if self.embed.conv.in_channels == 3 else "embed.norm."
        layers: list[tuple[str, ...]] = [(embedded,)]
        for stage, depth in enumerate(self.depths):
            prefix = f"encoder.{stage}"
            layers += [(f"{prefix}.blocks.{block}.",) for block in range(depth)]
            after = "norm." if stage + 1 == len(self.depths) else f"{prefix}.merge."
            layers[-1] = (*layers[-1], after)
        return layers

    def from_public_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """The encoder, and the decoder's blocks, out of a public Swin Transformer; see `pretrained/swin.py`."""
        return import_swin(self.state_dict(), self.depths, weights)
