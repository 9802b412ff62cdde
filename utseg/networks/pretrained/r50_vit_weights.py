"""The public weights `R50+ViT-B_16.npz` and `ViT-B_16.npz`, into `ResNet50` and `VisionTransformer`.

Published with Dosovitskiy et al., *An Image is Worth 16x16 Words*, ICLR 2021. They cover the encoder: decoder and heads are nobody's but
ours, and the stem of an image with neither one nor three channels has no counterpart. Kernels of the public files are (height, width, in,
out), dense ones (in, out), those of attention (in, heads, dim_head), for its output (heads, dim_head, out); position embeddings are
(1, patches, hidden), the class token first. Files are not read here.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from utseg.networks.layers.resnet50 import BottleneckUnit, ResNet50
from utseg.networks.layers.sizes import upsample
from utseg.networks.layers.vit import GRID, TransformerLayer, VisionTransformer
from utseg.networks.pretrained.fit import misshapen, require_fit

_ATTENTION = "MultiHeadDotProductAttention_1"
_POSITIONS = "Transformer/posembed_input/pos_embedding"
_BODY = re.compile(r"(conv_root|gn_root|block\d+|embedding|Transformer)/")


class _Piece(NamedTuple):
    """A public entry of `shape` that `convert` makes (a part, along the first axis) of our entry `own`."""

    own: str
    public: str
    shape: tuple[int, ...]
    convert: Callable[[Tensor], Tensor]


def _vector(own: str, public: str, like: Tensor) -> _Piece:
    return _Piece(own, public, tuple(like.shape), lambda value: value)


def _norm(own: str, public: str, norm: nn.GroupNorm | nn.LayerNorm) -> Iterator[_Piece]:
    yield _vector(f"{own}.weight", f"{public}/scale", norm.weight)
    yield _vector(f"{own}.bias", f"{public}/bias", norm.bias)


def _kernel(own: str, public: str, conv: nn.Conv2d) -> _Piece:
    out_channels, in_channels, height, width = conv.weight.shape
    return _Piece(
        f"{own}.weight",
        f"{public}/kernel",
        (height, width, in_channels, out_channels),
        lambda value: value.permute(3, 2, 0, 1),
    )


def _dense(own: str, public: str, layer: nn.Linear) -> Iterator[_Piece]:
    shape = (layer.in_features, layer.out_features)
    yield _Piece(f"{own}.weight", f"{public}/kernel", shape, lambda value: value.T)
    yield _vector(f"{own}.bias", f"{public}/bias", layer.bias)


def _unit_pieces(unit: BottleneckUnit, own: str, public: str) -> Iterator[_Piece]:
    for name, module in unit.named_children():
        if isinstance(module, nn.Conv2d):
            yield _kernel(f"{own}.{name}", f"{public}/{name}", module)
        elif isinstance(module, nn.GroupNorm):
            yield from _norm(f"{own}.{name}", f"{public}/{name}", module)


def _resnet_pieces(resnet: ResNet50, own: str) -> Iterator[_Piece]:
    if resnet.conv_root.in_channels == 3:
        yield _kernel(f"{own}conv_root", "conv_root", resnet.conv_root)
    yield from _norm(f"{own}gn_root", "gn_root", resnet.gn_root)
    for block, units in enumerate(resnet.blocks):
        assert isinstance(units, nn.Sequential)
        for position, unit in enumerate(units):
            assert isinstance(unit, BottleneckUnit)
            yield from _unit_pieces(
                unit, f"{own}blocks.{block}.{position}", f"block{block + 1}/unit{position + 1}"
            )


def _layer_pieces(layer: TransformerLayer, own: str, public: str) -> Iterator[_Piece]:
    hidden, heads = layer.out.in_features, layer.heads
    dim_head = hidden // heads
    yield from _norm(f"{own}.norm1", f"{public}/LayerNorm_0", layer.norm1)
    for part in ("query", "key", "value"):
        name = f"{public}/{_ATTENTION}/{part}"
        yield _Piece(
            f"{own}.qkv.weight", f"{name}/kernel", (hidden, heads, dim_head), lambda value: value.flatten(1).T
        )
        yield _Piece(f"{own}.qkv.bias", f"{name}/bias", (heads, dim_head), torch.flatten)
    name = f"{public}/{_ATTENTION}/out"
    yield _Piece(
        f"{own}.out.weight", f"{name}/kernel", (heads, dim_head, hidden), lambda value: value.flatten(0, 1).T
    )
    yield _vector(f"{own}.out.bias", f"{name}/bias", layer.out.bias)
    yield from _norm(f"{own}.norm2", f"{public}/LayerNorm_2", layer.norm2)
    yield from _dense(f"{own}.fc1", f"{public}/MlpBlock_3/Dense_0", layer.fc1)
    yield from _dense(f"{own}.fc2", f"{public}/MlpBlock_3/Dense_1", layer.fc2)


def _transformer_pieces(vit: VisionTransformer, own: str, stem: bool) -> Iterator[_Piece]:
    if stem:
        yield _kernel(f"{own}embedding", "embedding", vit.embedding)
    assert vit.embedding.bias is not None
    yield _vector(f"{own}embedding.bias", "embedding/bias", vit.embedding.bias)
    for position, layer in enumerate(vit.layers):
        assert isinstance(layer, TransformerLayer)
        yield from _layer_pieces(layer, f"{own}layers.{position}", f"Transformer/encoderblock_{position}")
    yield from _norm(f"{own}norm", "Transformer/encoder_norm", vit.norm)


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


def _public_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as in the first release: without the optimiser's prefix, units counted without leading zeros."""
    return {re.sub(r"/unit0+", "/unit", name.removeprefix("opt/target/")): weights[name] for name in weights}


def _convert(
    pieces: list[_Piece], given: Mapping[str, Tensor], expected_of: str, more: list[str]
) -> dict[str, Tensor]:
    """Our entries of the public ones. InputError lists what is missing, of another shape, or more than there is room for."""
    there = [(piece, given[piece.public]) for piece in pieces if piece.public in given]
    # scale and bias of some group norms are (1, 1, 1, channels)
    there = [(piece, value.flatten() if len(piece.shape) == 1 else value) for piece, value in there]
    problems = {
        "missing": [piece.public for piece in pieces if piece.public not in given],
        "of another shape": misshapen((piece.public, value, piece.shape) for piece, value in there),
        "without a counterpart": more,
    }
    require_fit(
        f"the public weights do not fit {expected_of}", problems, "check the network's settings and the file"
    )
    found: dict[str, list[Tensor]] = {}
    for piece, value in there:
        found.setdefault(piece.own, []).append(piece.convert(value).float())
    return {own: torch.cat(parts).contiguous() for own, parts in found.items()}


def _known(given: Mapping[str, Tensor]) -> bool:
    return "conv_root/kernel" in given or "embedding/kernel" in given


def import_resnet(resnet: ResNet50, own: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The ResNet's part of public weights, under our names, each with the prefix `own`.

    None where there are no such weights. InputError where something does not fit.
    """
    given = _public_names(weights)
    if not _known(given):
        return None
    pieces = list(_resnet_pieces(resnet, own))
    wanted = {piece.public for piece in pieces} | {"conv_root/kernel"}
    more = [name for name in given if name.startswith("block") and name not in wanted]
    return _convert(pieces, given, "the ResNet-50 encoder", more)


def import_hybrid(
    resnet: ResNet50 | None,
    resnet_own: str,
    vit: VisionTransformer,
    vit_own: str,
    weights: Mapping[str, Tensor],
) -> dict[str, Tensor] | None:
    """Public weights under our names, `resnet_own` and `vit_own` before them. None, and InputError, as `import_resnet`.

    Position embeddings of any grid are resized to the stored one.
    """
    given = _public_names(weights)
    if not _known(given):
        return None
    stem = resnet is not None or vit.embedding.in_channels == 3
    pieces = list(_resnet_pieces(resnet, resnet_own)) if resnet else []
    pieces += _transformer_pieces(vit, vit_own, stem)
    tokens = given[_POSITIONS].shape[1] if _POSITIONS in given and given[_POSITIONS].ndim == 3 else 0
    shape = (1, tokens if _grid_size(tokens) else 1 + GRID * GRID, vit.positions.shape[1])
    pieces.append(_Piece(f"{vit_own}positions", _POSITIONS, shape, _positions))
    wanted = {piece.public for piece in pieces} | {"conv_root/kernel", "embedding/kernel"}
    more = [name for name in given if _BODY.match(name) and name not in wanted]
    return _convert(pieces, given, "the ResNet-50 and Transformer" if resnet else "the Transformer", more)


def resnet_layers(resnet: ResNet50, own: str) -> list[tuple[str, ...]]:
    """Prefixes of the ResNet's parameters: stem, then block by block."""
    blocks = [(f"{own}blocks.{block}.",) for block in range(len(resnet.blocks))]
    return [(f"{own}conv_root.", f"{own}gn_root."), *blocks]


def transformer_layers(vit: VisionTransformer, own: str) -> list[tuple[str, ...]]:
    """Prefixes of the Transformer's parameters: patches and positions, then layer by layer, the last with the final norm."""
    layers: list[tuple[str, ...]] = [(f"{own}layers.{layer}.",) for layer in range(len(vit.layers))]
    layers[-1] = (*layers[-1], f"{own}norm.")
    return [(f"{own}embedding.", f"{own}positions"), *layers]
