"""MedFormer (UTNetV2) in 2-D: feature maps and small semantic maps ask each other; the maps of all scales are fused between.

Gao, Zhou, Liu, Yan, Zhang, Metaxas: *A Data-scalable Transformer for Medical Image Segmentation: Architecture, Model Efficiency, and
Benchmark*, 2022 (arXiv 2203.00131). The defaults are the authors' for cardiac MR slices (ACDC, 2-D). Level L is the resolution after
L halvings: 0 and 1 are convolutional, 2 to 4 attend. All of it is linear in pixels.

What the authors' code computes and never uses is left out: what the last attending block would add to its semantic map, and the maps
of the convolutional decoder levels. They supervise level 2 besides the logits; here, as everywhere, each decoder level can be.

Axes: B batch, C channels, E heads, D dim_head, N = H·W pixels, S side of a semantic map, M = S² entries of it.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.errors import SettingError
from utseg.networks.layers.blocks import DepthwiseSeparable, PreActivationBlock, join_heads, split_heads
from utseg.networks.layers.checks import Count, Flag
from utseg.networks.layers.norm_relu_conv import norm_relu_conv
from utseg.networks.layers.sizes import upsample
from utseg.networks.network import Family, SegmentationNetwork

LEVELS = 4
ATTENDING = (2, 3, 4)
_CONV_BLOCKS = 2  # of a level that does not attend


class BidirectionalAttention(nn.Module):
    """Pixels ask the entries of a semantic map, and these ask the pixels, by one similarity.

    With A = Q_pixels · Q_mapᵀ / √D: pixels get softmax(A over the map) · V_map, the map softmax(Aᵀ over the pixels) · V_pixels. Fused
    attention makes either without keeping A, so the map's queries are the keys of the one and the queries of the other.
    """

    def __init__(self, channels: int, heads: int, *, update_map: bool) -> None:
        """`update_map`: False leaves out the second direction, for the block whose map nobody reads."""
        super().__init__()
        self.heads = heads
        self.from_pixels = DepthwiseSeparable(channels, (2 if update_map else 1) * channels)
        self.from_map = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.to_pixels = DepthwiseSeparable(channels, channels)
        self.to_map = nn.Conv2d(channels, channels, 1, bias=False) if update_map else None

    def forward(self, x_BCHW: Tensor, map_BCSS: Tensor) -> tuple[Tensor, Tensor | None]:
        """What is to be added to the pixels, and to the map (None without `update_map`)."""
        ask_BEMD, give_BEMD = (
            split_heads(part, self.heads) for part in self.from_map(map_BCSS).chunk(2, dim=1)
        )
        parts = self.from_pixels(x_BCHW).split(x_BCHW.shape[1], dim=1)
        q_BEND = split_heads(parts[0], self.heads)
        seen_BEND = F.scaled_dot_product_attention(q_BEND, ask_BEMD, give_BEMD)
        to_pixels = self.to_pixels(join_heads(seen_BEND, x_BCHW.shape[-2:]))
        if self.to_map is None:
            return to_pixels, None
        v_BEND = split_heads(parts[1], self.heads)
        gathered_BEMD = F.scaled_dot_product_attention(ask_BEMD, q_BEND, v_BEND)
        return to_pixels, self.to_map(join_heads(gathered_BEMD, map_BCSS.shape[-2:]))


class InvertedResidual(nn.Module):
    """x + [BN → ReLU → 1×1 wider, BN → ReLU → depthwise 3×3, squeeze and excite, BN → 1×1 back]: MBConv, pre-activated.

    Sandler et al., *MobileNetV2*, CVPR 2018; Hu et al., *Squeeze-and-Excitation Networks*, CVPR 2018, with a quarter of the channels.
    """

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        wide = expansion * channels
        self.norm1 = nn.BatchNorm2d(channels)
        self.widen = nn.Conv2d(channels, wide, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)
        self.depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False)
        self.squeeze = nn.Conv2d(wide, max(wide // 4, 1), 1)
        self.excite = nn.Conv2d(max(wide // 4, 1), wide, 1)
        self.norm3 = nn.BatchNorm2d(wide)
        self.narrow = nn.Conv2d(wide, channels, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = norm_relu_conv(self.norm1, self.widen, x_BCHW)
        y = self.depthwise(F.relu_(self.norm2(y)))
        weight = torch.sigmoid(self.excite(F.relu_(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return torch.add(x_BCHW, self.narrow(self.norm3(y * weight)))


class BidirectionalBlock(nn.Module):
    """x + what attention of BN(x) and BN(map) gives it, then the inverted residual; the map + what attention gives it."""

    def __init__(self, channels: int, heads: int, expansion: int, *, update_map: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.map_norm = nn.BatchNorm2d(channels)
        self.attention = BidirectionalAttention(channels, heads, update_map=update_map)
        self.feed_forward = InvertedResidual(channels, expansion)

    def forward(self, x_BCHW: Tensor, map_BCSS: Tensor) -> tuple[Tensor, Tensor]:
        to_pixels, to_map = self.attention(self.norm(x_BCHW), self.map_norm(map_BCSS))
        return self.feed_forward(x_BCHW + to_pixels), map_BCSS if to_map is None else map_BCSS + to_map


class SemanticMap(nn.Module):
    """A map of S² entries from all pixels: each entry weighs them by a softmax of its own."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.values = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.weights = nn.Conv2d(channels, size**2, 3, padding=1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        weight_BMN = self.weights(x_BCHW).flatten(2).softmax(dim=2)
        map_BMC = torch.bmm(weight_BMN, self.values(x_BCHW).flatten(2).mT)
        map_BCSS: Tensor = map_BMC.unflatten(1, (self.size, self.size)).permute(0, 3, 1, 2)
        return map_BCSS


class FusionLayer(nn.Module):
    """x + attention(LN(x)), then + MLP(LN(·)) with GELU, among all entries (B, entries, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class MapFusion(nn.Module):
    """The semantic maps of several levels, each (B, its channels, S, S), through one small Transformer; the same shapes come out."""

    def __init__(self, map_channels: Sequence[int], *, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.into = nn.ModuleList(nn.Linear(channels, width, bias=False) for channels in map_channels)
        self.layers = nn.Sequential(*(FusionLayer(width, heads) for _ in range(depth)))
        self.back = nn.ModuleList(nn.Linear(width, channels, bias=False) for channels in map_channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        size = maps[0].shape[-2:]
        tokens = [into(map_BCSS.flatten(2).mT) for into, map_BCSS in zip(self.into, maps, strict=True)]
        fused = self.layers(torch.cat(tokens, dim=1)).chunk(len(maps), dim=1)
        return [back(part).mT.unflatten(2, tuple(size)) for back, part in zip(self.back, fused, strict=True)]


def conv_patch_merging(in_channels: int, channels: int) -> nn.Sequential:
    """Halve the resolution: 2×2 pixels side by side as channels, BN, a depthwise separable convolution."""
    norm, reduce = nn.BatchNorm2d(4 * in_channels), DepthwiseSeparable(4 * in_channels, channels)
    return nn.Sequential(OrderedDict(unshuffle=nn.PixelUnshuffle(2), norm=norm, reduce=reduce))


class Join(nn.Module):
    """Bring the coarser map to the skip's size, join the two, BN → 1×1 to the skip's channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3 * channels)
        self.reduce = nn.Conv2d(3 * channels, channels, 1, bias=False)

    def forward(self, low_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        joined = torch.cat([upsample(low_BCHW, skip_BCHW.shape[-2:]), skip_BCHW], dim=1)
        y: Tensor = self.reduce(self.norm(joined))
        return y


class AttendingDown(nn.Module):
    """Merge patches, make a semantic map, bidirectional blocks."""

    def __init__(self, in_channels: int, blocks: Sequence[BidirectionalBlock], map_size: int) -> None:
        super().__init__()
        self.merge = conv_patch_merging(in_channels, 2 * in_channels)
        self.semantic_map = SemanticMap(2 * in_channels, map_size)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        x = self.merge(x_BCHW)
        semantic = self.semantic_map(x)
        for block in self.blocks:
            x, semantic = block(x, semantic)
        return x, semantic


class AttendingUp(nn.Module):
    """Join the coarser map and the skip, and their semantic maps, bidirectional blocks."""

    def __init__(self, channels: int, blocks: Sequence[BidirectionalBlock]) -> None:
        super().__init__()
        self.join = Join(channels)
        self.map_reduce = nn.Conv2d(3 * channels, channels, 1, bias=False)
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self, low_BCHW: Tensor, skip_BCHW: Tensor, low_map: Tensor, skip_map: Tensor
    ) -> tuple[Tensor, Tensor]:
        x = self.join(low_BCHW, skip_BCHW)
        semantic = self.map_reduce(torch.cat([low_map, skip_map], dim=1))
        for block in self.blocks:
            x, semantic = block(x, semantic)
        return x, semantic


def _conv_blocks(channels: int) -> nn.Sequential:
    return nn.Sequential(*(PreActivationBlock(channels, channels) for _ in range(_CONV_BLOCKS)))


class MedFormer(SegmentationNetwork):
    """UTNetV2: U-Net with bidirectional attention and semantic maps (Gao et al. 2022).

    Channels at level L are base_channels · 2^L.
    """

    family: ClassVar[Family] = "transformer"

    def __init__(
        self,
        *,
        in_channels: Count = 1,
        num_classes: Count = 4,
        base_channels: Count = 32,
        semantic_map_size: Count = 3,
        attention_blocks: Count = 2,
        expansion: Count = 2,
        dim_head: Count = 32,
        fusion_depth: Count = 2,
        aux_loss: Flag = False,
    ) -> None:
        """semantic_map_size: side of the semantic maps. attention_blocks: of each attending level, encoder and decoder. expansion: of
        the inverted residuals. dim_head: channels of a head; a level with fewer channels has one head. fusion_depth: layers of the
        Transformer that fuses the maps, as wide as the coarsest level. aux_loss: heads at ½, ¼, ⅛.
        """
        channels = [base_channels * 2**level for level in range(LEVELS + 1)]
        for level in ATTENDING:
            if channels[level] > dim_head and channels[level] % dim_head:
                raise SettingError(
                    f"dim_head is {dim_head}; it must divide the {channels[level]} channels of level {level} "
                    f"(base_channels · {2**level})"
                )
        super().__init__(
            num_classes=num_classes, map_channels=channels[:-1], levels=LEVELS, aux_loss=aux_loss
        )
        heads = [max(1, width // dim_head) for width in channels]

        def attending(level: int, *, update_last: bool = True) -> list[BidirectionalBlock]:
            updates = [True] * (attention_blocks - 1) + [update_last]
            return [
                BidirectionalBlock(channels[level], heads[level], expansion, update_map=update)
                for update in updates
            ]

        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, base_channels, 3, padding=1, bias=False),
            PreActivationBlock(base_channels, base_channels),
        )
        self.down = nn.Sequential(conv_patch_merging(base_channels, channels[1]), _conv_blocks(channels[1]))
        self.attending_down = nn.ModuleList(
            AttendingDown(channels[level - 1], attending(level), semantic_map_size) for level in ATTENDING
        )
        self.fusion = MapFusion(
            [channels[level] for level in ATTENDING], width=channels[-1], heads=heads[-1], depth=fusion_depth
        )
        self.attending_up = nn.ModuleList(
            AttendingUp(channels[level], attending(level, update_last=level > ATTENDING[0]))
            for level in ATTENDING[:-1]
        )
        self.joins = nn.ModuleList(Join(width) for width in channels[: ATTENDING[0]])
        self.up = nn.ModuleList(_conv_blocks(width) for width in channels[: ATTENDING[0]])

    def decoder_maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """Decoder maps at levels 0 to 3."""
        skips = [self.stem(x_BCHW)]
        skips.append(self.down(skips[-1]))
        semantic_maps = []
        for stage in self.attending_down:
            x, semantic = stage(skips[-1])
            skips.append(x)
            semantic_maps.append(semantic)
        semantic_maps = self.fusion(semantic_maps)
        maps, semantic = [skips.pop()], semantic_maps.pop()
        for stage in reversed(self.attending_up):
            x, semantic = stage(maps[-1], skips.pop(), semantic, semantic_maps.pop())
            maps.append(x)
        for join, blocks in zip(reversed(self.joins), reversed(self.up), strict=True):
            maps.append(blocks(join(maps[-1], skips.pop())))
        return maps[:0:-1]
