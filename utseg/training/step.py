"""One training step: forward, loss, its check, backward, clipping, update. The precision that it runs in is decided here too."""

import logging
import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from utseg.augment.loader import Batch
from utseg.device import (
    Precision,
    best_precision,
    chosen_precision,
    computing_in,
    has_instructions,
    to_device,
)
from utseg.errors import UtsegError
from utseg.inference.windows import is_out_of_memory
from utseg.networks.layers.synchronised_norm import Total
from utseg.networks.losses import training_loss
from utseg.training.recipe import Amp, Recipe

logger = logging.getLogger("utseg")


class LossNotFinite(UtsegError):
    """The loss or its gradient is NaN or infinite; nothing was stepped."""


@dataclass
class Sums:
    """Sums over the iterations of an epoch so far, for its line in the log; part of a checkpoint in the middle of one.

    `skipped` counts steps not taken for a gradient that was too large for float16; they have no gradient norm.
    """

    iterations: int = 0
    loss: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)
    gradient_norm: float = 0.0
    seconds: float = 0.0
    data_wait: float = 0.0
    threads: list[int] = field(default_factory=list)
    skipped: int = 0

    def add(self, loss: float, terms: dict[str, float], gradient_norm: float, threads: int) -> None:
        """Adds one iteration, done on so many threads."""
        self.iterations += 1
        self.loss += loss
        self.threads.append(threads)
        if math.isfinite(gradient_norm):
            self.gradient_norm += gradient_norm
        else:
            self.skipped += 1
        for name, value in terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + value


def resolved_amp(amp: Amp, device: torch.device) -> Amp:
    """What "auto" is on the device: the best, and float16 on GPUs that have it and no bfloat16. Anything else as it is.

    Raises UsageError where nothing is computed so on the device.
    """
    if amp in ("bfloat16", "float16"):
        chosen_precision(amp, device)
    if amp != "auto":
        return amp
    if best_precision(device) == "bfloat16":
        return "bfloat16"
    return "float16" if device.type == "cuda" and has_instructions("float16", device) else "off"


def training_precision(amp: Amp, device: torch.device) -> Precision:
    """What a network is trained in by the recipe's `amp`."""
    precisions: dict[Amp, Precision] = {"off": "float32", "bfloat16": "bfloat16", "float16": "float16"}
    return precisions[resolved_amp(amp, device)]


def warn_if_emulated(amp: Amp, device: torch.device) -> None:
    """In the log: the device trains more slowly so than in float32."""
    chosen = training_precision(amp, device)
    if not has_instructions(chosen, device):
        words = (
            "the run trains in %s (amp), for which this %s has no instructions: it is slower than in float32"
        )
        logger.warning(words, chosen, "GPU" if device.type == "cuda" else "CPU")


def precision(amp: Amp, device: torch.device) -> AbstractContextManager[object]:
    """The context that the network runs in, by the recipe's `amp`."""
    return computing_in(training_precision(amp, device), device)


def make_scaler(amp: Amp, device: torch.device) -> GradScaler | None:
    """What scales the loss in float16, in which small gradients would be 0; None in other precisions."""
    return GradScaler(device.type) if training_precision(amp, device) == "float16" else None


def pinned(batch: Batch) -> Batch:
    """The batch in page-locked memory, for `to_device`; to be called where batches are made ahead."""
    image_BCHW, label_BHW = (
        torch.from_numpy(array).pin_memory().numpy() for array in (batch.image_BCHW, batch.label_BHW)
    )
    return replace(batch, image_BCHW=image_BCHW, label_BHW=label_BHW)


def train_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    recipe: Recipe,
    device: torch.device,
    total: Total | None = None,
    scaler: GradScaler | None = None,
    members_KN: Tensor | None = None,
) -> tuple[float, dict[str, float], float]:
    """Steps on one batch. Returns the loss, its terms and the norm of the gradient before clipping.

    Where `batch` is this process's part of one, `total` adds a tensor over all parts, and everything is that of the whole batch.
    Raises LossNotFinite, before a weight is changed, where the loss or the gradient is not finite. With a `scaler` a gradient that is not
    may be too large for float16: then the step is left out, its norm is not finite, and the next losses are scaled less. `members_KN`: as
    of `training_loss`.
    """
    try:
        return _step(network, optimizer, batch, recipe, device, total, scaler, members_KN)
    except RuntimeError as error:
        ours = in_words(error, device, batch)
        if ours is None:
            raise
        raise ours from None


def _step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    recipe: Recipe,
    device: torch.device,
    total: Total | None,
    scaler: GradScaler | None,
    members_KN: Tensor | None,
) -> tuple[float, dict[str, float], float]:
    image_BCHW, target_BHW = (to_device(array, device) for array in (batch.image_BCHW, batch.label_BHW))
    with precision(recipe.amp, device):
        outputs: Tensor | Sequence[Tensor] = network(image_BCHW)
    loss, terms = training_loss(outputs, target_BHW, recipe.loss, total_of_parts(total), members_KN)
    optimizer.zero_grad(set_to_none=True)
    (scaler.scale(loss) if scaler else loss).backward()
    if total is not None:
        add_gradients(network.parameters(), total)
    if scaler:
        scaler.unscale_(optimizer)
    limit = recipe.gradient_clip_norm or math.inf
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), limit)
    values = read(torch.stack([loss.detach(), norm.detach(), *terms.values()]))
    if not math.isfinite(values[0]):
        optimizer.zero_grad(set_to_none=True)
        raise LossNotFinite(f"the loss is not finite ({values[0]:g})")
    if math.isfinite(values[1]):
        optimizer.step()
    elif not scaler or scaler.get_scale() < 1:
        optimizer.zero_grad(set_to_none=True)
        raise LossNotFinite(f"the norm of the gradient of the loss is not finite ({values[1]:g})")
    if scaler:
        scaler.update()
    return values[0], dict(zip(terms, values[2:], strict=True)), values[1]


def in_words(error: RuntimeError, device: torch.device, batch: Batch) -> UtsegError | None:
    """What a user can do about an error of torch, where there is something."""
    if is_out_of_memory(error):
        shape = " × ".join(map(str, batch.image_BCHW.shape))
        return UtsegError(
            f"{device} has not the memory for a step on a batch of {shape} (B, C, H, W); plan anew with a smaller --memory-gb, "
            "or train with a smaller batch (--set batch_size=…)"
        )
    from torch._dynamo.exc import TorchDynamoException  # takes a second

    if isinstance(error, TorchDynamoException):
        reason = str(error).strip().splitlines()[0]
        return UtsegError(f"--compile: torch cannot compile the network ({reason}); train without it")
    return None


def read(values: Tensor) -> list[float]:
    """Waits for the device and reads: once an iteration, all that the check and the log need. No weight changes before the check."""
    found: list[float] = values.tolist()
    return found


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
