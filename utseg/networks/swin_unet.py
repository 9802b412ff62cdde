"""Swin-Unet: a U-Net whose encoder and decoder are shifted-window Transformers.

Cao et al., *Swin-Unet: Unet-like Pure Transformer for Medical Image Segmentation*, ECCV Workshops 2022. Stage S works on tokens of
4·2^S pixels. The defaults are the tiny network of the publication; its head has no bias and the one here has. Importing the public
weights of a Swin Transformer is here too; reading their file is not.
"""

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.errors import InputError, SettingError, listing
from utseg.networks.layers.checks import check_fraction, check_whole, check_wholes
from utseg.networks.layers.swin import (
    PatchEmbedding,
    PatchExpanding,
    PatchMerging,
    drop_paths,
    initialise,
    swin_blocks,
)
from utseg.networks.network import Family, SegmentationNetwork, prefer_channels_last

# Parts of a block, ours and public.
_BLOCK = {
    "norm1": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.out": "attn.proj",
    "attention.bias_table": "attn.relative_position_bias_table",
    "norm2": "norm2",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}
# What public files carry and a segmentation network has no use for.
_CONSTANTS = (".attn_mask", ".relative_position_index")
_CLASSIFIER = ("head.weight", "head.bias")


class DownStage(nn.Module):
    """Blocks, then, except in the last stage, merging of patches."""

    def __init__(self, blocks: nn.Sequential, merge: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = blocks
        self.merge = merge

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x: Tensor = self.blocks(x_BHWC)
        return x if self.merge is None else self.merge(x)


class UpStage(nn.Module):
    """Expand the coarser tokens to half their channels, join them with the skip, blocks."""

    def __init__(self, channels: int, blocks: nn.Sequential) -> None:
        super().__init__()
        self.expand = PatchExpanding(2 * channels, channels, 2)
        self.join = nn.Linear(2 * channels, channels)
        self.blocks = blocks

    def forward(self, expanded_BHWC: Tensor, skip_BHWC: Tensor) -> Tensor:
        x: Tensor = self.blocks(self.join(torch.cat([expanded_BHWC, skip_BHWC], dim=-1)))
        return x


def _check_stages(
    depths: object, window_heads: object, embed_channels: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Blocks and heads, one entry a stage. Raises SettingError."""
    blocks, heads = check_wholes("depths", depths), check_wholes("window_heads", window_heads)
    if not blocks:
        raise SettingError("depths is (); it must have an entry for each stage, such as (2, 2, 2, 2)")
    if len(heads) != len(blocks):
        raise SettingError(
            f"window_heads is {heads!r}, {len(heads)} entries; it must have one for each stage, "
            f"and depths has {len(blocks)}"
        )
    for stage, entry in enumerate(heads):
        if (channels := embed_channels * 2**stage) % entry:
            raise SettingError(
                f"window_heads has {entry} for stage {stage}; it must divide the {channels} channels there"
            )
    return blocks, heads


class SwinUNet(SegmentationNetwork):
    """Swin-Unet: shifted-window Transformer as encoder and decoder (Cao et al. 2022).

    Channels of stage S are embed_channels · 2^S. Images are padded to a multiple of 4 · 2^(stages - 1), 32 by default; windows need no
    more than that. See the modules.
    """

    family: ClassVar[Family] = "transformer"

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 4,
        embed_channels: int = 96,
        depths: Sequence[int] = (2, 2, 2, 2),
        window_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: int = 4,
        drop_path: float = 0.2,
        aux_loss: bool = False,
    ) -> None:
        """depths, window_heads: blocks and heads of each stage, finest first; the decoder mirrors them. window_size: tokens along each
        side of a window; 8 divides every map of a patch that is a multiple of 256. mlp_ratio: hidden channels of the MLPs to their
        input. drop_path: stochastic depth of the last block, rising linearly from none in the first. aux_loss: heads on the expanded
        tokens of 4, 8, 16 … pixels. One channel is taken three times; any other number has a patch embedding of its own.

        Raises SettingError.
        """
        check_whole("embed_channels", embed_channels)
        depths, window_heads = _check_stages(depths, window_heads, embed_channels)
        channels = [embed_channels * 2**stage for stage in range(len(depths))]
        check_whole("window_size", window_size)
        check_whole("mlp_ratio", mlp_ratio)
        super().__init__(
            num_classes=num_classes,
            map_channels=[embed_channels, *channels[:-1]],
            levels=len(depths) + 1,
            aux_loss=aux_loss,
        )
        rates = drop_paths(check_fraction("drop_path", drop_path), depths)

        def blocks(stage: int) -> nn.Sequential:
            return swin_blocks(
                channels[stage],
                rates[stage],
                heads=window_heads[stage],
                window=window_size,
                mlp_ratio=mlp_ratio,
            )

        self.embed = PatchEmbedding(check_whole("in_channels", in_channels), embed_channels)
        self.encoder = nn.ModuleList(
            DownStage(blocks(stage), PatchMerging(width) if width < channels[-1] else None)
            for stage, width in enumerate(channels)
        )
        self.norm = nn.LayerNorm(channels[-1])
        self.decoder = nn.ModuleList(
            UpStage(width, blocks(stage)) for stage, width in enumerate(channels[:-1])
        )
        self.norm_up = nn.LayerNorm(embed_channels)
        self.final = PatchExpanding(embed_channels, embed_channels, 4)
        initialise(self)
        prefer_channels_last(self)

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
            assert isinstance(stage, UpStage)
            tokens = stage.expand(tokens)
            maps.append(tokens)
            tokens = stage(tokens, skip)
        maps.append(self.final(self.norm_up(tokens)))
        return [tokens_BHWC.permute(0, 3, 1, 2) for tokens_BHWC in reversed(maps)]

    def pretrained_layers(self) -> list[tuple[str, ...]]:
        """The patch embedding (its norm alone where its convolution is not a colour image's), then block by block to the last stage."""
        embedded = "embed." if self.embed.conv.in_channels == 3 else "embed.norm."
        layers: list[tuple[str, ...]] = [(embedded,)]
        for position, stage in enumerate(self.encoder):
            assert isinstance(stage, DownStage)
            prefix = f"encoder.{position}"
            layers += [(f"{prefix}.blocks.{block}.",) for block in range(len(stage.blocks))]
            after = "norm." if stage.merge is None else f"{prefix}.merge."
            layers[-1] = (*layers[-1], after)
        return layers

    def _public_names(self) -> dict[str, str]:
        """Our names → the public names of what fills them."""
        prefixes = {"embed.norm": "patch_embed.norm", "norm": "norm"}
        if self.embed.conv.in_channels == 3:
            prefixes["embed.conv"] = "patch_embed.proj"
        for side, stages in (("encoder", self.encoder), ("decoder", self.decoder)):
            for position, stage in enumerate(stages):
                assert isinstance(stage, DownStage | UpStage)
                for block in range(len(stage.blocks)):
                    for ours, public in _BLOCK.items():
                        found = f"layers.{position}.blocks.{block}.{public}"
                        prefixes[f"{side}.{position}.blocks.{block}.{ours}"] = found
        for position in range(len(self.encoder) - 1):
            prefixes[f"encoder.{position}.merge.norm"] = f"layers.{position}.downsample.norm"
            prefixes[f"encoder.{position}.merge.reduce"] = f"layers.{position}.downsample.reduction"
        names = {}
        for name in self.state_dict():
            prefix, _, leaf = name.rpartition(".")
            if name in prefixes:
                names[name] = prefixes[name]
            elif prefix in prefixes:
                names[name] = f"{prefixes[prefix]}.{leaf}"
        return names

    def from_public_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Weights of a public Swin Transformer for classification, such as swin_tiny_patch4_window7_224, under our names.

        Encoder and final norm are filled, and the blocks of each decoder stage with those of the encoder stage of its resolution, as
        Swin-Unet starts. Blocks that this network lacks are left out (the public tiny one has depths 2, 2, 6, 2), as are the
        classifier, constant buffers and, where images have neither one channel nor three, the patch embedding's convolution. Tables of
        position biases are interpolated, bicubic, to another window. Expanding, joining and heads are in no public file.

        None where the names are not those of a Swin Transformer. Raises InputError, one line, that lists what is missing, unexpected
        or of another shape.
        """
        if not {"patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight"} <= weights.keys():
            return None
        own, names = self.state_dict(), self._public_names()
        wanted = set(names.values())
        expected = {
            name: _resized_table(weights[public], own[name])
            if name.endswith("bias_table")
            else weights[public]
            for name, public in names.items()
            if public in weights
        }
        missing = sorted(wanted - weights.keys())
        unexpected = [name for name in weights if name not in wanted and not self._is_left_out(name)]
        own_shapes = {names[name]: tuple(own[name].shape) for name in expected}
        misshapen = [  # by public name: a block of the encoder and one of the decoder want the same
            f"{public} {tuple(weights[public].shape)} where {own_shapes[public]} is expected"
            for public in dict.fromkeys(
                names[name] for name in expected if expected[name].shape != own[name].shape
            )
        ]
        groups = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
        problems = [
            f"{len(found)} {kind}: {listing(found, most=8)}" for kind, found in groups.items() if found
        ]
        if problems:
            raise InputError(
                f"the public Swin weights do not fit this SwinUNet; {'; '.join(problems)}; "
                "build it with their embed_channels, depths, window_heads and mlp_ratio"
            )
        return expected

    def _is_left_out(self, public: str) -> bool:
        """Whether a public entry is known and has no place here."""
        block = re.fullmatch(r"layers\.(\d+)\.blocks\.(\d+)\..+", public)
        if block and int(block[1]) < len(self.encoder):
            stage = self.encoder[int(block[1])]
            assert isinstance(stage, DownStage)
            if int(block[2]) >= len(stage.blocks):
                return True
        embedding = public.startswith("patch_embed.proj.") and self.embed.conv.in_channels != 3
        return embedding or public in _CLASSIFIER or public.endswith(_CONSTANTS)


def _resized_table(table: Tensor, own: Tensor) -> Tensor:
    """A table of position biases ((2·window - 1)², heads), interpolated to the window of `own`. One that is no such table is returned."""
    if table.ndim != 2 or table.shape[0] == own.shape[0]:
        return table
    side, own_side = (round(x.shape[0] ** 0.5) for x in (table, own))
    if side**2 != table.shape[0]:
        return table
    offsets = table.T.reshape(1, -1, side, side).float()
    resized = F.interpolate(offsets, (own_side, own_side), mode="bicubic", align_corners=False)
    return resized.flatten(2)[0].T.to(table.dtype)
