"""The registry of metrics (`METRICS`), and scores of one prediction against its reference, per label, in native millimetres.

A new metric is an entry of `METRICS` and its function: files, summaries, tests, tables and reports take theirs from there. DEFINITIONS.md
in this folder has the formulas with their sources, and which other tool computes which of them.

Where both masks are empty (`both_empty`) all ratios and distances are undefined, NaN. Where one is (`prediction_empty`, `reference_empty`)
Dice, Jaccard and surface Dice are 0, and distances undefined. Whoever averages leaves undefined values out and counts them (`summary.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from operator import index
from typing import Any, Literal, cast, get_args

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
from utseg.label_map import IGNORE, Labels, LabelValue, inside, structures

PercentileKind = Literal["pooled", "directed"]
Scope = Literal["volume", "region", "slice"]
Use = Literal["interval", "study", "comparison"]
Status = Literal["ok", "both_empty", "prediction_empty", "reference_empty"]
ROBUST_PERCENT = 95.0
TOLERANCE_MM = 2.0
"""Of the order of the mean distance between two observers' contours on cine MR, 1 to 2 mm by structure (Bai et al., JCMR 2018)."""
NAN = float("nan")
WORST_MM = 1e6
"""What a missed structure counts as where distances are ranked: longer than any. It is in no mean."""
EMPTIES = {"missed": "prediction_empty", "extra": "reference_empty", "neither": "both_empty"}
"""In words for tables, and the status: structures that only the reference has, only the prediction, or none of both."""
Row = dict[str, Any]
LabelScores = dict[str, Any]
"""By key of the registry; undefined values are NaN, `status` says why."""


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


@dataclass(frozen=True)
class Measured:
    """What the scores of two masks are made of: voxels of each and of both, and distances both ways (none where a mask is empty)."""

    predicted: int
    referenced: int
    shared: int
    spacing_zyx_mm: Spacing
    directed: tuple[Directed, ...]
    definition: Definition

    @cached_property
    def totals(self) -> list[tuple[float, float, float]]:
        """For each direction the sums of weights, of weighted distances, and of weights within the tolerance."""
        found = []
        for side in self.directed:
            within = side.distances_N <= self.definition.tolerance_mm
            if side.weights_N is None:
                sums = len(side.distances_N), side.distances_N.sum(), np.count_nonzero(within)
            else:
                sums = side.weights_N.sum(), side.distances_N @ side.weights_N, side.weights_N[within].sum()
            found.append((float(sums[0]), float(sums[1]), float(sums[2])))
        return found

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing_zyx_mm)) / 1000

    @property
    def pixel_mm2(self) -> float:
        """Area of a pixel of a slice."""
        return self.spacing_zyx_mm[1] * self.spacing_zyx_mm[2]


def dice(predicted: int, referenced: int, shared: int) -> float:
    """From counts of voxels. NaN where both masks are empty."""
    return _ratio(2 * shared, predicted + referenced)


def _surface_dice(m: Measured) -> float:
    (all_forth, _, near_forth), (all_back, _, near_back) = m.totals
    return (near_forth + near_back) / (all_forth + all_back)


def _hd95(m: Measured) -> float:
    if m.definition.percentile == "directed":
        return max(weighted_percentile(side.distances_N, side.weights_N) for side in m.directed)
    weights = [side.weights_N for side in m.directed if side.weights_N is not None]
    pooled = np.concatenate([side.distances_N for side in m.directed])
    return weighted_percentile(pooled, np.concatenate(weights) if weights else None)


def _assd(m: Measured) -> float:
    (all_forth, sum_forth, _), (all_back, sum_back, _) = m.totals
    return (sum_forth + sum_back) / (all_forth + all_back)


def _masd(m: Measured) -> float:
    (all_forth, sum_forth, _), (all_back, sum_back, _) = m.totals
    return (sum_forth / all_forth + sum_back / all_back) / 2


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else NAN


def _with(rows: Sequence[Row], status: str) -> list[Row]:
    return [row for row in rows if row["status"] == status]


@dataclass(frozen=True)
class Metric:
    """A metric: its column, its name and unit in tables, and how it is computed.

    of_masks: from the masks of a label, in a volume, a region or a slice (`scopes`); of_slices: of a case, from the rows of its slices.
    better: 1 where more is better, −1 where less is, 0 where neither: it is not compared. Where less is better, tests are of ranks.
    missed: the value where one mask is empty, for what needs both and is then undefined where both are; None: the formula says.
    summary: "statistics" over subjects, the "sum" over cases, or none. least_range: below it means differ by noise.
    uses: with an "interval" wherever there is room for few, in reports of a "study", in a "comparison" of models; the lowest rank first.
    """

    key: str
    name: str
    of_masks: Callable[[Measured], float] | None = None
    of_slices: Callable[[Sequence[Row]], float] | None = None
    unit: str = ""
    digits: int = 3
    better: Literal[1, 0, -1] = 1
    missed: float | None = None
    summary: Literal["statistics", "sum", ""] = "statistics"
    scopes: tuple[Scope, ...] = ("volume", "region", "slice")
    least_range: float = 0.05
    uses: tuple[Use, ...] = ()
    rank: int = 0

    def score(self, measured: Measured) -> float:
        """Its value for the masks of a label."""
        assert self.of_masks is not None
        if self.missed is None or measured.directed:
            return self.of_masks(measured)
        return self.missed if measured.predicted or measured.referenced else NAN

    @property
    def head(self) -> str:
        """Name and unit, for a column of a table."""
        return f"{self.name} {self.unit}".strip()

    @property
    def title(self) -> str:
        """The head with a capital letter."""
        return self.head[:1].upper() + self.head[1:]

    @property
    def ends(self) -> tuple[float, float]:
        """What a wrong structure counts as in a test, and one that is rightly left out."""
        return (0.0, 1.0) if self.better > 0 else (WORST_MM, 0.0)

    @property
    def ranked(self) -> bool:
        """Whether tests are of ranks: a distance to a missed structure has no length."""
        return self.better < 0


_in_mm = partial(Metric, unit="mm", digits=2, better=-1, missed=NAN, least_range=1.0)
_in_ml = partial(Metric, unit="ml", digits=2, better=0, scopes=("volume", "region"))
_in_mm2 = partial(Metric, unit="mm²", digits=2, better=0, summary="", scopes=("slice",))
_count = partial(Metric, digits=0, better=0, summary="sum")
METRICS = (
    Metric(
        "dice",
        "Dice",
        lambda m: dice(m.predicted, m.referenced, m.shared),
        uses=("interval", "study", "comparison"),
        rank=1,
    ),
    Metric("jaccard", "Jaccard", lambda m: _ratio(m.shared, m.predicted + m.referenced - m.shared)),
    Metric("precision", "precision", lambda m: _ratio(m.shared, m.predicted)),
    Metric("recall", "recall", lambda m: _ratio(m.shared, m.referenced)),
    Metric("surface_dice", "surface Dice", _surface_dice, missed=0.0, uses=("study", "comparison"), rank=4),
    _in_mm("hd95_mm", "HD95", _hd95, uses=("interval", "study", "comparison"), rank=2),
    _in_mm("hd_mm", "HD", lambda m: float(max(side.distances_N.max() for side in m.directed))),
    _in_mm("assd_mm", "ASSD", _assd, uses=("interval", "study"), rank=3),
    _in_mm("masd_mm", "MASD", _masd),
    Metric("slice_dice", "slice Dice", of_slices=lambda rows: _mean([row["dice"] for row in rows])),
    _in_mm(
        "slice_hd95_mm",
        "slice HD95",
        of_slices=lambda rows: _mean([row["hd95_mm"] for row in _with(rows, "ok")]),
    ),
    _count("slices_both", "slices of both", of_slices=lambda rows: len(_with(rows, "ok"))),
    _count("slices_missed", "slices missed", of_slices=lambda rows: len(_with(rows, EMPTIES["missed"]))),
    _count("slices_extra", "slices extra", of_slices=lambda rows: len(_with(rows, EMPTIES["extra"]))),
    _in_ml("reference_ml", "reference", lambda m: m.referenced * m.voxel_ml, summary=""),
    _in_ml("prediction_ml", "prediction", lambda m: m.predicted * m.voxel_ml, summary=""),
    _in_ml("difference_ml", "volume difference", lambda m: (m.predicted - m.referenced) * m.voxel_ml),
    _in_mm2("reference_mm2", "reference", lambda m: m.referenced * m.pixel_mm2),
    _in_mm2("prediction_mm2", "prediction", lambda m: m.predicted * m.pixel_mm2),
)
METRIC = {metric.key: metric for metric in METRICS}


def metrics_for(use: Use) -> tuple[str, ...]:
    """The keys of the metrics of a use, the most telling first."""
    return tuple(metric.key for metric in sorted(METRICS, key=lambda one: one.rank) if use in metric.uses)


def evaluate_pair(
    prediction_ZYX: NDArray[np.generic],
    reference_ZYX: NDArray[np.generic],
    spacing_zyx_mm: tuple[float, float, float],
    labels: Mapping[str, LabelValue | Sequence[int]] | Sequence[int],
    *,
    surface: SurfaceKind = "voxels",
    percentile: PercentileKind = "pooled",
    tolerance_mm: float = TOLERANCE_MM,
) -> dict[str, LabelScores]:
    """Scores of the whole volume per label name; background (value 0) is left out, as are voxels that the reference labels `ignore`.

    labels: names to values, or to the values of a region; or a list of values, which are then their own names.
    Both label maps are (Z, Y, X) integers of the same shape on the same grid, spacing is in mm. surface, percentile, tolerance_mm: see
    `Definition`. Raises InputError where the shapes differ, a value is no whole number, or the spacing is not positive, SettingError for
    an unknown definition.
    """
    definition = Definition(surface, percentile, tolerance_mm)
    for side, values_ZYX in (("prediction", prediction_ZYX), ("reference", reference_ZYX)):
        if values_ZYX.dtype.kind == "f" and not np.array_equal(values_ZYX, np.rint(values_ZYX)):
            raise InputError(
                f"{side}: has values that are no whole numbers, as of probabilities, or of labels that were interpolated; expected a "
                "label map"
            )
    named = labels if isinstance(labels, Mapping) else {str(value): value for value in labels}
    try:
        found = {
            name: tuple(map(index, value)) if isinstance(value, Sequence) else index(value)
            for name, value in named.items()
        }
    except TypeError:
        raise InputError(
            f"labels: expected names with whole numbers, or a list of whole numbers; found {labels}"
        ) from None
    pairs = label_pairs(prediction_ZYX, reference_ZYX, spacing_zyx_mm, found, definition)
    return {name: pair.scores() for name, pair in pairs.items()}


def label_pairs(
    prediction_ZYX: NDArray[np.generic],
    reference_ZYX: NDArray[np.generic],
    spacing_zyx_mm: tuple[float, float, float],
    labels: Labels,
    definition: Definition,
) -> dict[str, "LabelPair"]:
    """The two masks of each structure, cropped to where it is; voxels that the reference ignores are in none. Errors as `evaluate_pair`."""
    if prediction_ZYX.shape != reference_ZYX.shape or reference_ZYX.ndim != 3:
        raise InputError(
            f"prediction and reference must be label maps (Z, Y, X) of one shape; found {prediction_ZYX.shape} and {reference_ZYX.shape}"
        )
    spacing = cast(Spacing, tuple(float(step) for step in spacing_zyx_mm))
    if len(spacing) != 3 or not all(0 < step < np.inf for step in spacing):
        raise InputError(f"spacing must be three positive numbers of mm (Z, Y, X); found {spacing_zyx_mm}")
    if IGNORE in labels:
        prediction_ZYX = np.where(inside(reference_ZYX, labels[IGNORE]), 0, prediction_ZYX)
    whole = bounding_box((prediction_ZYX != 0) | (reference_ZYX != 0))
    predicted, referenced = prediction_ZYX[whole], reference_ZYX[whole]
    pairs = {}
    for name, value in structures(labels).items():
        prediction, reference = inside(predicted, value), inside(referenced, value)
        box = bounding_box(prediction | reference)
        first = whole[0].start + box[0].start
        pairs[name] = LabelPair(prediction[box], reference[box], first, spacing, definition)
    return pairs


@dataclass(frozen=True)
class LabelPair:
    """The masks of one label, cropped to their common bounding box; `first_slice` is that of the crop in the volume.

    What all scores (volume, regions, slices) use is computed once.
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

    def scores(self) -> LabelScores:
        """Those of the whole volume."""
        counts = self.counts.sum(axis=1).tolist()
        return self.score(counts, self.directed if counts[0] and counts[1] else ())

    def score(
        self, counts: Sequence[int], directed: tuple[Directed, ...], scope: Scope = "volume"
    ) -> LabelScores:
        """From counts of voxels (prediction, reference, both) and distances in both directions, none where a mask is empty."""
        predicted, referenced, shared = counts
        measured = Measured(predicted, referenced, shared, self.spacing_zyx_mm, directed, self.definition)
        found: LabelScores = {
            metric.key: metric.score(measured)
            for metric in METRICS
            if metric.of_masks and scope in metric.scopes
        }
        return found | {"status": status_of(predicted, referenced)}


def status_of(predicted: int, referenced: int) -> Status:
    """Which of the two masks is empty, by their counts of voxels."""
    if predicted:
        return "ok" if referenced else "reference_empty"
    return "prediction_empty" if referenced else "both_empty"


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
