"""The public ResNet + vision Transformer, plainly: arrays under the public names, and a float64 forward pass straight from them.

Nothing is shared with the networks. Layout as published: images and kernels are (height, width, channels), NHWC and HWIO.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

HIDDEN, HEADS, MLP, LAYERS = 16, 4, 24, 2
WIDTH, UNITS = 32, (2, 1, 1)
ATTENTION = "MultiHeadDotProductAttention_1"


class _Shapes(dict[str, tuple[int, ...]]):
    def norm(self, name: str, channels: int, spatial: bool = False) -> None:
        shape = (1, 1, 1, channels) if spatial else (channels,)
        self.update({f"{name}/scale": shape, f"{name}/bias": shape})

    def dense(self, name: str, kernel: Sequence[int], bias: Sequence[int]) -> None:
        self.update({f"{name}/kernel": tuple(kernel), f"{name}/bias": tuple(bias)})


def _resnet_shapes(shapes: _Shapes) -> None:
    shapes["conv_root/kernel"] = (7, 7, 3, WIDTH)
    shapes.norm("gn_root", WIDTH, spatial=True)
    before = WIDTH
    for block, units in enumerate(UNITS):
        inner = WIDTH * 2**block
        for unit in range(units):
            name = f"block{block + 1}/unit{unit + 1}"
            shapes[f"{name}/conv1/kernel"] = (1, 1, before, inner)
            shapes[f"{name}/conv2/kernel"] = (3, 3, inner, inner)
            shapes[f"{name}/conv3/kernel"] = (1, 1, inner, 4 * inner)
            for norm, channels in (("gn1", inner), ("gn2", inner), ("gn3", 4 * inner)):
                shapes.norm(f"{name}/{norm}", channels, spatial=True)
            if unit == 0:
                shapes[f"{name}/conv_proj/kernel"] = (1, 1, before, 4 * inner)
                shapes.norm(f"{name}/gn_proj", 4 * inner, spatial=True)
            before = 4 * inner


def _transformer_shapes(shapes: _Shapes, grid: int) -> None:
    shapes["cls"] = (1, 1, HIDDEN)
    shapes["Transformer/posembed_input/pos_embedding"] = (1, 1 + grid * grid, HIDDEN)
    for layer in range(LAYERS):
        name = f"Transformer/encoderblock_{layer}"
        shapes.norm(f"{name}/LayerNorm_0", HIDDEN)
        shapes.norm(f"{name}/LayerNorm_2", HIDDEN)
        for part in ("query", "key", "value"):
            shapes.dense(
                f"{name}/{ATTENTION}/{part}", (HIDDEN, HEADS, HIDDEN // HEADS), (HEADS, HIDDEN // HEADS)
            )
        shapes.dense(f"{name}/{ATTENTION}/out", (HEADS, HIDDEN // HEADS, HIDDEN), (HIDDEN,))
        shapes.dense(f"{name}/MlpBlock_3/Dense_0", (HIDDEN, MLP), (MLP,))
        shapes.dense(f"{name}/MlpBlock_3/Dense_1", (MLP, HIDDEN), (HIDDEN,))
    shapes.norm("Transformer/encoder_norm", HIDDEN)
    shapes.dense("pre_logits", (HIDDEN, HIDDEN), (HIDDEN,))
    shapes.dense("head", (HIDDEN, 5), (5,))


def public_weights(*, hybrid: bool, grid: int = 16) -> dict[str, Tensor]:
    """Random weights under all names of a public file, small, drawn with a fixed seed."""
    shapes = _Shapes()
    if hybrid:
        _resnet_shapes(shapes)
    shapes.dense("embedding", (1, 1, 16 * WIDTH, HIDDEN) if hybrid else (16, 16, 3, HIDDEN), (HIDDEN,))
    _transformer_shapes(shapes, grid)
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in shapes.items():
        spread = 0.2 if len(shape) < 2 or shape[:3] == (1, 1, 1) else np.prod(shape[:-1]) ** -0.5
        drawn = rng.standard_normal(shape) * spread + (1 if name.endswith("scale") else 0)
        arrays[name] = torch.from_numpy(drawn.astype(np.float32))
    return arrays


def _same(x: Tensor, size: int, stride: int, value: float) -> Tensor:
    """Pad (B, C, H, W) so that a window of `size` gives ceil(length / stride) results, the odd pixel behind."""
    margins = []
    for length in (x.shape[3], x.shape[2]):
        total = max((-(-length // stride) - 1) * stride + size - length, 0)
        margins += [total // 2, total - total // 2]
    return F.pad(x, margins, value=value)


class Reference:
    """The forward pass, layer by layer as the paper and the published model write it."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.w = {name: value.double() for name, value in weights.items()}

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = self.w[f"{name}/kernel"]
        mean, deviation = kernel.mean((0, 1, 2)), kernel.std((0, 1, 2), correction=0)
        standard = ((kernel - mean) / (deviation + 1e-5)).permute(3, 2, 0, 1)
        return F.conv2d(_same(x, kernel.shape[0], stride, 0), standard, stride=stride)

    def group_norm(self, x: Tensor, name: str) -> Tensor:
        groups = x.reshape(x.shape[0], 32, -1)
        mean, variance = groups.mean(2, keepdim=True), groups.var(2, correction=0, keepdim=True)
        scale, bias = (self.w[f"{name}/{part}"].reshape(-1, 1, 1) for part in ("scale", "bias"))
        return ((groups - mean) / (variance + 1e-6).sqrt()).reshape(x.shape) * scale + bias

    def resnet(self, x: Tensor) -> list[Tensor]:
        """Image (B, 3, H, W) → maps at ½, ¼, ⅛, 1/16."""
        x = self.group_norm(self.conv(x, "conv_root", 2), "gn_root").relu()
        maps = [x]
        x = F.max_pool2d(_same(x, 3, 2, -torch.inf), 3, 2)
        for block, units in enumerate(UNITS):
            for unit in range(units):
                name = f"block{block + 1}/unit{unit + 1}"
                stride = 2 if block and not unit else 1
                y = self.group_norm(self.conv(x, f"{name}/conv1"), f"{name}/gn1").relu()
                y = self.group_norm(self.conv(y, f"{name}/conv2", stride), f"{name}/gn2").relu()
                y = self.group_norm(self.conv(y, f"{name}/conv3"), f"{name}/gn3")
                if not unit:
                    x = self.group_norm(self.conv(x, f"{name}/conv_proj", stride), f"{name}/gn_proj")
                x = (x + y).relu()
            maps.append(x)
        return maps

    def layer_norm(self, x: Tensor, name: str) -> Tensor:
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-6).sqrt() * self.w[f"{name}/scale"] + self.w[f"{name}/bias"]

    def transformer(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) → (B, hidden, h, w); the grid must be that of the position embeddings. No class token."""
        kernel = self.w["embedding/kernel"]
        x = F.conv2d(x, kernel.permute(3, 2, 0, 1), self.w["embedding/bias"], stride=kernel.shape[0])
        grid = x.shape[2:]
        x = x.flatten(2).transpose(1, 2) + self.w["Transformer/posembed_input/pos_embedding"][:, 1:]
        for layer in range(LAYERS):
            name = f"Transformer/encoderblock_{layer}"
            y = self.layer_norm(x, f"{name}/LayerNorm_0")
            q, k, v = (
                torch.einsum("bnc,ced->bned", y, self.w[f"{name}/{ATTENTION}/{part}/kernel"])
                + self.w[f"{name}/{ATTENTION}/{part}/bias"]
                for part in ("query", "key", "value")
            )
            attention = torch.softmax(torch.einsum("bned,bmed->benm", q, k) / q.shape[-1] ** 0.5, dim=-1)
            seen = torch.einsum("benm,bmed->bned", attention, v)
            out = f"{name}/{ATTENTION}/out"
            x = x + torch.einsum("bned,edc->bnc", seen, self.w[f"{out}/kernel"]) + self.w[f"{out}/bias"]
            y = self.layer_norm(x, f"{name}/LayerNorm_2")
            dense = f"{name}/MlpBlock_3/Dense"
            y = F.gelu(y @ self.w[f"{dense}_0/kernel"] + self.w[f"{dense}_0/bias"])
            x = x + y @ self.w[f"{dense}_1/kernel"] + self.w[f"{dense}_1/bias"]
        return self.layer_norm(x, "Transformer/encoder_norm").transpose(1, 2).unflatten(2, grid)
