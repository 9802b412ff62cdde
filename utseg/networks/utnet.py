"""UTNet: a U-Net of pre-activation residual blocks with efficient attention at chosen levels of encoder and decoder.

Gao, Zhou, Metaxas: *UTNet: A Hybrid Transformer Architecture for Medical Image Segmentation*, MICCAI 2021. Level L is the resolution
after L halvings. `utnet_encoder` and `resunet` are this with attention in the encoder only and without any.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.errors import SettingError
from utseg.networks.layers.attention import AttentionSettings, EfficientAttention, check_attention
from utseg.networks.layers.blocks import PreActivationBlock, PreActivationBottleneck, decode
from utseg.networks.layers.checks import (
    check_choice,
    check_flag,
    check_levels_listed,
    check_whole,
    entries_by_level,
)
from utseg.networks.layers.norm_relu_conv import norm_relu_conv
from utseg.networks.network import Family, SegmentationNetwork, prefer_channels_last, upsample

DOWNSAMPLINGS = ("maxpool", "strided")
ATTENTION_IN = ("both", "encoder", "decoder")
Block = Callable[..., nn.Module]


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

    def __init__(self, channels: int, heads: int, attention: AttentionSettings) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.attention = EfficientAttention(channels, heads=heads, **attention)
        self.feed_forward = FeedForward(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y: Tensor = self.feed_forward(x_BCHW + self.attention(self.norm(x_BCHW)))
        return y


class DownStage(nn.Module):
    """A convolutional block, then transformer blocks, or a second convolutional block where there are none.

    Halves the resolution, unless it is the stem: by max-pooling before the first block, or by a stride in it.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        block: Block,
        *,
        halving: str | None,
        transformer: Sequence[Callable[[], nn.Module]],
    ) -> None:
        """`halving`: one of DOWNSAMPLINGS, or None. `transformer`: makes each transformer block."""
        super().__init__()
        self.pool = halving == "maxpool"
        self.first = block(in_channels, channels, 2 if halving == "strided" else 1)
        self.second = nn.Sequential(*(make() for make in transformer or [partial(block, channels, channels)]))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = F.max_pool2d(x_BCHW, 2) if self.pool else x_BCHW
        y: Tensor = self.second(self.first(x))
        return y


class PlainUpStage(nn.Module):
    """Bring the coarser map to the skip's size and channels, join them, two convolutional blocks.

    The 1×1 convolution runs before the upsampling, on a quarter of the pixels. The two commute: bilinear weights sum to one.
    """

    def __init__(self, channels: int, block: Block = PreActivationBlock) -> None:
        super().__init__()
        self.project = nn.Conv2d(2 * channels, channels, 1)
        self.blocks = nn.Sequential(block(2 * channels, channels), block(channels, channels))

    def forward(self, low_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        up = upsample(self.project(low_BCHW), skip_BCHW.shape[-2:])
        x: Tensor = self.blocks(torch.cat([skip_BCHW, up], dim=1))
        return x

    def macs_spared(self, low_BCHW: Tensor, skip_BCHW: Tensor) -> int:
        """What the published order, upsampling first, costs more, in multiply-accumulates."""
        places = skip_BCHW.shape[2] * skip_BCHW.shape[3] - low_BCHW.shape[2] * low_BCHW.shape[3]
        return places * low_BCHW.numel() // (low_BCHW.shape[2] * low_BCHW.shape[3]) * skip_BCHW.shape[1]


class AttentionUpStage(nn.Module):
    """The skip asks the coarser map; the answer plus the upsampled coarser map, the feed-forward, join with the skip, one block."""

    def __init__(
        self, channels: int, heads: int, attention: AttentionSettings, block: Block = PreActivationBlock
    ) -> None:
        super().__init__()
        self.low_norm = nn.BatchNorm2d(2 * channels)
        self.skip_norm = nn.BatchNorm2d(channels)
        self.project = nn.Conv2d(2 * channels, channels, 1)
        self.attention = EfficientAttention(channels, heads=heads, key_channels=2 * channels, **attention)
        self.feed_forward = FeedForward(channels)
        self.blocks = nn.Sequential(block(2 * channels, channels))

    def forward(self, low_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        up = upsample(self.project(low_BCHW), skip_BCHW.shape[-2:])
        up = up + self.attention(self.skip_norm(skip_BCHW), self.low_norm(low_BCHW))
        x: Tensor = self.blocks(torch.cat([self.feed_forward(up), skip_BCHW], dim=1))
        return x


@dataclass(frozen=True)
class Placement:
    """Where attention goes. `attended`: the levels of block_list; blocks and heads by level."""

    channels: tuple[int, ...]
    attended: tuple[int, ...]
    blocks: Mapping[int, int]
    heads: Mapping[int, int]
    attention_in: str

    @classmethod
    def checked(
        cls,
        channels: tuple[int, ...],
        block_list: Sequence[int],
        num_blocks: Sequence[int],
        num_heads: Sequence[int],
        attention_in: str,
    ) -> "Placement":
        """From UTNet's settings of those names. Raises SettingError."""
        levels = len(channels) - 1
        attended = check_levels_listed("block_list", block_list, levels)
        return cls(
            channels,
            attended,
            blocks={0: 1} | entries_by_level("num_blocks", num_blocks, attended, levels),
            heads=entries_by_level("num_heads", num_heads, attended, levels),
            attention_in=check_choice("attention_in", attention_in, ATTENTION_IN),
        )

    def encoder(self, level: int, attention: AttentionSettings) -> list[Callable[[], nn.Module]]:
        """What makes each transformer block of an encoder level; none where it has no attention."""
        if level not in self.attended or self.attention_in == "decoder":
            return []
        heads = self._heads_at(level, level)
        return [partial(TransformerBlock, self.channels[level], heads, attention)] * self.blocks[level]

    def decoder(self, level: int, attention: AttentionSettings, block: Block) -> nn.Module:
        """A decoder level. It uses the heads of the encoder level below it where there is an entry, else its own."""
        if level not in self.attended or self.attention_in == "encoder":
            return PlainUpStage(self.channels[level], block)
        heads = self._heads_at(level, level + 1 if level + 1 in self.heads else level)
        return AttentionUpStage(self.channels[level], heads, attention, block)

    def _heads_at(self, level: int, entry: int) -> int:
        if entry not in self.heads:
            given = tuple(self.heads.values())
            raise SettingError(f"num_heads is {given!r}; level {entry} in block_list needs an entry too")
        heads, channels = self.heads[entry], self.channels[level]
        if channels % heads:
            raise SettingError(
                f"num_heads has {heads} for level {level}; it must divide the {channels} channels there"
            )
        return heads


class UTNet(SegmentationNetwork):
    """U-Net with efficient attention in encoder and decoder (Gao, Zhou, Metaxas, 2021).

    See the module. Channels at level L are base_channels · 2^L.
    """

    family: ClassVar[Family] = "hybrid"

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 4,
        base_channels: int = 32,
        levels: int = 4,
        block_list: Sequence[int] = (1, 2, 3, 4),
        num_blocks: Sequence[int] = (1, 1, 1, 1),
        num_heads: Sequence[int] = (4, 4, 4, 4),
        reduce_size: int = 8,
        projection: str = "interp",
        relative_position: str = "2d-bias",
        attention_in: str = "both",
        downsampling: str = "maxpool",
        bottleneck: bool = False,
        dropout: float = 0.1,
        aux_loss: bool = True,
    ) -> None:
        """levels: halvings. block_list: levels that carry attention. num_blocks, num_heads: an entry for each of them, or for
        levels 1 … `levels`, or 0 … `levels`, or one for all; a decoder level uses the heads of the level below it, as in the official
        code. reduce_size: keys and values are resized to reduce_size². projection: how, "interp" (bilinear) or "maxpool".
        relative_position: "2d-bias" (a table), "1d-qk" (the paper's S_H + S_W) or "none". attention_in: "both", "encoder" or
        "decoder". downsampling: "maxpool", or "strided" (a stride in the first block of a level). bottleneck: bottleneck blocks in
        place of basic ones, except in the stem. dropout: of attention weights and of the attention's output, in training.
        Raises SettingError.
        """
        check_whole("levels", levels)
        check_whole("base_channels", base_channels)
        channels = tuple(base_channels * 2**level for level in range(levels + 1))
        super().__init__(
            num_classes=num_classes, map_channels=channels[:-1], levels=levels, aux_loss=aux_loss
        )
        check_whole("in_channels", in_channels)
        check_choice("downsampling", downsampling, DOWNSAMPLINGS)
        placement = Placement.checked(channels, block_list, num_blocks, num_heads, attention_in)
        attention = check_attention(
            reduce_size=reduce_size,
            projection=projection,
            relative_position=relative_position,
            dropout=dropout,
        )
        block = _block(bottleneck, base_channels)
        self.encoder = nn.ModuleList(
            DownStage(
                in_channels if level == 0 else channels[level - 1],
                channels[level],
                block if level else PreActivationBlock,
                halving=downsampling if level else None,
                transformer=placement.encoder(level, attention),
            )
            for level in range(levels + 1)
        )
        self.decoder = nn.ModuleList(placement.decoder(level, attention, block) for level in range(levels))
        prefer_channels_last(self)

    def from_public_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Those of the official UTNet; see `utseg.networks.pretrained.official`."""
        from utseg.networks.pretrained.official import from_official, is_official  # which knows this class

        return from_official(self, weights) if is_official(weights) else None

    def decoder_maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """Decoder maps at levels 0 … levels - 1."""
        maps: list[Tensor] = []
        for stage in self.encoder:
            maps.append(stage(maps[-1] if maps else x_BCHW))
        return decode(self.decoder, maps)


def _block(bottleneck: bool, base_channels: int) -> Block:
    if not check_flag("bottleneck", bottleneck):
        return PreActivationBlock
    if base_channels % 4:
        raise SettingError(
            f"base_channels is {base_channels}; with bottleneck blocks it must be a multiple of 4"
        )
    return PreActivationBottleneck
