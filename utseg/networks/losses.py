"""The loss: class-weighted cross-entropy plus soft Dice, summed over the outputs of deep supervision.

Computed in float32, whatever the network ran in. Pixels of the class IGNORED_CLASS count nowhere.

Axes: B batch, K classes (0 is background), H W pixels.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from utseg.labels import IGNORED_CLASS
from utseg.settings import Settings

NotNegative = Annotated[float, Field(ge=0)]
PIXELS = (0, 2, 3)


class LossSettings(Settings):
    """Cross-entropy with class weights (background; every other class 1) plus soft Dice, each at every output with that output's weight.

    Weights of outputs at full, ½, ¼, ⅛ as published for UTNet; halved on for networks with more outputs.
    """

    background_weight: Annotated[float, Field(gt=0)] = 0.5
    cross_entropy_weight: NotNegative = 1.0
    dice_weight: NotNegative = 1.0
    deep_supervision_weights: tuple[NotNegative, ...] = (1.0, 0.4, 0.2, 0.1, 0.05, 0.025, 0.0125)


def one_hot(target_BHW: Tensor, classes: int) -> Tensor:
    """The target as (B, K, H, W) float32, 1 at each pixel's class; 0 for all classes where it is ignored."""
    known_BHW = target_BHW != IGNORED_CLASS
    target_BHW = target_BHW.long() * known_BHW
    return F.one_hot(target_BHW, classes).movedim(-1, 1).float() * known_BHW[:, None]


class Counts(NamedTuple):
    """What the losses are made of, each (K,): sums over the pixels of a batch, which may be added to those of its other parts."""

    overlap_K: Tensor
    probability_K: Tensor
    reference_K: Tensor
    log_probability_K: Tensor


def soft_counts(logits_BKHW: Tensor, reference_BKHW: Tensor) -> Tensor:
    """The counts of a batch, stacked (4, K). Pixels that have no class in the reference count nowhere."""
    log_probability_BKHW = logits_BKHW.float().log_softmax(1)
    probability_BKHW = log_probability_BKHW.exp()
    return torch.stack(
        Counts(
            overlap_K=(probability_BKHW * reference_BKHW).sum(PIXELS),
            probability_K=(probability_BKHW * reference_BKHW.sum(1, keepdim=True)).sum(PIXELS),
            reference_K=reference_BKHW.sum(PIXELS),
            log_probability_K=(log_probability_BKHW * reference_BKHW).sum(PIXELS),
        )
    )


def soft_dice_loss(counts: Counts) -> Tensor:
    """1 − 2TP/(2TP+FP+FN) with soft counts, per class without background, averaged over the classes that the batch's reference has.

    Of the whole batch: slices lack structures so often that a Dice of each would mostly be undefined. Without any class the loss is 0.
    Uses 2TP+FP+FN = Σp + Σg.
    """
    size_K = counts.reference_K[1:]
    dice_K = 2 * counts.overlap_K[1:] / (counts.probability_K[1:] + size_K).clamp_min(1e-8)
    present_K = (size_K > 0).float()
    return ((1 - dice_K) * present_K).sum() / present_K.sum().clamp_min(1)


def weighted_cross_entropy(counts: Counts, background_weight: float) -> Tensor:
    """Cross-entropy as a mean over pixels weighted by their class: background as given, every other class 1. 0 without a pixel."""
    weight_K = torch.ones_like(counts.reference_K)
    weight_K[0] = background_weight
    pixels = (weight_K * counts.reference_K).sum().clamp_min(1e-8)
    return -(weight_K * counts.log_probability_K).sum() / pixels


def _terms(counts: Counts, settings: LossSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy, soft Dice, and the weighted sum of both."""
    cross_entropy = weighted_cross_entropy(counts, settings.background_weight)
    dice = soft_dice_loss(counts)
    return cross_entropy, dice, settings.cross_entropy_weight * cross_entropy + settings.dice_weight * dice


def training_loss(
    outputs: Tensor | Sequence[Tensor],
    target_BHW: Tensor,
    settings: LossSettings,
    total: Callable[[Tensor], Tensor] = lambda part: part,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss to step on, and its terms for the log: `cross_entropy` and `dice` of the full output, `auxiliary` of all others, weighted.

    `outputs` are logits: one tensor (B, K, H, W) or, with deep supervision, several of that size, the full output first. Of a part of a
    batch: `total` adds what all parts have, and passes gradients; the loss is that of the whole batch.
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    assert len(outputs) <= len(settings.deep_supervision_weights), "a weight for each output"
    reference_BKHW = one_hot(target_BHW, outputs[0].shape[1])
    counts_O4K = total(torch.stack([soft_counts(logits_BKHW, reference_BKHW) for logits_BKHW in outputs]))
    found = [_terms(Counts(*counts_4K), settings) for counts_4K in counts_O4K]
    cross_entropy, dice, _ = found[0]
    terms = {"cross_entropy": cross_entropy.detach(), "dice": dice.detach()}
    weights = settings.deep_supervision_weights
    losses = [weight * both for (_, _, both), weight in zip(found, weights, strict=False)]
    if len(losses) > 1:
        terms["auxiliary"] = torch.stack(losses[1:]).sum().detach()
    return torch.stack(losses).sum(), terms


def volume_loss(
    probability_KZYX: NDArray[np.float32], reference_ZYX: NDArray[np.uint8], settings: LossSettings
) -> dict[str, float]:
    """`cross_entropy` and `dice` of a volume's probabilities, its slices as one batch, and `total`, the full output's loss of both.

    Probabilities below 1e-7 count as 1e-7.
    """
    classes = len(probability_KZYX)
    known_ZYX = reference_ZYX != IGNORED_CLASS
    probability_KN, reference_N = probability_KZYX[:, known_ZYX], reference_ZYX[known_ZYX]
    chosen_N = probability_KN[reference_N, np.arange(reference_N.size)]
    size_K = np.bincount(reference_N, minlength=classes).astype(np.float64)
    overlap_K = np.bincount(reference_N, weights=chosen_N, minlength=classes)
    logs_K = np.bincount(reference_N, weights=np.log(np.maximum(chosen_N, 1e-7)), minlength=classes)
    probability_K = probability_KN.sum(1, dtype=np.float64)
    counts = Counts(*map(torch.from_numpy, (overlap_K, probability_K, size_K, logs_K)))
    cross_entropy, dice, both = map(float, _terms(counts, settings))
    total = settings.deep_supervision_weights[0] * both
    return {"total": total, "cross_entropy": cross_entropy, "dice": dice}
