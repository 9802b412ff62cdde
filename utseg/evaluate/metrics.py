"""Scores of one prediction against its reference, per label, in native millimetres: what each is, and the rule for empty masks.

P and R are the sets of voxels of a label in prediction and reference, ∂P and ∂R the elements of their surfaces (`surfaces.py`: voxels, each
counting 1, or corners weighted by area), d(p, ∂R) the distance in mm from an element p to the nearest of ∂R, w its weight. TP = |P∩R|.

| key | formula | source |
|---|---|---|
| dice | 2·TP / (|P| + |R|) | Dice 1945 |
| jaccard | TP / |P∪R| | Jaccard 1912 |
| precision | TP / |P| | |
| recall | TP / |R| | |
| hd_mm | max over both directions of d | Hausdorff 1914; Huttenlocher et al. 1993 |
| hd95_mm | `pooled`: 95th percentile of d over ∂P and ∂R together | medpy |
| | `directed`: the larger of the 95th percentiles over ∂P and over ∂R | Maier-Hein et al. 2024 |
| assd_mm | (Σ_∂P w·d + Σ_∂R w·d) / (Σ_∂P w + Σ_∂R w): pooled over all elements | Heimann et al., TMI 2009; Maier-Hein et al. 2024 |
| masd_mm | ½ (Σ_∂P w·d / Σ_∂P w + Σ_∂R w·d / Σ_∂R w): mean of the two directed means | Maier-Hein et al. 2024 |
| surface_dice | share of w, over ∂P and ∂R together, with d ≤ tolerance (normalised surface Dice) | Nikolov et al., JMIR 2021 |
| reference_ml, prediction_ml | voxels × volume of a voxel | |
| difference_ml | prediction_ml − reference_ml | |

A percentile of elements that all count the same is interpolated linearly (numpy's default, as medpy and MONAI); of weighted ones it is the
smallest distance below or at which 95 % of the weight lies (as surface-distance). Maier-Hein et al.: Metrics Reloaded, Nature Methods 2024.

Empty masks. Both empty (`both_empty`): all ratios and distances are undefined, NaN; nothing is a flattering 1. One empty
(`prediction_empty`, `reference_empty`): Dice, Jaccard and surface Dice are 0 as their formulas say, precision or recall is 0 where its
divisor is not and undefined where it is, and distances are undefined: no number of mm stands for a missed structure. Volumes are always
defined. Whoever averages leaves undefined values out and counts them (`summary.py`).

DEFINITIONS.md in this folder says which other tool computes which of these. Nothing is read or written here, or averaged over cases.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypedDict, cast, get_args

import numpy as np
from numpy.typing import NDArray

from utseg.errors import InputError, SettingError
from utseg.evaluate.surfaces import (
    SURFACE_KINDS,
    Directed,
    Floats,
    Mask,
    Spacing,
    SurfaceKind,
    distances_between,
    extract,
)

PercentileKind = Literal["pooled", "directed"]
Status = Literal["ok", "both_empty", "prediction_empty", "reference_empty"]
ROBUST_PERCENT = 95.0
TOLERANCE_MM = 2.0
"""Of the order of the mean distance between two observers' contours on cine MR, 1 to 2 mm by structure (Bai et al., JCMR 2018)."""
NAN = float("nan")


class Overlap(TypedDict):
    """What only counts voxels (or pixels of a slice)."""

    dice: float
    jaccard: float
    precision: float
    recall: float


class Distances(TypedDict):
    """What the surfaces' distances give."""

    surface_dice: float
    hd95_mm: float
    hd_mm: float
    assd_mm: float
    masd_mm: float


class Scores(Overlap, Distances):
    """Scores of one label in a volume. Undefined values are NaN; `status` says why (module docstring)."""

    reference_ml: float
    prediction_ml: float
    difference_ml: float
    status: Status


@dataclass(frozen=True)
class Definition:
    """Which surface, which percentile, which tolerance. The first two reproduce medpy by default; DEFINITIONS.md has the others.

    Raises SettingError for a value that is not one of those.
    """

    surface: SurfaceKind = "voxels"
    percentile: PercentileKind = "pooled"
    tolerance_mm: float = TOLERANCE_MM

    def __post_init__(self) -> None:
        kinds: tuple[tuple[str, str, tuple[str, ...]], ...] = (
            ("surface", self.surface, SURFACE_KINDS),
            ("percentile", self.percentile, get_args(PercentileKind)),
        )
        for setting, value, allowed in kinds:
            if value not in allowed:
                raise SettingError(f"{setting}={value!r}: expected one of {', '.join(allowed)}")
        if not 0 <= self.tolerance_mm < np.inf:
            raise SettingError(f"tolerance_mm={self.tolerance_mm}: expected a number of mm, 0 or more")


def evaluate_pair(
    prediction_ZYX: NDArray[np.generic],
    reference_ZYX: NDArray[np.generic],
    spacing_zyx_mm: tuple[float, float, float],
    labels: Mapping[str, int],
    *,
    surface: SurfaceKind = "voxels",
    percentile: PercentileKind = "pooled",
    tolerance_mm: float = TOLERANCE_MM,
) -> dict[str, Scores]:
    """Scores of the whole volume per label name; background (value 0) is left out.

    Both label maps are (Z, Y, X) integers of the same shape on the same grid, spacing is in mm. surface, percentile, tolerance_mm: see
    `Definition`. Raises InputError where the shapes differ or the spacing is not positive, SettingError for an unknown definition.
    """
    definition = Definition(surface, percentile, tolerance_mm)
    pairs = label_pairs(prediction_ZYX, reference_ZYX, spacing_zyx_mm, labels, definition)
    return {name: pair.scores() for name, pair in pairs.items()}


def label_pairs(
    prediction_ZYX: NDArray[np.generic],
    reference_ZYX: NDArray[np.generic],
    spacing_zyx_mm: tuple[float, float, float],
    labels: Mapping[str, int],
    definition: Definition,
) -> dict[str, "LabelPair"]:
    """The two masks of each label but background, cropped to where it is. Raises InputError as `evaluate_pair`."""
    if prediction_ZYX.shape != reference_ZYX.shape or reference_ZYX.ndim != 3:
        raise InputError(
            f"prediction and reference must be label maps (Z, Y, X) of one shape; found {prediction_ZYX.shape} and {reference_ZYX.shape}"
        )
    spacing = cast(Spacing, tuple(float(step) for step in spacing_zyx_mm))
    if len(spacing) != 3 or not all(0 < step < np.inf for step in spacing):
        raise InputError(f"spacing must be three positive numbers of mm (Z, Y, X); found {spacing_zyx_mm}")
    whole = bounding_box((prediction_ZYX != 0) | (reference_ZYX != 0))
    predicted, referenced = prediction_ZYX[whole], reference_ZYX[whole]
    pairs = {}
    for name, value in labels.items():
        if value != 0:
            prediction, reference = predicted == value, referenced == value
            box = bounding_box(prediction | reference)
            first = whole[0].start + box[0].start
            pairs[name] = LabelPair(prediction[box], reference[box], first, spacing, definition)
    return pairs


@dataclass(frozen=True)
class LabelPair:
    """The masks of one label, cropped to their common bounding box; `first_slice` is that of the crop in the volume.

    What is computed once and used by all scores (volume, regions, slices) is kept.
    """

    prediction_ZYX: Mask
    reference_ZYX: Mask
    first_slice: int
    spacing_zyx_mm: Spacing
    definition: Definition

    @cached_property
    def counts(self) -> NDArray[np.intp]:
        """Voxels by slice of prediction, reference, and both: (3, Z)."""
        masks = (self.prediction_ZYX, self.reference_ZYX, self.prediction_ZYX & self.reference_ZYX)
        return np.array([np.count_nonzero(mask, axis=(1, 2)) for mask in masks])

    @cached_property
    def directed(self) -> tuple[Directed, Directed]:
        """Surface distances in the volume, from the prediction and from the reference. Neither mask is empty."""
        return self._directed(planar=False)

    @cached_property
    def directed_in_slices(self) -> tuple[Directed, Directed]:
        """Distances between the outlines within each slice that has both. Neither mask is empty."""
        return self._directed(planar=True)

    def _directed(self, planar: bool) -> tuple[Directed, Directed]:
        prediction, reference = (
            extract(mask, self.spacing_zyx_mm, self.definition.surface, planar=planar)
            for mask in (self.prediction_ZYX, self.reference_ZYX)
        )
        return distances_between(prediction, reference, self.spacing_zyx_mm, planar=planar)

    def scores(self) -> Scores:
        """Those of the whole volume."""
        predicted, referenced, shared = (int(count) for count in self.counts.sum(axis=1))
        return volume_scores(
            predicted,
            referenced,
            shared,
            self.spacing_zyx_mm,
            self.directed if predicted and referenced else None,
            self.definition,
        )


def volume_scores(
    predicted: int,
    referenced: int,
    shared: int,
    spacing_zyx_mm: Spacing,
    directed: tuple[Directed, Directed] | None,
    definition: Definition,
) -> Scores:
    """From counts of voxels and the distances in both directions (None where one of the masks is empty)."""
    voxel_ml = float(np.prod(spacing_zyx_mm)) / 1000
    return {
        **overlap(predicted, referenced, shared),
        **distance_scores(predicted, referenced, directed, definition),
        "reference_ml": referenced * voxel_ml,
        "prediction_ml": predicted * voxel_ml,
        "difference_ml": (predicted - referenced) * voxel_ml,
        "status": status_of(predicted, referenced),
    }


def status_of(predicted: int, referenced: int) -> Status:
    """Which of the two masks is empty, by their counts of voxels."""
    if predicted:
        return "ok" if referenced else "reference_empty"
    return "prediction_empty" if referenced else "both_empty"


def overlap(predicted: int, referenced: int, shared: int) -> Overlap:
    """Dice, Jaccard, precision and recall from counts of voxels. NaN where the divisor is 0."""
    return {
        "dice": _ratio(2 * shared, predicted + referenced),
        "jaccard": _ratio(shared, predicted + referenced - shared),
        "precision": _ratio(shared, predicted),
        "recall": _ratio(shared, referenced),
    }


def distance_scores(
    predicted: int, referenced: int, directed: tuple[Directed, Directed] | None, definition: Definition
) -> Distances:
    """Surface Dice and distances in mm. Without distances (a mask is empty) they are NaN, but for a surface Dice of 0 where one is not."""
    if directed is None:
        missed = 0.0 if predicted or referenced else NAN
        return {"surface_dice": missed, "hd95_mm": NAN, "hd_mm": NAN, "assd_mm": NAN, "masd_mm": NAN}
    forth, back = directed
    sums, totals, near = [], [], []
    for side in directed:
        within = side.distances_N <= definition.tolerance_mm
        if side.weights_N is None:
            sums.append(float(side.distances_N.sum()))
            totals.append(float(len(side.distances_N)))
            near.append(float(np.count_nonzero(within)))
        else:
            sums.append(float(side.distances_N @ side.weights_N))
            totals.append(float(side.weights_N.sum()))
            near.append(float(side.weights_N[within].sum()))
    if definition.percentile == "directed":
        hd95 = max(weighted_percentile(side.distances_N, side.weights_N) for side in directed)
    else:
        pooled = np.concatenate([forth.distances_N, back.distances_N])
        weights = (
            None
            if forth.weights_N is None or back.weights_N is None
            else np.concatenate([forth.weights_N, back.weights_N])
        )
        hd95 = weighted_percentile(pooled, weights)
    return {
        "surface_dice": sum(near) / sum(totals),
        "hd95_mm": hd95,
        "hd_mm": float(max(forth.distances_N.max(), back.distances_N.max())),
        "assd_mm": sum(sums) / sum(totals),
        "masd_mm": (sums[0] / totals[0] + sums[1] / totals[1]) / 2,
    }


def weighted_percentile(values_N: Floats, weights_N: Floats | None, percent: float = ROBUST_PERCENT) -> float:
    """A percentile of values, not none. Without weights interpolated linearly; with weights the smallest value that covers the share."""
    if weights_N is None:
        rank = (len(values_N) - 1) * percent / 100
        low = int(rank)
        high = min(low + 1, len(values_N) - 1)
        ordered = np.partition(values_N, (low, high))
        return float(ordered[low] + (ordered[high] - ordered[low]) * (rank - low))
    order = np.argsort(values_N)
    covered = np.cumsum(weights_N[order]) / weights_N.sum()
    at = int(np.searchsorted(covered, percent / 100))
    return float(values_N[order[min(at, len(values_N) - 1)]])


def bounding_box(mask_ZYX: Mask) -> tuple[slice, slice, slice]:
    """The smallest box around a mask; empty slices from 0 where there is nothing."""
    slices = np.flatnonzero(mask_ZYX.any(axis=(1, 2)))
    if not len(slices):
        return slice(0, 0), slice(0, 0), slice(0, 0)
    z = slice(int(slices[0]), int(slices[-1]) + 1)
    flat_YX = np.asarray(mask_ZYX[z].any(axis=0))
    rows, columns = np.flatnonzero(flat_YX.any(axis=1)), np.flatnonzero(flat_YX.any(axis=0))
    return z, slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else NAN
