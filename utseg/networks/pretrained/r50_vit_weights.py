"""The public weights `R50+ViT-B_16.npz` and `ViT-B_16.npz`, into `ResNet50` and `VisionTransformer`.

Published with Dosovitskiy et al., *An Image is Worth 16x16 Words*, ICLR 2021. They cover the encoder: decoder and heads are nobody's but
ours, and the stem of an image with neither one nor three channels has no counterpart. Files are not read here.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from utseg.networks.layers.resnet50 import ResNet50
from utseg.networks.layers.sizes import upsample
from utseg.networks.layers.vit import GRID, VisionTransformer
from utseg.networks.pretrained.fit import misshapen, require_fit

_ATTENTION = "MultiHeadDotProductAttention_1"
_POSITIONS = "Transformer/posembed_input/pos_embedding"
_STEMS = ("conv_root/kernel", "embedding/kernel")
# Parts of our names, and what they are called there.
_PUBLIC: dict[str, str | Callable[[re.Match[str]], str]] = {
    r"^norm\.": "Transformer/encoder_norm.",
    r"^layers\.(\d+)\.": r"Transformer/encoderblock_\1.",
    r"\.norm1\.": ".LayerNorm_0.",
    r"\.norm2\.": ".LayerNorm_2.",
    r"\.(qkv|out)\.": rf".{_ATTENTION}.\1.",
    r"\.fc(\d)\.": lambda match: f".MlpBlock_3.Dense_{int(match[1]) - 1}.",
    r"^blocks\.(\d+)\.(\d+)\.": lambda match: f"block{int(match[1]) + 1}.unit{int(match[2]) + 1}.",
    r"\.": "/",
}
_BLOCK = re.compile(r"block\d+/")
_BODY = re.compile(r"(conv_root|gn_root|block\d+|embedding|Transformer)/")
Part = ResNet50 | VisionTransformer


class _Piece(NamedTuple):
    """A public entry of `shape` that `convert` makes (a part, along the first axis) of our entry `ours`."""

    ours: str
    public: str
    shape: tuple[int, ...]
    convert: Callable[[Tensor], Tensor] = lambda value: value


def _pieces(part: Part, prefix: str) -> Iterator[_Piece]:
    """What fills the entries of a part, stem and positions included.

    Public kernels are (height, width, in, out), dense ones (in, out), those of attention (in, heads, dim_head), for its output (heads,
    dim_head, out).
    """
    heads = int(part.layers[0].heads) if isinstance(part, VisionTransformer) else 1  # type: ignore[arg-type]
    for name, value in part.state_dict().items():
        public, ours, shape = _public_name(name, value), prefix + name, tuple(value.shape)
        if "/qkv/" in public:
            of_heads = (heads, shape[0] // 3 // heads)
            for layer in ("query", "key", "value"):
                given = public.replace("qkv", layer)
                if value.ndim > 1:
                    yield _Piece(ours, given, (shape[1], *of_heads), lambda value: value.flatten(1).T)
                else:
                    yield _Piece(ours, given, of_heads, torch.flatten)
        elif public.endswith("/out/kernel"):
            yield _Piece(
                ours, public, (heads, shape[1] // heads, shape[0]), lambda value: value.flatten(0, 1).T
            )
        elif public == _POSITIONS:
            yield _Piece(ours, public, (1, 1 + GRID * GRID, shape[1]), _positions)
        elif value.ndim == 4:
            yield _Piece(
                ours, public, (*shape[2:], shape[1], shape[0]), lambda value: value.permute(3, 2, 0, 1)
            )
        else:
            yield _Piece(ours, public, shape[::-1], lambda value: value.T if value.ndim > 1 else value)


def _public_name(name: str, value: Tensor) -> str:
    if name == "positions":
        return _POSITIONS
    for ours, public in _PUBLIC.items():
        name = re.sub(ours, public, name)
    return re.sub("weight$", "kernel" if value.ndim > 1 else "scale", name)


def _grid_size(tokens: int) -> int | None:
    """The side of the grid of so many position embeddings, with or without one of the class token; None if there is no such grid."""
    sides = [side for side in range(1, int(tokens**0.5) + 1) if tokens - side * side in (0, 1)]
    return sides[-1] if sides else None


def _positions(value: Tensor) -> Tensor:
    """(1, patches, hidden), a class token first or none → (1, hidden, 16, 16), resized as the TransUNet code does."""
    side = _grid_size(value.shape[1])
    assert side is not None
    grid = value[:, value.shape[1] - side * side :].transpose(1, 2).unflatten(2, (side, side))
    return upsample(grid, (GRID, GRID))


def import_r50_vit(parts: Mapping[str, Part], weights: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Public weights under our names: of each part, with the prefix that it has in the network.

    None where there are no such weights. InputError where something is missing, of another shape, or more than there is room for.
    Position embeddings of any grid are resized to the stored one.
    """
    # as in the first release: without the optimiser's prefix, units counted without leading zeros
    given = {re.sub(r"/unit0+", "/unit", name.removeprefix("opt/target/")): weights[name] for name in weights}
    if not any(stem in given for stem in _STEMS):
        return None
    with_vit = any(isinstance(part, VisionTransformer) for part in parts.values())
    # the stem reads the image: the patch embedding does so where there is no ResNet before it
    image_stem = _STEMS[len(parts) == 1 and with_vit]
    pieces = []
    for piece in (piece for prefix, part in parts.items() for piece in _pieces(part, prefix)):
        value = given.get(piece.public)
        if (
            piece.public == _POSITIONS
            and value is not None
            and value.ndim == 3
            and _grid_size(value.shape[1])
        ):
            piece = piece._replace(shape=(1, value.shape[1], piece.shape[2]))
        if piece.public != image_stem or piece.shape[2] == 3:
            pieces.append(piece)
    # scale and bias of some group norms are (1, 1, 1, channels)
    there = [
        (piece, given[piece.public].flatten() if len(piece.shape) == 1 else given[piece.public])
        for piece in pieces
        if piece.public in given
    ]
    wanted = {piece.public for piece in pieces} | {*_STEMS}
    body = _BODY if with_vit else _BLOCK
    problems = {
        "missing": [piece.public for piece in pieces if piece.public not in given],
        "of another shape": misshapen((piece.public, value, piece.shape) for piece, value in there),
        "without a counterpart": [name for name in given if body.match(name) and name not in wanted],
    }
    kinds = {ResNet50: "ResNet-50", VisionTransformer: "Transformer"}
    what = " and ".join(kinds[type(part)] for part in parts.values())
    advice = "check the network's settings and the file"
    require_fit(f"the public weights do not fit the {what}", problems, advice)
    found: dict[str, list[Tensor]] = {}
    for piece, value in there:
        found.setdefault(piece.ours, []).append(piece.convert(value).float())
    return {ours: torch.cat(values).contiguous() for ours, values in found.items()}


def resnet_layers(resnet: ResNet50, prefix: str) -> list[tuple[str, ...]]:
    """Prefixes of the ResNet's parameters: stem, then block by block."""
    blocks = [(f"{prefix}blocks.{block}.",) for block in range(len(resnet.blocks))]
    return [(f"{prefix}conv_root.", f"{prefix}gn_root."), *blocks]


def transformer_layers(vit: VisionTransformer, prefix: str) -> list[tuple[str, ...]]:
    """Prefixes of the Transformer's parameters: patches and positions, then layer by layer, the last with the final norm."""
    layers: list[tuple[str, ...]] = [(f"{prefix}layers.{layer}.",) for layer in range(len(vit.layers))]
    layers[-1] = (*layers[-1], f"{prefix}norm.")
    return [(f"{prefix}embedding.", f"{prefix}positions"), *layers]
