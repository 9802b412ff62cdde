"""Dropout for the CPU that draws its mask again in backward: faster than torch's, and nothing is kept.

Here a draw is one seed from torch's generator; backward draws the same mask again from it. 16 random bits decide a value, so the rate is
exact to 2^-17; torch's `bernoulli_` takes seven times as long. On other devices torch's own is used.
"""

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from utseg.networks.layers.device_path import on_cpu

_AT_ONCE = 2**18


def draw_seed(like: Tensor) -> int:
    """A seed from torch's generator. 0 for a fake tensor: it stands for sizes only (planning memory), no value can be drawn for it."""
    return 0 if isinstance(like, FakeTensor) else int(torch.randint(2**62, ()))


class Mask:
    """Masks of one seed, in order. A second one made alike gives the same masks."""

    def __init__(self, most: int, rate: float, seed: int, like: Tensor) -> None:
        """`most`: values of the largest mask; `like`: whose dtype the masks have."""
        self._generator = torch.Generator().manual_seed(seed)
        self._bits = torch.empty(-(-most // 4), dtype=torch.int64)
        self._kept = like.new_empty(most)
        self._least = round(rate * 2**16) - 2**15

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        """1 where a value is kept, 0 where it is dropped. Overwritten by the next draw."""
        kept = self._kept[: torch.Size(shape).numel()].view(shape)
        bits = self._bits[: -(-kept.numel() // 4)].random_(-(2**63), None, generator=self._generator)
        return torch.ge(bits.view(torch.int16)[: kept.numel()].view(shape), self._least, out=kept)


def _mask_flat(x: Tensor, rate: float, seed: int) -> Tensor:
    """x times the mask / (1 - rate), in x's memory order."""
    result = torch.mul(x, 1 / (1 - rate))
    flat = result.as_strided((result.numel(),), (1,))
    mask = Mask(min(_AT_ONCE, flat.numel()), rate, seed, result)
    if isinstance(x, FakeTensor):
        return result
    for start in range(0, flat.numel(), _AT_ONCE):
        part = flat[start : start + _AT_ONCE]
        part.mul_(mask.draw((part.numel(),)))
    return result


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float, seed: int) -> Tensor:
        x = x.contiguous(memory_format=_memory_format(x))
        ctx.settings = (rate, seed, _memory_format(x))
        return _mask_flat(x, rate, seed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rate, seed, memory_format = ctx.settings
        return _mask_flat(grad.contiguous(memory_format=memory_format), rate, seed), None, None


def _memory_format(x: Tensor) -> torch.memory_format:
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Each value is set to 0 with probability `rate`, else divided by 1 - rate; `x` itself when not training or at rate 0."""
    if not training or not rate or not x.numel():
        return x
    if not on_cpu(x) or torch.compiler.is_compiling():
        return F.dropout(x, rate)
    dropped: Tensor = _Dropout.apply(x, rate, draw_seed(x))
    return dropped
