"""Estimate a mask's Dice, the agreement of models, and the entropy of each voxel from predicted probabilities.

Members are whatever predicted the same voxels: each network, and each view of it (mirrored, turned). p_i is member i's probability of a
label at a voxel, M their number, p̄ their mean, m the mask (1 where it has the label), Σ runs over voxels.

| what | formula | source |
|---|---|---|
| expected Dice | 2·Σ p̄·m / (Σ p̄ + Σ m) | soft Dice confidence: Borges et al. 2024, arXiv 2402.10665 |
| Dice between members | Σ_{i<j} 2·Σ p_i·p_j / Σ_{i<j} (Σ p_i² + Σ p_j²) | mean pairwise Dice: Roy et al., MICCAI 2018 |
| entropy of a voxel | −Σ_k p̄_k·log p̄_k / log K, from 0 to 1 | Shannon 1948 |

Dice between members is the soft Dice of Milletari et al. (3DV 2016), its numerators and its denominators each summed over all pairs: of
masks it is the pairwise Dice weighted by size, of equal members it is 1. Since Σ_{i<j} p_i·p_j = ((Σ_i p_i)² − Σ_i p_i²) / 2 at each
voxel, two running sums do, and no member is kept.

Axes: K classes, Z slices, Y rows, X columns. Nothing is read, written or flagged here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Sums = NDArray[np.float64]
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Agreement:
    """Sums over a volume, per class, of M members' probabilities: Σ Σ_i p_i², and Σ Σ_{i<j} p_i·p_j; each voxel counts alike."""

    members: int
    squares_K: Sums
    products_K: Sums

    def dice(self) -> Sums:
        """Dice between members of each class, (K,). NaN for one member, and where a class has no probability anywhere."""
        divisor_K = (self.members - 1) * self.squares_K
        dice_K = np.full(len(divisor_K), np.nan)
        np.divide(2 * self.products_K, divisor_K, out=dice_K, where=divisor_K > 0)
        return dice_K

    def scaled(self, factor: float) -> "Agreement":
        """The same sums where each voxel counts `factor`."""
        return Agreement(self.members, self.squares_K * factor, self.products_K * factor)


class RunningAgreement:
    """That of members which come one after the other and are not kept: (K, Z, Y, X) each, of one size."""

    def __init__(self) -> None:
        self._members = 0
        self._before_KZYX: Floats | Sums | None = None
        self._squares_K: Sums = np.zeros(0)
        self._products_K: Sums = np.zeros(0)

    def add(self, probabilities_KZYX: Floats) -> None:
        """Takes in the next member."""
        before_KZYX = self._before_KZYX
        squares_K = np.array([np.vdot(p, p) for p in map(np.float64, probabilities_KZYX)])
        if before_KZYX is None:
            self._squares_K, self._products_K = squares_K, np.zeros(len(squares_K))
            self._before_KZYX = probabilities_KZYX
        else:
            pairs = zip(before_KZYX, probabilities_KZYX, strict=True)
            self._squares_K += squares_K
            self._products_K += [np.vdot(before.astype(np.float64), p) for before, p in pairs]
            self._before_KZYX = before_KZYX + probabilities_KZYX.astype(np.float64)
        self._members += 1

    def result(self) -> Agreement:
        """The agreement of all members so far, voxel by voxel of one measure."""
        return Agreement(self._members, self._squares_K, self._products_K)


def agreement_between(agreements: Sequence[Agreement], means_KZYX: Sequence[Floats]) -> Agreement:
    """That of all members of several groups, whose own is known and measured alike.

    means_KZYX: of each group the mean of its members' probabilities, on a grid that all share and whose voxel counts 1. Pairs of members
    from two groups follow from these: Σ_{i∈g, j∈h} p_i·p_j = (Σ_{i∈g} p_i)·(Σ_{j∈h} p_j).
    """
    members = sum(agreement.members for agreement in agreements)
    squares_K: Sums = np.sum([agreement.squares_K for agreement in agreements], axis=0)
    products_K: Sums = np.sum([agreement.products_K for agreement in agreements], axis=0)
    for (one, p_KZYX), (other, q_KZYX) in combinations(zip(agreements, means_KZYX, strict=True), 2):
        shared_K = [np.vdot(p.astype(np.float64), q) for p, q in zip(p_KZYX, q_KZYX, strict=True)]
        products_K += one.members * other.members * np.array(shared_K)
    return Agreement(members, squares_K, products_K)


def expected_dice(
    probabilities_KZYX: Floats, mask_ZYX: Labels, members_KN: NDArray[np.bool_] | None = None
) -> Sums:
    """The Dice of each channel to expect if the probabilities are right, (K,), of a mask of their size. NaN where the mask lacks it.

    `members_KN`: of regions, which of the mask's N classes belong to each channel.

    It is what the mask's Dice with masks drawn from the probabilities comes to, but for terms that vanish in large structures (Borges et
    al.). Networks trained with Dice loss are too sure of themselves: it ranks cases better than it predicts their Dice.
    """
    dice_K = np.full(len(probabilities_KZYX), np.nan)
    for k, own_ZYX in enumerate(probabilities_KZYX):
        inside_ZYX = mask_ZYX == k if members_KN is None else members_KN[k][mask_ZYX]
        count = int(np.count_nonzero(inside_ZYX))
        if count:
            shared = float(own_ZYX[inside_ZYX].sum(dtype=np.float64))
            dice_K[k] = 2 * shared / (float(own_ZYX.sum(dtype=np.float64)) + count)
    return dice_K


def entropy(probabilities_KZYX: Floats, *, regions: bool = False) -> Floats:
    """Entropy of each voxel's class probabilities as a share of the largest possible, log K: (Z, Y, X) float32 from 0 (sure) to 1.

    Of regions, which are probable or not each for itself, the mean of their own entropies.
    """
    if regions:
        both = (np.stack([own_ZYX, 1 - own_ZYX]) for own_ZYX in probabilities_KZYX[1:])
        return np.asarray(np.mean([entropy(each) for each in both], axis=0, dtype=np.float32))
    classes, *size_zyx = probabilities_KZYX.shape
    result_ZYX = np.zeros(size_zyx, np.float32)
    if classes < 2:
        return result_ZYX
    for z in range(size_zyx[0]):
        p_KYX = np.maximum(probabilities_KZYX[:, z], np.finfo(np.float32).tiny)
        result_ZYX[z] = -(p_KYX * np.log(p_KYX)).sum(0) / np.log(classes)
    return np.clip(result_ZYX, 0, 1, out=result_ZYX)
