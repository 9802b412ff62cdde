"""The loss: class-weighted cross-entropy plus soft Dice, summed over the outputs of deep supervision.

Regions (`label_map.py`) overlap: there each channel has a sigmoid and binary cross-entropy, in place of softmax and cross-entropy.

Computed in float32, whatever the network ran in. Pixels of the class IGNORED_CLASS count nowhere.

Axes: B batch, K classes (0 is background), H W pixels.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from utseg.labels import IGNORED_CLASS
from utseg.settings import Settings

NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
PIXELS = (0, 2, 3)


class LossSettings(Settings):
    """Cross-entropy with class weights plus soft Dice, each at every output with that output's weight.

    `class_weights`: of the cross-entropy, by label; of a recipe that was applied to a plan, of all labels in the order of the classes, or
    none, which is 1 for each. Regions have no weight of the background.
    Weights of outputs at full, ½, ¼, ⅛ as published for UTNet; halved on for networks with more outputs. `normalised_weights`: divided by
    the sum of those that the network has outputs for. `auxiliary_size`: whether a coarser output is upsampled to the target's size, or
    the target sampled at its own. `dice_smooth`: pixels added to both sides of each class's Dice; above 0, classes that the batch's
    reference lacks have a Dice too, and count.
    """

    background_weight: Positive = 0.5
    class_weights: dict[str, Positive] = Field(default_factory=dict)
    cross_entropy_weight: NotNegative = 1.0
    dice_weight: NotNegative = 1.0
    deep_supervision_weights: tuple[NotNegative, ...] = (1.0, 0.4, 0.2, 0.1, 0.05, 0.025, 0.0125)
    normalised_weights: bool = False
    auxiliary_size: Literal["full", "own"] = "full"
    dice_smooth: NotNegative = 0.0

    def output_weights(self, outputs: int) -> list[float]:
        """The weight of each of so many outputs."""
        weights = self.deep_supervision_weights[:outputs]
        assert len(weights) == outputs, "a weight for each output"
        whole = (sum(weights) or 1.0) if self.normalised_weights else 1.0
        return [weight / whole for weight in weights]


def at_size(target_BHW: Tensor, size_HW: Sequence[int]) -> Tensor:
    """The classes at the centres of the pixels of another size; where a centre lies between pixels, the later one, as nnU-Net has it."""
    if tuple(target_BHW.shape[1:]) == tuple(size_HW):
        return target_BHW
    sampled_B1HW = F.interpolate(target_BHW[:, None].float(), tuple(size_HW), mode="nearest-exact")
    return sampled_B1HW[:, 0].to(target_BHW.dtype)


def one_hot(target_BHW: Tensor, classes: int, members_KN: Tensor | None = None) -> Tensor:
    """The target as (B, K, H, W) float32, 1 at each pixel's class; 0 for all where it is ignored. `members_KN`: as of `training_loss`."""
    known_BHW = target_BHW != IGNORED_CLASS
    target_BHW = target_BHW.long() * known_BHW
    hot_BHWK = F.one_hot(target_BHW, classes) if members_KN is None else members_KN.T[target_BHW]
    return hot_BHWK.movedim(-1, 1).float() * known_BHW[:, None]


class Counts(NamedTuple):
    """What the losses are made of, each (K,): sums over the pixels of a batch, which may be added to those of its other parts.

    `log_probability_K`: of the class; of a region, of what the pixel is, in it or not.
    """

    overlap_K: Tensor
    probability_K: Tensor
    reference_K: Tensor
    log_probability_K: Tensor
    pixels_K: Tensor


def soft_counts(logits_BKHW: Tensor, reference_BKHW: Tensor, *, regions: bool = False) -> Tensor:
    """The counts of a batch, stacked (5, K). Pixels that have no class in the reference count nowhere."""
    logits_BKHW = logits_BKHW.float()
    log_BKHW = F.logsigmoid(logits_BKHW) if regions else logits_BKHW.log_softmax(1)
    probability_BKHW = log_BKHW.exp()
    known_B1HW = reference_BKHW.amax(1, keepdim=True)
    log_probability_BKHW = log_BKHW * reference_BKHW
    if regions:
        log_probability_BKHW = log_probability_BKHW + F.logsigmoid(-logits_BKHW) * (
            known_B1HW - reference_BKHW
        )
    return torch.stack(
        Counts(
            overlap_K=(probability_BKHW * reference_BKHW).sum(PIXELS),
            probability_K=(probability_BKHW * known_B1HW).sum(PIXELS),
            reference_K=reference_BKHW.sum(PIXELS),
            log_probability_K=log_probability_BKHW.sum(PIXELS),
            pixels_K=known_B1HW.sum(PIXELS).expand(reference_BKHW.shape[1]),
        )
    )


def soft_dice_loss(counts: Counts, smooth: float = 0.0) -> Tensor:
    """1 − 2TP/(2TP+FP+FN) with soft counts, per class without background, averaged over the classes that the batch's reference has.

    Of the whole batch: slices lack structures so often that a Dice of each would mostly be undefined. Without any class the loss is 0.
    Uses 2TP+FP+FN = Σp + Σg. `smooth`: pixels, as `dice_smooth`.
    """
    size_K = counts.reference_K[1:]
    dice_K = (2 * counts.overlap_K[1:] + smooth) / (counts.probability_K[1:] + size_K + smooth).clamp_min(
        1e-8
    )
    counted_K = (size_K + smooth > 0).float()
    return ((1 - dice_K) * counted_K).sum() / counted_K.sum().clamp_min(1)


def _weights(counts: Counts, background: float, others: Sequence[float]) -> Tensor:
    """The weight of each class (K,): background, then those of the others, 1 where none are given."""
    weight_K = torch.ones_like(counts.reference_K)
    weight_K[0] = background
    if others:
        weight_K[1:] = weight_K.new_tensor(others)
    return weight_K


def weighted_cross_entropy(
    counts: Counts, background_weight: float, class_weights: Sequence[float] = ()
) -> Tensor:
    """Cross-entropy as a mean over pixels weighted by their class: background, and the others as given or 1. 0 without a pixel."""
    weight_K = _weights(counts, background_weight, class_weights)
    pixels = (weight_K * counts.reference_K).sum().clamp_min(1e-8)
    return -(weight_K * counts.log_probability_K).sum() / pixels


def binary_cross_entropy(counts: Counts, class_weights: Sequence[float] = ()) -> Tensor:
    """Of regions: a mean over pixels and channels, which are weighted as given. 0 without a pixel."""
    weight_K = _weights(counts, 1.0, class_weights)
    return -(weight_K * counts.log_probability_K).sum() / (weight_K * counts.pixels_K).sum().clamp_min(1e-8)


def _terms(counts: Counts, settings: LossSettings, *, regions: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy, soft Dice, and the weighted sum of both."""
    weights = [*settings.class_weights.values()]
    cross_entropy = (
        binary_cross_entropy(counts, weights)
        if regions
        else weighted_cross_entropy(counts, settings.background_weight, weights)
    )
    dice = soft_dice_loss(counts, settings.dice_smooth)
    return cross_entropy, dice, settings.cross_entropy_weight * cross_entropy + settings.dice_weight * dice


def training_loss(
    outputs: Tensor | Sequence[Tensor],
    target_BHW: Tensor,
    settings: LossSettings,
    total: Callable[[Tensor], Tensor] = lambda part: part,
    members_KN: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss to step on, and its terms for the log: `cross_entropy` and `dice` of the full output, `auxiliary` of all others, weighted.

    `outputs` are logits: one tensor (B, K, H, W) or, with deep supervision, several of that size or coarser, the full one first. Of a
    part of a batch: `total` adds what all parts have, and passes gradients; the loss is that of the whole batch. `members_KN`: of regions,
    which of the N classes belong to each of the K channels (`labels.members`).
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    weights = settings.output_weights(len(outputs))
    regions = members_KN is not None
    references = {
        size_HW: one_hot(at_size(target_BHW, size_HW), outputs[0].shape[1], members_KN)
        for size_HW in dict.fromkeys(logits_BKHW.shape[2:] for logits_BKHW in outputs)
    }
    counts_O5K = total(
        torch.stack(
            [
                soft_counts(logits_BKHW, references[logits_BKHW.shape[2:]], regions=regions)
                for logits_BKHW in outputs
            ]
        )
    )
    found = [_terms(Counts(*counts_5K), settings, regions=regions) for counts_5K in counts_O5K]
    cross_entropy, dice, _ = found[0]
    terms = {"cross_entropy": cross_entropy.detach(), "dice": dice.detach()}
    losses = [weight * both for (_, _, both), weight in zip(found, weights, strict=True)]
    if len(losses) > 1:
        terms["auxiliary"] = torch.stack(losses[1:]).sum().detach()
    return torch.stack(losses).sum(), terms


def volume_loss(
    probability_KZYX: NDArray[np.float32],
    reference_ZYX: NDArray[np.uint8],
    settings: LossSettings,
    members_KN: NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """`cross_entropy` and `dice` of a volume's probabilities, its slices as one batch, and `total`, the full output's loss of both.

    Probabilities below 1e-7 count as 1e-7. `members_KN`: as of `training_loss`.
    """
    regions = members_KN is not None
    members = np.eye(len(probability_KZYX), dtype=bool) if members_KN is None else members_KN
    known_ZYX = reference_ZYX != IGNORED_CLASS
    probability_KN, hot_KN = (
        probability_KZYX[:, known_ZYX].astype(np.float64),
        members[:, reference_ZYX[known_ZYX]],
    )
    logs_KN = np.where(hot_KN, probability_KN, 1 - probability_KN if regions else 1)
    counts = Counts(
        overlap_K=torch.from_numpy((probability_KN * hot_KN).sum(1)),
        probability_K=torch.from_numpy(probability_KN.sum(1)),
        reference_K=torch.from_numpy(hot_KN.sum(1).astype(np.float64)),
        log_probability_K=torch.from_numpy(np.log(np.maximum(logs_KN, 1e-7)).sum(1)),
        pixels_K=torch.full((len(members),), float(hot_KN.shape[1]), dtype=torch.float64),
    )
    cross_entropy, dice, both = map(float, _terms(counts, settings, regions=regions))
    total = settings.deep_supervision_weights[0] * both
    return {"total": total, "cross_entropy": cross_entropy, "dice": dice}
