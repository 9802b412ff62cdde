"""Outlines of labels as short SVG paths, simplified to within half a pixel.

Coordinates are whole tenths of a pixel, so that paths are short; the drawing scales them by 0.1. Nothing is filled or coloured here.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

TOLERANCE_PIXELS = 0.5
SHORT = 12
"""Outlines with fewer points stay as they are: simplified, a structure of one or two pixels would vanish."""
TENTHS = 10


def outlines(label_YX: NDArray[np.uint8], labels: Mapping[str, int]) -> list[str]:
    """The outline of each label as a path; "" where the slice has none. The corners of the first pixel are (0, 0) and (1, 1)."""
    there = set(np.unique(label_YX).tolist())
    return [outline_path(label_YX == value) if value in there else "" for value in labels.values()]


def outline_path(mask_YX: NDArray[np.bool_]) -> str:
    """Closed outlines of a mask, halfway between the centres of pixels in and out."""
    from skimage.measure import find_contours

    parts = []
    for contour_N2 in find_contours(np.pad(mask_YX, 1).astype(np.float32), 0.5):
        points_N2 = contour_N2[:-1]
        if len(points_N2) >= SHORT:
            points_N2 = simplified(points_N2, TOLERANCE_PIXELS)
        # One pixel of padding less, half a pixel from centre to corner; (y, x) becomes (x, y).
        tenths = np.rint((points_N2[:, ::-1] - 0.5) * TENTHS).astype(int)
        steps = np.diff(tenths, axis=0).tolist()
        words = " ".join(f"{x} {y}" for x, y in steps).replace(" -", "-")
        parts.append(f"M{tenths[0, 0]} {tenths[0, 1]}l{words}z")
    return "".join(parts)


def simplified(points_N2: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """Fewer points of a closed outline (first not repeated), which lies within `tolerance` of them (Douglas and Peucker 1973).

    The first point and the one farthest from it always stay.
    """
    far = int(np.square(points_N2 - points_N2[0]).sum(axis=1).argmax())
    closed = np.vstack([points_N2, points_N2[:1]])
    kept = np.zeros(len(closed), bool)
    kept[[0, far, -1]] = True
    spans = [(0, far), (far, len(closed) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        y, x = (closed[first + 1 : last] - closed[first]).T
        dy, dx = (closed[last] - closed[first]).tolist()
        length = dy * dy + dx * dx
        along = np.clip((y * dy + x * dx) / length, 0, 1) if length else 0.0
        distance = (y - along * dy) ** 2 + (x - along * dx) ** 2
        worst = int(distance.argmax())
        if distance[worst] > tolerance * tolerance:
            middle = first + 1 + worst
            kept[middle] = True
            spans += [(first, middle), (middle, last)]
    kept[-1] = False
    found: NDArray[np.float64] = closed[kept]
    return found
