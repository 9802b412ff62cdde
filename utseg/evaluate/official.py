"""The official UTNet's own way of scoring, under its own name, so that tables made with it can be compared. Not for anything else.

What its code does (Gao, Zhou, Metaxas, MICCAI 2021) stands in DEFINITIONS.md: labels on a grid of 1.2 × 1.2 mm in the plane, cropped to the
middle 256 × 256; Dice = 2·TP / (|P| + |R| + 10⁻⁷); ASD the mean of the two directed, area-weighted means; the maximum Hausdorff distance.
A distance that is undefined or larger counts as 500 mm. Scores are averaged over cases.
"""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from utseg.evaluate.metrics import Definition, label_pairs
from utseg.label_map import Labels

GRID_MM = 1.2
CROP = 256
MARGIN = 10
WORST_MM = 500.0
SMALL = 1e-7
OFFICIAL_METRICS = ("official_dice", "official_asd_mm", "official_hd_mm")


class OfficialScores(TypedDict):
    """Of one label. Never undefined: 0 and 500 mm stand for empty masks."""

    official_dice: float
    official_asd_mm: float
    official_hd_mm: float


def official_utnet_scores(
    prediction_ZYX: NDArray[np.generic],
    reference_ZYX: NDArray[np.generic],
    spacing_zyx_mm: tuple[float, float, float],
    labels: Labels,
) -> dict[str, OfficialScores]:
    """The official scores per label name but background, from label maps (Z, Y, X) on their native grid. Errors as of `evaluate_pair`."""
    spacing = (float(spacing_zyx_mm[0]), GRID_MM, GRID_MM)
    grid = official_grid(prediction_ZYX, spacing_zyx_mm), official_grid(reference_ZYX, spacing_zyx_mm)
    pairs = label_pairs(*grid, spacing, labels, Definition("area", "directed"))
    scores: dict[str, OfficialScores] = {}
    for name, pair in pairs.items():
        predicted, referenced, shared = (int(count) for count in pair.counts.sum(axis=1))
        found = pair.scores()
        scores[name] = {
            "official_dice": 2 * shared / (predicted + referenced + SMALL),
            "official_asd_mm": _worst(found["masd_mm"]),
            "official_hd_mm": _worst(found["hd_mm"]),
        }
    return scores


def official_grid(
    label_ZYX: NDArray[np.generic], spacing_zyx_mm: tuple[float, float, float]
) -> NDArray[np.generic]:
    """The middle 256 × 256 pixels of 1.2 mm of each slice: (Z, 256, 256)."""
    rows, columns = (
        _nearest(size, step) for size, step in zip(label_ZYX.shape[1:], spacing_zyx_mm[1:], strict=True)
    )
    resampled = np.where(
        (rows >= 0)[:, None] & (columns >= 0),
        label_ZYX[:, rows[:, None], columns],
        np.zeros(1, label_ZYX.dtype),
    )
    for axis in (1, 2):
        size = resampled.shape[axis]
        if size < CROP:
            beside = [(0, 0)] * 3
            beside[axis] = ((CROP + MARGIN - size) // 2,) * 2
            resampled = np.pad(resampled, beside)
    top, left = ((size - CROP) // 2 for size in resampled.shape[1:])
    return resampled[:, top : top + CROP, left : left + CROP]


def _nearest(size: int, step_mm: float) -> NDArray[np.intp]:
    """Of each pixel of the grid along an axis the pixel that it is taken from; −1 where it lies beyond the last pixel's edge."""
    count = round(size * step_mm / GRID_MM)
    source = np.floor(np.arange(count) * (GRID_MM / step_mm) + 0.5).astype(np.intp)
    return np.where(source < size, source, -1)


def official_means(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over cases per label name, as its tables have them: 0 and 500 mm are averaged in."""
    names = list(dict.fromkeys(str(row["label_name"]) for row in rows))
    means: dict[str, Any] = {"cases": len({row["case"] for row in rows}), "labels": {}}
    for name in names:
        of_label = [row for row in rows if row["label_name"] == name]
        means["labels"][name] = {
            metric: float(np.mean([row[metric] for row in of_label])) for metric in OFFICIAL_METRICS
        }
        means["labels"][name]["worst_distances"] = sum(row["official_hd_mm"] >= WORST_MM for row in of_label)
    return means


def _worst(distance_mm: float) -> float:
    return WORST_MM if np.isnan(distance_mm) else min(distance_mm, WORST_MM)
