"""What all pictures of labels have in common: a colour for each label value, outlines, the part of a slice to show, the scale bar.

Outlines are points (y, x) in pixels from the corner of the first pixel, whose centre is (½, ½). Nothing is drawn or read here.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

LABEL_COLOURS = ("#E69F00", "#009E73", "#56B4E9", "#CC79A7", "#F0E442", "#0072B2", "#D55E00")
"""Of label value 1, 2, …: distinguishable with colour-blind eyes (Okabe and Ito, 2008). Further values begin again."""
GREY_PERCENTILES = (1.0, 99.0)
MARGIN_MM = 45.0
BAR_MM = 50.0
SHORT_BAR_MM = 10.0


def label_colour(value: int) -> str:
    """The colour of a label value ≥ 1, the same in every picture."""
    return LABEL_COLOURS[(value - 1) % len(LABEL_COLOURS)]


def bar_length_mm(width_mm: float) -> float:
    """Length of the scale bar in a picture of this width."""
    return BAR_MM if width_mm > 1.5 * BAR_MM else SHORT_BAR_MM


def contours(mask_YX: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed outlines (N, 2) of a mask, at the image's border too; the last point is the first."""
    from skimage.measure import find_contours

    rows, columns = np.flatnonzero(mask_YX.any(axis=1)), np.flatnonzero(mask_YX.any(axis=0))
    if not len(rows):
        return []
    inside = mask_YX[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # One pixel of padding less, half a pixel from centre to corner.
    corner = np.array([rows[0], columns[0]]) - 0.5
    return [outline_N2 + corner for outline_N2 in find_contours(np.pad(inside, 1).astype(float), 0.5)]


def label_contours(
    label_YX: NDArray[np.uint8], labels: Mapping[str, int]
) -> Iterator[tuple[int, list[NDArray[np.float64]]]]:
    """Value and outlines of each label that the slice has. What spans most comes first: a cavity's outline lies over that of its wall."""
    there = [(value, label_YX == value) for value in labels.values() if value > 0]
    for value, mask in sorted(there, key=lambda one: -span(one[1])):
        if mask.any():
            yield value, contours(mask)


def span(mask_YX: NDArray[np.bool_]) -> int:
    """Rows times columns in which the mask has a pixel."""
    return int(mask_YX.any(axis=1).sum()) * int(mask_YX.any(axis=0).sum())


def window_around(labelled_YX: NDArray[np.bool_], spacing_yx_mm: tuple[float, float]) -> tuple[slice, slice]:
    """A square in mm around what is labelled, with a margin of MARGIN_MM, cut to the image; all of it where nothing is labelled."""
    if not labelled_YX.any():
        return slice(None), slice(None)
    places = np.argwhere(labelled_YX)
    low, high = places.min(axis=0), places.max(axis=0) + 1
    steps = np.array(spacing_yx_mm)
    half = ((high - low) * steps).max() / 2 + MARGIN_MM
    middle = (low + high) / 2
    first = np.maximum(np.floor(middle - half / steps), 0).astype(int)
    last = np.ceil(middle + half / steps).astype(int)
    return slice(first[0], last[0]), slice(first[1], last[1])
