"""The loss: class-weighted cross-entropy plus soft Dice, summed over the outputs of deep supervision.

Computed in float32, whatever the network ran in. Both terms come from one log-softmax, and the outputs share one encoding of the target.

Axes: B batch, K classes (0 is background), H W pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from trainers.recipe import LossSettings

PIXELS = (0, 2, 3)


def one_hot(target_BHW: Tensor, classes: int) -> Tensor:
    """The target as (B, K, H, W) float32, 1 at each pixel's class."""
    return F.one_hot(target_BHW.long(), classes).movedim(-1, 1).float()


def soft_dice_loss(probability_BKHW: Tensor, reference_BKHW: Tensor) -> Tensor:
    """1 − 2TP/(2TP+FP+FN) with soft counts, per class without background, averaged over the classes that the batch's reference has.

    Counts are summed over the whole batch: slices lack structures so often that a per-slice Dice would mostly be undefined or the
    all-or-nothing answer to a few pixels. A class that the batch lacks has no overlap to improve (cross-entropy punishes its false
    positives); without any class the loss is 0. Uses 2TP+FP+FN = Σp + Σg.
    """
    overlap_K = (probability_BKHW * reference_BKHW).sum(PIXELS)[1:]
    size_K = reference_BKHW.sum(PIXELS)[1:]
    dice_K = 2 * overlap_K / (probability_BKHW.sum(PIXELS)[1:] + size_K).clamp_min(1e-8)
    present_K = (size_K > 0).float()
    return ((1 - dice_K) * present_K).sum() / present_K.sum().clamp_min(1)


def weighted_cross_entropy(
    log_probability_BKHW: Tensor, reference_BKHW: Tensor, background_weight: float
) -> Tensor:
    """Cross-entropy as a mean over pixels weighted by their class: background as given, every other class 1."""
    weight_K = torch.ones(reference_BKHW.shape[1], device=reference_BKHW.device)
    weight_K[0] = background_weight
    by_class_K = (log_probability_BKHW * reference_BKHW).sum(PIXELS)
    return -(weight_K * by_class_K).sum() / (weight_K * reference_BKHW.sum(PIXELS)).sum()


def training_loss(
    outputs: Tensor | Sequence[Tensor], target_BHW: Tensor, settings: LossSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss to step on, and its terms for the log: `cross_entropy` and `dice` of the full output, `auxiliary` of all others, weighted.

    `outputs` are logits: one tensor (B, K, H, W) or, with deep supervision, several of that size, the full output first. More outputs than
    weights is an error of the caller; fewer is fine.
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    assert len(outputs) <= len(settings.deep_supervision_weights), "a weight for each output"
    reference_BKHW = one_hot(target_BHW, outputs[0].shape[1])
    losses: list[Tensor] = []
    terms: dict[str, Tensor] = {}
    for logits_BKHW, weight in zip(outputs, settings.deep_supervision_weights, strict=False):
        log_probability_BKHW = logits_BKHW.float().log_softmax(1)
        cross_entropy = weighted_cross_entropy(
            log_probability_BKHW, reference_BKHW, settings.background_weight
        )
        dice = soft_dice_loss(log_probability_BKHW.exp(), reference_BKHW)
        if not terms:
            terms = {"cross_entropy": cross_entropy.detach(), "dice": dice.detach()}
        losses.append(weight * (settings.cross_entropy_weight * cross_entropy + settings.dice_weight * dice))
    if len(losses) > 1:
        terms["auxiliary"] = torch.stack(losses[1:]).sum().detach()
    return torch.stack(losses).sum(), terms


def volume_loss(
    probability_KZYX: NDArray[np.float32], reference_ZYX: NDArray[np.uint8], settings: LossSettings
) -> dict[str, float]:
    """`cross_entropy` and `dice` of a volume's probabilities, its slices as one batch, and `total`, the full output's loss of both.

    The same formulas as in training, without a tensor as large as the probabilities. Probabilities below 1e-7 count as 1e-7.
    """
    classes = len(probability_KZYX)
    chosen_ZYX = np.take_along_axis(probability_KZYX, reference_ZYX[np.newaxis].astype(np.intp), 0)[0]
    reference = reference_ZYX.ravel()
    size_K = np.bincount(reference, minlength=classes).astype(np.float64)
    overlap_K = np.bincount(reference, weights=chosen_ZYX.ravel(), minlength=classes)
    logs_K = np.bincount(reference, weights=np.log(np.maximum(chosen_ZYX, 1e-7)).ravel(), minlength=classes)
    weight_K = np.ones(classes)
    weight_K[0] = settings.background_weight
    cross_entropy = -float((weight_K * logs_K).sum() / (weight_K * size_K).sum())
    dice_K = 2 * overlap_K / (probability_KZYX.sum((1, 2, 3), dtype=np.float64) + size_K)
    present_K = size_K[1:] > 0
    dice = float((1 - dice_K[1:])[present_K].mean()) if present_K.any() else 0.0
    weighted = settings.cross_entropy_weight * cross_entropy + settings.dice_weight * dice
    total = settings.deep_supervision_weights[0] * weighted
    return {"total": total, "cross_entropy": cross_entropy, "dice": dice}
