"""Weights of public Swin Transformers for classification, such as swin_tiny_patch4_window7_224, into a SwinUNet.

Encoder and final norm are filled, and the blocks of each decoder stage with those of the encoder stage of its resolution, as Swin-Unet
starts. Expanding, joining and heads are in no public file. Files are not read here.
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn import functional as F

from utseg.networks.pretrained.fit import misshapen, require_fit

# Our entries that a public file has, and what their parts are called there.
_COVERED = re.compile(r"(en|de)coder\.\d+\.blocks\..+|encoder\.\d+\.merge\..+|norm\..+|embed\..+")
_PUBLIC = {
    "encoder.": "layers.",
    "decoder.": "layers.",
    "attention.qkv": "attn.qkv",
    "attention.out": "attn.proj",
    "attention.bias_table": "attn.relative_position_bias_table",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
    "merge.norm": "downsample.norm",
    "merge.reduce": "downsample.reduction",
    "embed.": "patch_embed.",
    "embed.conv": "embed.proj",
}
# What public files carry and a segmentation network has no use for.
_CONSTANTS = (".attn_mask", ".relative_position_index")
_CLASSIFIER = ("head.weight", "head.bias")


def import_swin(
    own: Mapping[str, Tensor], depths: Sequence[int], weights: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """Public weights under the names of `own`, the state of a SwinUNet with so many blocks a stage; None where they are of no Swin.

    Left out are blocks that the network lacks (the public tiny one has depths 2, 2, 6, 2), the classifier, constant buffers and, where
    images have neither one channel nor three, the patch embedding's convolution. Tables of position biases are interpolated, bicubic, to
    another window. Raises InputError, one line, that lists what is missing, unexpected or of another shape.
    """
    if not {"patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight"} <= weights.keys():
        return None
    colour = own["embed.conv.weight"].shape[1] == 3
    names = {
        name: _public_name(name)
        for name in own
        if _COVERED.fullmatch(name) and (colour or not name.startswith("embed.conv."))
    }
    wanted = dict.fromkeys(names.values())
    found = {
        name: _resized_table(weights[public], own[name]) if name.endswith("bias_table") else weights[public]
        for name, public in names.items()
        if public in weights
    }
    misfits = [name for name, value in found.items() if value.shape != own[name].shape]
    problems = {
        "missing": sorted(wanted.keys() - weights.keys()),
        "unexpected": [n for n in weights if n not in wanted and not _is_left_out(n, depths, colour)],
        "of another shape": misshapen((names[n], weights[names[n]], own[n].shape) for n in misfits),
    }
    require_fit(
        "the public Swin weights do not fit this SwinUNet",
        problems,
        "build it with their embed_channels, depths, window_heads and mlp_ratio",
    )
    return found


def _public_name(name: str) -> str:
    for ours, public in _PUBLIC.items():
        name = name.replace(ours, public)
    return name


def _is_left_out(public: str, depths: Sequence[int], colour: bool) -> bool:
    """Whether a public entry is known and has no counterpart here."""
    block = re.fullmatch(r"layers\.(\d+)\.blocks\.(\d+)\..+", public)
    if block and int(block[1]) < len(depths) and int(block[2]) >= depths[int(block[1])]:
        return True
    embedding = public.startswith("patch_embed.proj.") and not colour
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
