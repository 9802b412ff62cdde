"""Batch normalisation in training, of a whole batch or of one that lies in parts on several processes.

In parts, its statistics and gradients are those of the whole batch, exactly: moments and the two sums of backward are added over the
processes, in float64. torch's SyncBatchNorm does so on GPUs only. What adds is handed in; this module knows of no process group.
Gradients of scale and shift are those of this process's part, to be added by whoever adds those of all parameters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from utseg.errors import InputError

Total = Callable[[Tensor], Tensor]
"""The sum of a tensor over all processes; each gets it. May work in place. No gradient passes."""


class NormSettings(NamedTuple):
    """What a normalisation has besides scale and shift. `total` is None where the batch is whole."""

    running_mean: Tensor | None
    running_var: Tensor | None
    momentum: float
    eps: float
    total: Total | None = None

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> "NormSettings":
        """Those of a module, which keeps running statistics by momentum."""
        assert norm.momentum is not None
        total = norm.total if isinstance(norm, SynchronisedBatchNorm) else None
        return cls(norm.running_mean, norm.running_var, norm.momentum, norm.eps, total)


def normalise(
    x_BCHW: Tensor, scale: Tensor, shift: Tensor, settings: NormSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Normalised x, the mean and inverse deviation of each channel, and, of a batch in parts, the values of a channel in all of them.

    Updates the running statistics.
    """
    mean, variance, momentum, eps, total = settings
    if total is None:
        y, batch_mean, inverse_deviation = torch.native_batch_norm(
            x_BCHW, scale, shift, mean, variance, True, momentum, eps
        )
        return y, batch_mean, inverse_deviation, None
    count, batch_mean, batch_variance = whole_moments(x_BCHW, total)
    if mean is not None and variance is not None:
        mean.lerp_(batch_mean.to(mean.dtype), momentum)
        variance.lerp_((batch_variance * count / (count - 1)).to(variance.dtype), momentum)
    inverse_deviation = (batch_variance + eps).rsqrt().to(scale.dtype)
    batch_mean, batch_variance = batch_mean.to(scale.dtype), batch_variance.to(scale.dtype)
    y = F.batch_norm(x_BCHW, batch_mean, batch_variance, scale, shift, eps=eps)
    return y, batch_mean, inverse_deviation, count


def whole_moments(x_BCHW: Tensor, total: Total) -> tuple[Tensor, Tensor, Tensor]:
    """Values of a channel, their mean and their variance (of the population), float64, over all parts of the batch."""
    wide = torch.promote_types(x_BCHW.dtype, torch.float32)
    unused = x_BCHW.new_zeros(2, x_BCHW.shape[1], dtype=wide)  # says in which precision to compute
    mean, variance = (x.double() for x in torch.batch_norm_update_stats(x_BCHW, unused[0], unused[1], 0.0))
    count = x_BCHW.numel() // x_BCHW.shape[1]
    sums_3C = total(count * torch.stack([torch.ones_like(mean), mean, variance + mean**2]))
    mean = sums_3C[1] / sums_3C[0]
    return sums_3C[0], mean, (sums_3C[2] / sums_3C[0] - mean**2).clamp_min(0)


def normalise_backward(
    grad: Tensor,
    x_BCHW: Tensor,
    scale: Tensor,
    found: tuple[Tensor, Tensor, Tensor | None],
    settings: NormSettings,
    needs_x: bool,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of x, scale and shift. `found`: mean, inverse deviation and count, as `normalise` gave them."""
    mean, inverse_deviation, count = found
    total = settings.total
    whole = total is None or count is None
    wanted = [needs_x and whole, True, True]
    grad_x, grad_scale, grad_shift = torch.ops.aten.native_batch_norm_backward(
        grad, x_BCHW, scale, None, None, mean, inverse_deviation, True, settings.eps, wanted
    )
    if total is None or count is None:
        return grad_x, grad_scale, grad_shift
    mean_2C = (total(torch.stack([grad_scale, grad_shift]).double()) / count).to(scale.dtype)
    if not needs_x:
        return None, grad_scale, grad_shift
    slope, along, level, center = (
        c[:, None, None]
        for c in (
            scale * inverse_deviation,
            -scale * inverse_deviation**2 * mean_2C[0],
            -scale * inverse_deviation * mean_2C[1],
            mean,
        )
    )
    grad_x = (x_BCHW - center).mul_(along).add_(level).addcmul_(grad, slope).to(x_BCHW.dtype)
    return grad_x, grad_scale, grad_shift


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, scale: Tensor, shift: Tensor, settings: NormSettings) -> Tensor:
        y, *found = normalise(x_BCHW, scale, shift, settings)
        ctx.save_for_backward(x_BCHW, scale, *found)
        ctx.settings = settings
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_BCHW, scale, *found = ctx.saved_tensors
        needs_x = ctx.needs_input_grad[0]
        return *normalise_backward(grad, x_BCHW, scale, tuple(found), ctx.settings, needs_x), None


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d of a batch that lies in parts on several processes, by the same names."""

    total: Total

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x_BCHW)
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        y: Tensor = _Normalise.apply(x_BCHW, self.weight, self.bias, NormSettings.of(self))
        return y


def synchronise_norms(network: nn.Module, total: Total) -> None:
    """Has the batch normalisations of a network take their batch as one part of several, in place. Parameters stay the same objects.

    Raises InputError for a kind of batch normalisation that cannot be.
    """
    for parent_name, parent in list(network.named_modules()):
        for name, norm in list(parent.named_children()):
            if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
                continue
            if type(norm) is not nn.BatchNorm2d or not norm.affine or norm.momentum is None:
                raise InputError(
                    f"{'.'.join(filter(None, (parent_name, name)))}: a {norm} does not take a batch in parts; train in one process"
                )
            synchronised = SynchronisedBatchNorm(norm.num_features, norm.eps, norm.momentum, device="meta")
            synchronised.weight, synchronised.bias = norm.weight, norm.bias
            synchronised.running_mean, synchronised.running_var = norm.running_mean, norm.running_var
            synchronised.num_batches_tracked = norm.num_batches_tracked
            synchronised.total = total
            setattr(parent, name, synchronised.train(norm.training))
