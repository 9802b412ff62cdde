"""Intensities of labelled voxels: a case's in few numbers, and the percentiles, mean and deviation of many cases' voxels together.

The voxels of a case are sorted and cut into groups, small ones at either end, where the percentiles lie that are asked for. Nothing is
drawn: the same cases give the same numbers, in any order.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from utseg.fingerprint.model import LabelledIntensities, rounded

SMALLEST_GROUP = 1e-4  # of the voxels
GROUPS_A_SIDE = 128
# From either end of the sorted voxels to the middle, each boundary 7 % further in than the one before.
_TAIL = np.geomspace(SMALLEST_GROUP, 0.5, GROUPS_A_SIDE)
BOUNDARIES = np.concatenate([[0.0], _TAIL, 1 - _TAIL[-2::-1], [1.0]])


def group_sizes(voxels: int) -> NDArray[np.int64]:
    """How many voxels each group holds, the darkest first; no group is empty, and there are at most 256."""
    return np.diff(np.unique(np.rint(BOUNDARIES * voxels).astype(np.int64)))


def labelled_intensities(sorted_V: NDArray[np.float32]) -> LabelledIntensities:
    """Of one case's labelled voxels, at least one, in ascending order."""
    values = sorted_V.astype(np.float64)
    sizes = group_sizes(values.size)
    sums = np.add.reduceat(values, np.cumsum(sizes) - sizes)
    return LabelledIntensities(
        voxels=values.size,
        mean=rounded(values.mean()),
        sd=rounded(values.std()),
        means=tuple(rounded(value) for value in sums / sizes),
    )


def pooled_percentiles(cases: Sequence[LabelledIntensities], percentiles: Sequence[float]) -> list[float]:
    """Percentiles of the voxels of all cases together, at least one; exact, as numpy's, where groups hold one voxel each."""
    values = np.concatenate([case.means for case in cases])
    sizes = np.concatenate([group_sizes(case.voxels) for case in cases])
    order = np.lexsort((sizes, values))  # whatever the order of the cases
    sizes = sizes[order]
    ranks = np.cumsum(sizes) - (sizes + 1) / 2  # of the middle of each group, counted from 0
    wanted = np.array(percentiles) / 100 * (sizes.sum() - 1)
    return [rounded(value) for value in np.interp(wanted, ranks, values[order])]


def pooled_mean_sd(cases: Sequence[LabelledIntensities]) -> tuple[float, float]:
    """Mean and standard deviation of the voxels of all cases together, at least one."""
    means, sds = (np.array([getattr(case, key) for case in cases]) for key in ("mean", "sd"))
    weights = np.array([case.voxels for case in cases])
    mean = np.average(means, weights=weights)
    return rounded(mean), rounded(np.sqrt(np.average(sds**2 + (means - mean) ** 2, weights=weights)))
