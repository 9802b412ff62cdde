"""UTNet: a U-Net of pre-activation residual blocks with efficient attention at chosen levels of encoder and decoder.

Gao, Zhou, Metaxas: *UTNet: A Hybrid Transformer Architecture for Medical Image Segmentation*, MICCAI 2021. With `block_list=()` it
is a pre-activation ResUNet, with `decoder_attention=False` the encoder-only variant. Level L is the resolution after L halvings.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.errors import SettingError
from utseg.networks.attention import PROJECTIONS, RELATIVE_POSITIONS, EfficientAttention
from utseg.networks.blocks import PreActivationBlock
from utseg.networks.checks import (
    check_choice,
    check_flag,
    check_fraction,
    check_levels_listed,
    check_whole,
    entries_by_level,
)
from utseg.networks.network import SegmentationNetwork, prefer_channels_last, upsample


class FeedForward(nn.Module):
    """x + 1×1 convolution of ReLU(BN(x))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.add(x_BCHW, self.conv(F.relu_(self.norm(x_BCHW))))


class TransformerBlock(nn.Module):
    """x + attention(BN(x)), then the feed-forward."""

    def __init__(self, channels: int, heads: int, attention: dict[str, object]) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.attention = EfficientAttention(channels, heads=heads, **attention)  # type: ignore[arg-type]
        self.feed_forward = FeedForward(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y: Tensor = self.feed_forward(x_BCHW + self.attention(self.norm(x_BCHW)))
        return y


class DownStage(nn.Module):
    """A pre-activation block, then transformer blocks, or a second pre-activation block where there are none.

    Halves the resolution first, unless it is the stem.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        halve: bool,
        heads: int,
        blocks: int,
        attention: dict[str, object],
    ) -> None:
        super().__init__()
        self.halve = halve
        self.first = PreActivationBlock(in_channels, channels)
        self.second = nn.Sequential(
            *(TransformerBlock(channels, heads, attention) for _ in range(blocks))
            if blocks
            else [PreActivationBlock(channels, channels)]
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = F.max_pool2d(x_BCHW, 2) if self.halve else x_BCHW
        y: Tensor = self.second(self.first(x))
        return y


class PlainUpStage(nn.Module):
    """Bring the coarser map to the skip's size and channels, join them, two pre-activation blocks.

    The 1×1 convolution runs before the upsampling, on a quarter of the pixels. The two commute: bilinear weights sum to one.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(2 * channels, channels, 1)
        self.blocks = nn.Sequential(
            PreActivationBlock(2 * channels, channels), PreActivationBlock(channels, channels)
        )

    def forward(self, low_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        up = upsample(self.project(low_BCHW), skip_BCHW.shape[-2:])
        x: Tensor = self.blocks(torch.cat([skip_BCHW, up], dim=1))
        return x


class AttentionUpStage(nn.Module):
    """The skip asks the coarser map; the answer plus the upsampled coarser map, the feed-forward, join with the skip, one block."""

    def __init__(self, channels: int, heads: int, attention: dict[str, object]) -> None:
        super().__init__()
        self.low_norm = nn.BatchNorm2d(2 * channels)
        self.skip_norm = nn.BatchNorm2d(channels)
        self.project = nn.Conv2d(2 * channels, channels, 1)
        self.attention = EfficientAttention(channels, heads=heads, key_channels=2 * channels, **attention)  # type: ignore[arg-type]
        self.feed_forward = FeedForward(channels)
        self.blocks = nn.Sequential(PreActivationBlock(2 * channels, channels))

    def forward(self, low_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        up = upsample(self.project(low_BCHW), skip_BCHW.shape[-2:])
        up = up + self.attention(self.skip_norm(skip_BCHW), self.low_norm(low_BCHW))
        x: Tensor = self.blocks(torch.cat([self.feed_forward(up), skip_BCHW], dim=1))
        return x


class UTNet(SegmentationNetwork):
    """See the module. Channels at level L are base_channels · 2^L."""

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
        aux_loss: bool = True,
        decoder_attention: bool = True,
        dropout: float = 0.1,
    ) -> None:
        """levels: halvings. block_list: levels that carry attention. num_blocks, num_heads: an entry for each of them, or for
        levels 1 … `levels`, or 0 … `levels`, or one for all. reduce_size: keys and values are resized to reduce_size².
        projection: how, "interp" (bilinear) or "maxpool". relative_position: "2d-bias" (a table), "1d-qk" (the paper's
        S_H + S_W) or "none". decoder_attention: False leaves the decoder without. dropout: of attention weights and of the
        attention's output, in training.

        A decoder level uses the heads of the encoder level below it, as in the official code, where that has an entry; else its own.
        Raises SettingError.
        """
        check_whole("levels", levels)
        check_whole("base_channels", base_channels)
        super().__init__(
            num_classes=num_classes,
            map_channels=[base_channels * 2**level for level in range(levels)],
            levels=levels,
            aux_loss=aux_loss,
        )
        check_whole("in_channels", in_channels)
        attended = check_levels_listed("block_list", block_list, levels)
        blocks = {0: 1} | entries_by_level("num_blocks", num_blocks, attended, levels)
        heads = entries_by_level("num_heads", num_heads, attended, levels)
        check_flag("decoder_attention", decoder_attention)
        attention: dict[str, object] = {
            "reduce_size": check_whole("reduce_size", reduce_size, least=2),
            "projection": check_choice("projection", projection, PROJECTIONS),
            "relative_position": check_choice("relative_position", relative_position, RELATIVE_POSITIONS),
            "dropout": check_fraction("dropout", dropout),
        }

        def heads_at(level: int, entry: int) -> int:
            if entry not in heads:
                raise SettingError(
                    f"num_heads is {tuple(num_heads)!r}; level {entry} in block_list needs an entry too"
                )
            if (base_channels * 2**level) % heads[entry]:
                raise SettingError(
                    f"num_heads has {heads[entry]} for level {level}; it must divide the {base_channels * 2**level} channels there"
                )
            return heads[entry]

        channels = [base_channels * 2**level for level in range(levels + 1)]
        self.encoder = nn.ModuleList(
            DownStage(
                channels[level - 1] if level else in_channels,
                channels[level],
                halve=level > 0,
                heads=heads_at(level, level) if level in attended else 0,
                blocks=blocks[level] if level in attended else 0,
                attention=attention,
            )
            for level in range(levels + 1)
        )
        self.decoder = nn.ModuleList(
            AttentionUpStage(
                channels[level], heads_at(level, level + 1 if level + 1 in heads else level), attention
            )
            if decoder_attention and level in attended
            else PlainUpStage(channels[level])
            for level in range(levels)
        )
        prefer_channels_last(self)

    def decoder_maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """Decoder maps at levels 0 … levels - 1."""
        skips = []
        for stage in self.encoder:
            x_BCHW = stage(x_BCHW)
            skips.append(x_BCHW)
        maps = [skips.pop()]
        for stage in reversed(self.decoder):
            maps.append(stage(maps[-1], skips.pop()))
        return maps[:0:-1]
