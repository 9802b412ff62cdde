"""UTNet: a U-Net of pre-activation residual blocks with efficient attention at chosen levels of encoder and decoder.

Gao, Zhou, Metaxas: *UTNet: A Hybrid Transformer Architecture for Medical Image Segmentation*, MICCAI 2021. Level L is the resolution
after L halvings. `utnet_encoder` and `resunet` are this with attention in the encoder only and without any.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.errors import SettingError
from utseg.networks.layers.attention import EfficientAttention
from utseg.networks.layers.blocks import PreActivationBlock, PreActivationBottleneck, UpsampledProjection
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
    entries_by_level,
)
from utseg.networks.layers.norm_relu_conv import norm_relu_conv
from utseg.networks.layers.sizes import upsample
from utseg.networks.network import Family, UShapedNetwork
from utseg.networks.utnet_planning import plan_attention, with_entries_by_level

Block = Callable[..., nn.Module]
Attention = Callable[..., EfficientAttention]


class FeedForward(nn.Module):
    """x + 1×1 convolution of ReLU(BN(x))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.add(x_BCHW, norm_relu_conv(self.norm, self.conv, x_BCHW))


class TransformerBlock(nn.Module):
    """x + attention(BN(x)), then the feed-forward."""

    def __init__(self, channels: int, heads: int, attention: Attention) -> None:
        """`attention` makes the attention of so many channels and heads."""
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.attention = attention(channels, heads)
        self.feed_forward = FeedForward(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y: Tensor = self.feed_forward(x_BCHW + self.attention(self.norm(x_BCHW)))
        return y


class DownStage(nn.Module):
    """A convolutional block, then transformer blocks, or `conv_blocks` convolutional blocks where there are none.

    Halves the resolution, unless it is the stem: by max-pooling before the first block, or by a stride in it.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        block: Block,
        halving: str | None,
        transformer: Sequence[Block] = (),
        conv_blocks: int = 2,
    ) -> None:
        """`halving`: "maxpool", "strided", or None. `transformer`: makes each transformer block."""
        super().__init__()
        self.pool = halving == "maxpool"
        self.first = block(in_channels, channels, 2 if halving == "strided" else 1)
        further = transformer or [partial(block, channels, channels)] * (conv_blocks - 1)
        self.second = nn.Sequential(*(make() for make in further))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = F.max_pool2d(x_BCHW, 2) if self.pool else x_BCHW
        y: Tensor = self.second(self.first(x))
        return y


def residual_encoder(in_channels: int, channels: Sequence[int], block: Block) -> nn.ModuleList:
    """The stages of an encoder without attention, max-pooling between them."""
    return nn.ModuleList(
        DownStage(before, after, block, "maxpool" if level else None)
        for level, (before, after) in enumerate(pairwise((in_channels, *channels)))
    )


class PlainUpStage(nn.Module):
    """Bring the coarser map to the skip's size and channels, join them, convolutional blocks."""

    def __init__(self, channels: int, block: Block, conv_blocks: int = 2) -> None:
        super().__init__()
        self.project = UpsampledProjection(2 * channels, channels)
        further = (block(channels, channels) for _ in range(conv_blocks - 1))
        self.blocks = nn.Sequential(block(2 * channels, channels), *further)

    def forward(self, low_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        up = self.project(low_BCHW, skip_BCHW.shape[-2:])
        x: Tensor = self.blocks(torch.cat([skip_BCHW, up], dim=1))
        return x


def residual_decoder(channels: Sequence[int], block: Block) -> nn.ModuleList:
    """The stages of a decoder without attention, finest first."""
    return nn.ModuleList(PlainUpStage(width, block) for width in channels[:-1])


class AttentionUpStage(nn.Module):
    """The skip asks the coarser map; the answer plus the upsampled coarser map, the feed-forward, join with the skip, one block."""

    def __init__(self, channels: int, heads: int, attention: Attention, block: Block) -> None:
        super().__init__()
        self.low_norm = nn.BatchNorm2d(2 * channels)
        self.skip_norm = nn.BatchNorm2d(channels)
        self.project = nn.Conv2d(2 * channels, channels, 1)
        self.attention = attention(channels, heads, key_channels=2 * channels)
        self.feed_forward = FeedForward(channels)
        self.blocks = nn.Sequential(block(2 * channels, channels))

    def forward(self, low_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        up = upsample(self.project(low_BCHW), skip_BCHW.shape[-2:])
        up = up + self.attention(self.skip_norm(skip_BCHW), self.low_norm(low_BCHW))
        x: Tensor = self.blocks(torch.cat([self.feed_forward(up), skip_BCHW], dim=1))
        return x


def _heads_by_level(
    channels: Sequence[int], attended: Levels, num_heads: Counts, attention_in: str
) -> tuple[dict[int, int], dict[int, int]]:
    """Heads at the attending levels of encoder and decoder, which uses those of the level below where there is an entry."""
    deepest = len(channels) - 1
    entries = entries_by_level("num_heads", num_heads, attended, deepest)

    def heads(level: int, entry: int) -> int:
        if entry not in entries:
            raise SettingError(f"num_heads is {num_heads}; level {entry} in block_list needs an entry too")
        return check_divides("num_heads", entries[entry], channels[level], f"level {level}")

    of_encoder = () if attention_in == "decoder" else attended
    of_decoder = [level for level in attended if level < deepest and attention_in != "encoder"]
    encoder = {level: heads(level, level) for level in of_encoder}
    decoder = {level: heads(level, level + 1 if level + 1 in entries else level) for level in of_decoder}
    return encoder, decoder


class UTNet(UShapedNetwork):
    """U-Net with efficient attention in encoder and decoder (Gao, Zhou, Metaxas, 2021)."""

    family: ClassVar[Family] = "hybrid"
    published: ClassVar[Mapping[str, str]] = {
        "base_channels": "32 channels at full resolution",
        "levels": "4 halvings of the resolution",
        "block_list": "attention at levels 1, 2, 3 and 4",
        "num_blocks": "1 transformer block at each of the 4 levels",
        "num_heads": "4 heads at each of the 4 levels",
        "reduce_size": "keys and values resized to 8 × 8",
        "projection": "keys and values resized by bilinear interpolation, the default of the official code",
        "relative_position": "2-D input-independent position bias, the default of the official code",
        "conv_blocks": "2 convolutional blocks at each level without attention",
        "attention_dropout": "0.1 of attention weights and of attention's output, the default of the official code",
        "aux_loss": "deep supervision at ½, ¼ and ⅛ of the resolution",
    }

    plan_settings = staticmethod(plan_attention)
    completed_settings = staticmethod(with_entries_by_level)

    def __init__(
        self,
        *,
        in_channels: Count = 1,
        num_classes: Count = 4,
        base_channels: Count = 32,
        levels: Count = 4,
        block_list: Levels = (1, 2, 3, 4),
        num_blocks: Counts = (1, 1, 1, 1),
        num_heads: Counts = (4, 4, 4, 4),
        reduce_size: ReduceSize = 8,
        projection: Projection = "interp",
        relative_position: RelativePosition = "2d-bias",
        attention_in: Literal["both", "encoder", "decoder"] = "both",
        downsampling: Literal["maxpool", "strided"] = "maxpool",
        bottleneck: Flag = False,
        conv_blocks: Count = 2,
        attention_dropout: Fraction = 0.1,
        aux_loss: Flag = True,
    ) -> None:
        """block_list: levels that carry attention. num_blocks, num_heads: an entry for each of them, or for levels 1 … `levels`, or
        0 … `levels`, or one for all; a decoder level uses the heads of the level below it, as in the official code.
        reduce_size, projection, relative_position: as in `EfficientAttention`. downsampling: "strided" is a stride in the first block of
        a level. bottleneck: bottleneck blocks in place of basic ones, except in the stem. conv_blocks: convolutional blocks at each level
        of encoder and decoder that has no attention; with attention there is one. attention_dropout: of attention weights and of the
        attention's output, in training.
        """
        super().__init__(num_classes, base_channels, levels, aux_loss)
        if bottleneck and base_channels % 4:
            raise SettingError(
                f"base_channels is {base_channels}; with bottleneck blocks it must be a multiple of 4"
            )
        block = PreActivationBottleneck if bottleneck else PreActivationBlock
        attention = partial(
            EfficientAttention,
            reduce_size=reduce_size,
            projection=projection,
            relative_position=relative_position,
            dropout=attention_dropout,
        )
        attended = check_listed("block_list", block_list, levels, "levels")
        blocks = {0: 1} | entries_by_level("num_blocks", num_blocks, attended, levels)
        encoder_heads, decoder_heads = _heads_by_level(self.channels, attended, num_heads, attention_in)
        self.encoder = nn.ModuleList()
        for level, (before, after) in enumerate(pairwise((in_channels, *self.channels))):
            heads = encoder_heads.get(level)
            transformer = (
                [partial(TransformerBlock, after, heads, attention)] * blocks[level] if heads else []
            )
            first, halving = (block, downsampling) if level else (PreActivationBlock, None)
            self.encoder.append(DownStage(before, after, first, halving, transformer, conv_blocks))
        self.decoder = nn.ModuleList(
            AttentionUpStage(width, decoder_heads[level], attention, block)
            if level in decoder_heads
            else PlainUpStage(width, block, conv_blocks)
            for level, width in enumerate(self.channels[:-1])
        )

    def from_public_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Those of the official UTNet; see `utseg.networks.pretrained.official`."""
        from utseg.networks.pretrained.official import from_official, is_official  # which knows this class

        return from_official(self, weights) if is_official(weights) else None
