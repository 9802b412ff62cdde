"""Batch normalisation → ReLU → convolution that keeps one map for backward instead of two: that of the convolution is made again.

Chen et al., *Training Deep Nets with Sublinear Memory Cost*, 2016; Rota Bulò, Porzi, Kontschieder, *In-Place Activated BatchNorm*,
CVPR 2018. Running statistics are updated once, in forward. A batch that lies on several processes: `synchronised_norm`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from utseg.networks.layers.synchronised_norm import NormSettings, normalise, normalise_backward


def norm_relu_conv(norm: nn.BatchNorm2d, conv: nn.Conv2d, x_BCHW: Tensor) -> Tensor:
    """conv(ReLU(norm(x))). `norm` keeps running statistics by momentum; `conv` has no bias, one group and no dilation.

    While a graph is compiled or exported, and where there is nothing to keep, these are the three plain operations.
    """
    if not (norm.training and torch.is_grad_enabled()) or torch.compiler.is_compiling():
        y: Tensor = conv(F.relu_(norm(x_BCHW)))
        return y
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    device, weight = x_BCHW.device.type, conv.weight
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        weight = weight.to(torch.get_autocast_dtype(device))
    where = conv.stride, conv.padding
    z: Tensor = _NormReluConv.apply(x_BCHW, norm.weight, norm.bias, weight, NormSettings.of(norm), where)
    return z


class _NormReluConv(torch.autograd.Function):
    """See the module. `weight`, which decides what the convolution is computed in, may be of lower precision than `x`."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BCHW: Tensor,
        scale: Tensor,
        shift: Tensor,
        weight: Tensor,
        settings: NormSettings,
        where: tuple[tuple[int, ...], Any],
    ) -> Tensor:
        y, *found = normalise(x_BCHW, scale, shift, settings)
        ctx.save_for_backward(x_BCHW, scale, shift, weight, *found)
        ctx.settings = (settings, *where)
        seen, stride = _seen(F.relu_(y).to(weight.dtype), weight, where[0])
        return F.conv2d(seen, weight, None, stride, where[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_BCHW, scale, shift, weight, mean, inverse_deviation, count = ctx.saved_tensors
        settings, stride, padding = ctx.settings
        y = F.relu_(F.batch_norm(x_BCHW, mean, inverse_deviation.pow(-2), scale, shift, eps=0.0))
        seen, step = _seen(y.to(weight.dtype), weight, stride)
        grad_y, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad, seen, weight, None, step, padding, [1, 1], False, [0, 0], 1, [True, True, False]
        )
        if step != stride:
            whole = torch.zeros_like(y, dtype=grad_y.dtype)
            whole[..., :: stride[0], :: stride[1]] = grad_y
            grad_y = whole
        grad_y = torch.ops.aten.threshold_backward(grad_y.to(y.dtype), y, 0)
        del y
        found = (mean, inverse_deviation, count)
        needs_x = ctx.needs_input_grad[0]
        grad_x, grad_scale, grad_shift = normalise_backward(grad_y, x_BCHW, scale, found, settings, needs_x)
        return grad_x, grad_scale, grad_shift, grad_weight, None, None


def _seen(y_BCHW: Tensor, weight: Tensor, stride: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """What a convolution reads of its input, and the stride over that: a 1×1 kernel reads every n-th pixel alone.

    torch 2.13's strided 1×1 convolution on CPUs writes past its memory in backward, with four input channels that lie last.
    """
    if weight.shape[2:] != (1, 1) or stride == (1, 1):
        return y_BCHW, stride
    return y_BCHW[..., :: stride[0], :: stride[1]], (1, 1)
