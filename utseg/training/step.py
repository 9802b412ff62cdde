"""One training step: forward, loss, its check, backward, clipping, update. The precision that it runs in is decided here too."""

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from utseg.augment.loader import Batch
from utseg.device import best_precision, computing_in
from utseg.errors import UtsegError
from utseg.networks.layers.synchronised_norm import Total
from utseg.networks.losses import training_loss
from utseg.training.recipe import Recipe


class LossNotFinite(UtsegError):
    """The loss or its gradient is NaN or infinite; nothing was stepped."""


@dataclass
class Sums:
    """Sums over the iterations of an epoch so far, for its line in the log; part of a checkpoint in the middle of one."""

    iterations: int = 0
    loss: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)
    gradient_norm: float = 0.0
    seconds: float = 0.0
    data_wait: float = 0.0
    threads: list[int] = field(default_factory=list)

    def add(self, loss: float, terms: dict[str, float], gradient_norm: float, threads: int) -> None:
        """Adds one iteration, done on so many threads."""
        self.iterations += 1
        self.loss += loss
        self.gradient_norm += gradient_norm
        self.threads.append(threads)
        for name, value in terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + value


def uses_bfloat16(amp: str, device: torch.device) -> bool:
    """Whether `amp` means bfloat16 on this device."""
    return (best_precision(device) if amp == "auto" else amp) == "bfloat16"


def precision(amp: str, device: torch.device) -> AbstractContextManager[object]:
    """The context that the network runs in, by the recipe's `amp`."""
    return computing_in("bfloat16" if uses_bfloat16(amp, device) else "float32", device)


def train_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    recipe: Recipe,
    device: torch.device,
    total: Total | None = None,
) -> tuple[float, dict[str, float], float]:
    """Steps on one batch. Returns the loss, its terms and the norm of the gradient before clipping.

    Where `batch` is this process's part of one, `total` adds a tensor over all parts, and everything is that of the whole batch.
    Raises LossNotFinite, before a weight is changed, where the loss or the gradient is not finite.
    """
    image_BCHW = torch.from_numpy(batch.image_BCHW).to(device, non_blocking=True)
    target_BHW = torch.from_numpy(batch.label_BHW).to(device, non_blocking=True)
    try:
        with precision(recipe.amp, device):
            outputs: Tensor | Sequence[Tensor] = network(image_BCHW)
        loss, terms = training_loss(outputs, target_BHW, recipe.loss, total_of_parts(total))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
    except torch.OutOfMemoryError:
        shape = " × ".join(map(str, image_BCHW.shape))
        raise UtsegError(
            f"{device} has not the memory for a step on a batch of {shape} (B, C, H, W); plan anew with a smaller --memory-gb, "
            "or train with a smaller batch (--set batch_size=…)"
        ) from None
    if total is not None:
        add_gradients(network.parameters(), total)
    limit = recipe.gradient_clip_norm or math.inf
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), limit)
    # One transfer for everything that the check and the log need: on a GPU each of them would wait for the device.
    values = torch.stack([loss.detach(), norm.detach(), *terms.values()]).tolist()
    if not (math.isfinite(values[0]) and math.isfinite(values[1])):
        optimizer.zero_grad(set_to_none=True)
        what = "loss" if not math.isfinite(values[0]) else "gradient of the loss"
        raise LossNotFinite(f"the {what} is not finite ({values[0]:g})")
    optimizer.step()
    return values[0], dict(zip(terms, values[2:], strict=True)), values[1]


class _TotalOfParts(torch.autograd.Function):
    """The sum over processes of a value of which each has a part. Its gradient is the gradient of each part."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, total: Total) -> Tensor:
        return total(part.clone())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def total_of_parts(total: Total | None) -> Total:
    """`total` as a step of the network: gradients pass."""
    return lambda part: part if total is None else _TotalOfParts.apply(part, total)


def add_gradients(parameters: Iterable[nn.Parameter], total: Total) -> None:
    """Puts the sums over processes in the place of the gradients: of one loss, of which each process has done its part."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = total(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    sums = flat.split([gradient.numel() for gradient in gradients])
    for gradient, whole in zip(gradients, sums, strict=True):
        gradient.copy_(whole.view(gradient.shape))
