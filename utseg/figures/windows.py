"""Which slices of a stack and which part of them a picture shows, and its scale bar."""

import numpy as np
from numpy.typing import NDArray

MOST_SLICES = 24
BAR_MM = (50, 20, 10, 5)
BAR_SHARE = 0.6


def shown_slices(labelled_Z: NDArray[np.bool_]) -> list[int]:
    """All slices of a short stack; of a tall one MOST_SLICES from one before the first with a label to one after the last, evenly."""
    count = len(labelled_Z)
    if count <= MOST_SLICES:
        return list(range(count))
    labelled = np.flatnonzero(labelled_Z)
    first, last = (
        (max(labelled[0] - 1, 0), min(labelled[-1] + 1, count - 1)) if len(labelled) else (0, count - 1)
    )
    number = min(MOST_SLICES, last - first + 1)
    return [int(z) for z in np.linspace(first, last, number).round()]


def largest_slice(label_ZYX: NDArray[np.uint8]) -> int:
    """The slice with most labelled pixels; the middle one of a volume without labels."""
    areas = np.count_nonzero(label_ZYX, axis=(1, 2))
    return int(areas.argmax()) if areas.any() else len(label_ZYX) // 2


def window_around(
    labelled_YX: NDArray[np.bool_],
    spacing_yx_mm: tuple[float, float],
    margin_mm: float,
    *,
    square: bool = True,
) -> tuple[slice, slice]:
    """A square (in mm) or rectangle around what is labelled, moved or cut where the image ends; all of it where nothing is labelled."""
    labelled = np.argwhere(labelled_YX)
    if not len(labelled):
        return slice(None), slice(None)
    low, high = labelled.min(axis=0), labelled.max(axis=0) + 1
    sides_mm = (high - low) * spacing_yx_mm + 2 * margin_mm
    window = []
    for axis, (size, step) in enumerate(zip(labelled_YX.shape, spacing_yx_mm, strict=True)):
        side = min(round((sides_mm.max() if square else sides_mm[axis]) / step), size)
        first = min(max(round((low[axis] + high[axis] - side) / 2), 0), size - side)
        window.append(slice(first, first + side))
    return window[0], window[1]


def bar_length_mm(width_mm: float) -> int:
    """Length of the scale bar in a picture of this width."""
    return next((length for length in BAR_MM if length < BAR_SHARE * width_mm), 1)
