"""The basal, mid and apical thirds of a short-axis stack (after Cerqueira et al., Circulation 2002: three thirds of the long axis).

The range of a stack is the slices from the first to the last in which the reference has LV cavity or myocardium. The base is the end whose
outer third has the larger area of all cardiac labels in the reference; headers are not asked, for many datasets (ACDC among them) do not
have the patient's directions. Slices beyond the range are `outside`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utseg.cardiac.structures import HEART, find_structures
from utseg.label_map import Labels, LabelValue, inside_any

REGIONS = ("basal", "mid", "apical", "outside")
OUTSIDE = REGIONS.index("outside")
FEWEST_SLICES = 3
STACK_RATIO = 2.0
"""A short-axis stack: slices at least this many times as far apart as pixels."""


def thirds(count: int) -> NDArray[np.intp]:
    """The third, 0 to 2, of each of `count` slices: of the i-th ⌊3·(i + ½) / count⌋."""
    return np.asarray(3 * (2 * np.arange(count) + 1) // (2 * count))


@dataclass(frozen=True)
class Regions:
    """Of each slice of a volume: the index of its region in REGIONS. And at which end the base is."""

    of_slice_Z: NDArray[np.intp]
    basal_first: bool

    def name(self, z: int) -> str:
        """The region of a slice."""
        return REGIONS[self.of_slice_Z[z]]

    @property
    def of_corners(self) -> NDArray[np.intp]:
        """Of each of the Z + 1 planes between (and beside) the slices."""
        before = np.r_[OUTSIDE, self.of_slice_Z]
        after = np.r_[self.of_slice_Z, OUTSIDE]
        more_basal = before if self.basal_first else after
        other = after if self.basal_first else before
        return np.asarray(np.where(more_basal == OUTSIDE, other, more_basal))


def short_axis_regions(
    reference_ZYX: NDArray[np.generic], spacing_zyx_mm: tuple[float, float, float], labels: Labels
) -> Regions | None:
    """The regions of a volume's slices. None where it is no short-axis stack: no LV among the labels or in the reference, fewer than three
    slices with it, slices hardly further apart than pixels, or two ends of which neither is larger."""
    structures = find_structures(labels)
    if not structures.left or spacing_zyx_mm[0] < STACK_RATIO * max(spacing_zyx_mm[1:]):
        return None
    ventricle_Z = _areas(reference_ZYX, [labels[name] for name in structures.left])
    present = np.flatnonzero(ventricle_Z)
    if not len(present) or present[-1] - present[0] + 1 < FEWEST_SLICES:
        return None
    first, count = int(present[0]), int(present[-1] - present[0]) + 1
    heart = [labels[name] for role in HEART if (name := structures.names.get(role))]
    area_n = _areas(reference_ZYX[first : first + count], heart)
    third = max(count // 3, 1)
    one_end, other_end = int(area_n[:third].sum()), int(area_n[-third:].sum())
    if one_end == other_end:
        return None
    basal_first = one_end > other_end
    order = np.arange(count) if basal_first else np.arange(count)[::-1]
    of_slice = np.full(len(reference_ZYX), OUTSIDE)
    of_slice[first : first + count] = thirds(count)[order]
    return Regions(of_slice, basal_first)


def _areas(label_ZYX: NDArray[np.generic], values: list[LabelValue]) -> NDArray[np.intp]:
    """Pixels of each slice that are of one of the structures."""
    return np.asarray(np.count_nonzero(inside_any(label_ZYX, values), axis=(1, 2)))
