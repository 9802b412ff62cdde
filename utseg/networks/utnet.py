"""UTNet: a U-Net of pre-activation residual blocks with efficient attention at chosen levels of encoder and decoder.

Gao, Zhou, Metaxas: *UTNet: A Hybrid Transformer Architecture for Medical Image Segmentation*, MICCAI 2021. Level L is the resolution
after L halvings. `utnet_encoder` and `resunet` are this with attention in the encoder only and without any.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.errors import SettingError
from utseg.networks.layers.attention import AttentionSettings, EfficientAttention
from utseg.networks.layers.blocks import PreActivationBlock, PreActivationBottleneck, UpsampledProjection
from utseg.networks.layers.checks import (
    check_choice,
    check_divides,
    check_flag,
    check_listed,
    entries_by_level,
)
from utseg.networks.layers.norm_relu_conv import norm_relu_conv
from utseg.networks.layers.sizes import upsample
from utseg.networks.network import Family, UShapedNetwork, prefer_channels_last
from utseg.networks.utnet_planning import plan_attention, with_entries_by_level

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
        self.attention = EfficientAttention(channels, heads, attention)
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
        transformer: Sequence[Callable[[], nn.Module]] = (),
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


def residual_encoder(in_channels: int, channels: Sequence[int], block: Block) -> nn.ModuleList:
    """The stages of an encoder without attention, max-pooling between them."""
    return nn.ModuleList(
        DownStage(before, after, block, halving="maxpool" if level else None)
        for level, (before, after) in enumerate(pairwise((in_channels, *channels)))
    )


class PlainUpStage(nn.Module):
    """Bring the coarser map to the skip's size and channels, join them, two convolutional blocks."""

    def __init__(self, channels: int, block: Block = PreActivationBlock) -> None:
        super().__init__()
        self.project = UpsampledProjection(2 * channels, channels)
        self.blocks = nn.Sequential(block(2 * channels, channels), block(channels, channels))

    def forward(self, low_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        up = self.project(low_BCHW, skip_BCHW.shape[-2:])
        x: Tensor = self.blocks(torch.cat([skip_BCHW, up], dim=1))
        return x


class AttentionUpStage(nn.Module):
    """The skip asks the coarser map; the answer plus the upsampled coarser map, the feed-forward, join with the skip, one block."""

    def __init__(
        self, channels: int, heads: int, attention: AttentionSettings, block: Block = PreActivationBlock
    ) -> None:
        super().__init__()
        self.low_norm = nn.BatchNorm2d(2 * channels)
        self.skip_norm = nn.BatchNorm2d(channels)
        self.project = nn.Conv2d(2 * channels, channels, 1)
        self.attention = EfficientAttention(channels, heads, attention, key_channels=2 * channels)
        self.feed_forward = FeedForward(channels)
        self.blocks = nn.Sequential(block(2 * channels, channels))

    def forward(self, low_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        up = upsample(self.project(low_BCHW), skip_BCHW.shape[-2:])
        up = up + self.attention(self.skip_norm(skip_BCHW), self.low_norm(low_BCHW))
        x: Tensor = self.blocks(torch.cat([self.feed_forward(up), skip_BCHW], dim=1))
        return x


class _AttentionLevels:
    """At which levels there is attention, with how many blocks and heads. Raises SettingError for UTNet's settings of those names."""

    def __init__(
        self,
        channels: Sequence[int],
        block_list: Sequence[int],
        num_blocks: Sequence[int],
        num_heads: Sequence[int],
        attention_in: str,
    ) -> None:
        levels = len(channels) - 1
        allowed = f"levels from 0 to {levels} (levels is {levels}), each once"
        self.channels = channels
        self.attended = check_listed("block_list", block_list, levels, allowed)
        self.blocks = {0: 1} | entries_by_level("num_blocks", num_blocks, self.attended, levels)
        self.heads = entries_by_level("num_heads", num_heads, self.attended, levels)
        self.attention_in = check_choice("attention_in", attention_in, ATTENTION_IN)

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
        return check_divides("num_heads", self.heads[entry], self.channels[level], f"level {level}")


class UTNet(UShapedNetwork):
    """U-Net with efficient attention in encoder and decoder (Gao, Zhou, Metaxas, 2021).

    See the module. Channels at level L are base_channels · 2^L.
    """

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
        "aux_loss": "deep supervision at ½, ¼ and ⅛ of the resolution",
    }

    @classmethod
    def plan_settings(cls, **sizes: Any) -> dict[str, tuple[Any, str]]:
        """See `utnet_planning.plan_attention`."""
        return plan_attention(**sizes)

    @classmethod
    def completed_settings(cls, planned: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """See `utnet_planning.with_entries_by_level`."""
        return with_entries_by_level(planned, given)

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
        super().__init__(
            in_channels=in_channels,
            num_classes=num_classes,
            base_channels=base_channels,
            levels=levels,
            aux_loss=aux_loss,
        )
        check_choice("downsampling", downsampling, DOWNSAMPLINGS)
        where = _AttentionLevels(self.channels, block_list, num_blocks, num_heads, attention_in)
        attention = AttentionSettings(reduce_size, projection, relative_position, dropout)
        block = _block(bottleneck, base_channels)
        self.encoder = nn.ModuleList(
            DownStage(
                before,
                after,
                block if level else PreActivationBlock,
                halving=downsampling if level else None,
                transformer=where.encoder(level, attention),
            )
            for level, (before, after) in enumerate(pairwise((in_channels, *self.channels)))
        )
        self.decoder = nn.ModuleList(where.decoder(level, attention, block) for level in range(levels))
        prefer_channels_last(self)

    def from_public_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Those of the official UTNet; see `utseg.networks.pretrained.official`."""
        from utseg.networks.pretrained.official import from_official, is_official  # which knows this class

        return from_official(self, weights) if is_official(weights) else None


def _block(bottleneck: bool, base_channels: int) -> Block:
    if not check_flag("bottleneck", bottleneck):
        return PreActivationBlock
    if base_channels % 4:
        raise SettingError(
            f"base_channels is {base_channels}; with bottleneck blocks it must be a multiple of 4"
        )
    return PreActivationBottleneck
