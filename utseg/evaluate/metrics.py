"""Dice, HD95, ASSD and volumes of one prediction against its reference, per label, in native millimetres.

Surfaces are voxel-based and not weighted by area: a surface voxel belongs to the mask and has at least one of its six face neighbours, or
the outside of the image, out of the mask. Distances run between voxel centres. HD95 is the 95th percentile (linear interpolation) of the
pooled distances of both directions; ASSD is the mean of the two directed means. These are medpy's definitions (`hd95`, `assd` with
connectivity 1) and agree with it to rounding; MONAI takes the larger of two directed percentiles, surface-distance weights by area.

Nothing is read or written here, and nothing is averaged over cases.
"""

from collections.abc import Mapping
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from utseg.errors import InputError

Mask = NDArray[np.bool_]


class Scores(TypedDict):
    """Scores of one label. Undefined values are NaN; `status` says why.

    status: "ok", "both_empty" (Dice and distances undefined), "prediction_empty" or "reference_empty" (Dice 0, distances undefined).
    """

    dice: float
    hd95_mm: float
    assd_mm: float
    reference_ml: float
    prediction_ml: float
    status: str


def evaluate_pair(
    prediction_ZYX: NDArray[np.generic],
    reference_ZYX: NDArray[np.generic],
    spacing_zyx_mm: tuple[float, float, float],
    labels: Mapping[str, int],
) -> dict[str, Scores]:
    """Scores per label name; background (value 0) is left out.

    Both label maps are (Z, Y, X) integers of the same shape on the same grid, spacing is in mm. Raises InputError where the shapes differ.
    Dice = 2·|P∩R| / (|P|+|R|) (Dice 1945). A label that both lack has no Dice (NaN) rather than a flattering 1.
    """
    if prediction_ZYX.shape != reference_ZYX.shape or reference_ZYX.ndim != 3:
        raise InputError(
            f"prediction and reference must be label maps (Z, Y, X) of one shape; found {prediction_ZYX.shape} and {reference_ZYX.shape}"
        )
    spacing = np.asarray(spacing_zyx_mm, dtype=float)
    return {
        name: score_masks(prediction_ZYX == value, reference_ZYX == value, spacing)
        for name, value in labels.items()
        if value != 0
    }


def score_masks(prediction_ZYX: Mask, reference_ZYX: Mask, spacing_zyx_mm: NDArray[np.float64]) -> Scores:
    """Scores of one structure given as two masks (Z, Y, X)."""
    voxel_ml = float(np.prod(spacing_zyx_mm)) / 1000
    predicted, referenced = int(prediction_ZYX.sum()), int(reference_ZYX.sum())
    scores: Scores = {
        "dice": float("nan"),
        "hd95_mm": float("nan"),
        "assd_mm": float("nan"),
        "reference_ml": referenced * voxel_ml,
        "prediction_ml": predicted * voxel_ml,
        "status": "ok",
    }
    if predicted == 0 or referenced == 0:
        if predicted or referenced:
            scores["dice"] = 0.0
        empty = "both" if not (predicted or referenced) else "prediction" if not predicted else "reference"
        scores["status"] = f"{empty}_empty"
        return scores
    box = _bounding_box(prediction_ZYX | reference_ZYX)
    prediction, reference = prediction_ZYX[box], reference_ZYX[box]
    scores["dice"] = 2 * int((prediction & reference).sum()) / (predicted + referenced)
    forth, back = surface_distances(prediction, reference, spacing_zyx_mm)
    scores["hd95_mm"] = float(np.percentile(np.concatenate([forth, back]), 95))
    scores["assd_mm"] = float((forth.mean() + back.mean()) / 2)
    return scores


def surface_distances(
    prediction_ZYX: Mask, reference_ZYX: Mask, spacing_zyx_mm: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances in mm from each surface voxel of the prediction to the nearest one of the reference, and the other way round.

    Both masks are (Z, Y, X) and not empty.
    """
    from scipy.spatial import cKDTree

    points_prediction = np.argwhere(surface(prediction_ZYX)) * spacing_zyx_mm
    points_reference = np.argwhere(surface(reference_ZYX)) * spacing_zyx_mm
    forth, _ = cKDTree(points_reference, balanced_tree=False, compact_nodes=False).query(points_prediction)
    back, _ = cKDTree(points_prediction, balanced_tree=False, compact_nodes=False).query(points_reference)
    return forth, back


def surface(mask_ZYX: Mask) -> Mask:
    """The voxels of a mask (Z, Y, X) with a face neighbour, or the outside of the image, out of it."""
    padded = np.pad(mask_ZYX, 1)
    inner = padded[1:-1, 1:-1, 1:-1].copy()
    for axis in range(3):
        for start in (0, 2):
            window = [slice(1, -1)] * 3
            window[axis] = slice(start, start + mask_ZYX.shape[axis])
            inner &= padded[tuple(window)]
    return mask_ZYX & ~inner


def _bounding_box(mask_ZYX: Mask) -> tuple[slice, ...]:
    box = []
    for axis in range(mask_ZYX.ndim):
        others = tuple(other for other in range(mask_ZYX.ndim) if other != axis)
        present = np.flatnonzero(mask_ZYX.any(axis=others))
        box.append(slice(int(present[0]), int(present[-1]) + 1))
    return tuple(box)
