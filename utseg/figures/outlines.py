"""Outlines of masks: as points, in their order of drawing, and as short SVG paths, simplified to within half a pixel.

Pixels are counted from the corner of the first one, whose centre is (½, ½). A path has whole tenths of a pixel, so that it is short.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from utseg.label_map import Labels, LabelValue, inside

TOLERANCE_PIXELS = 0.5
SHORT = (
    12  # outlines of fewer points stay as they are: simplified, a structure of a pixel or two would vanish
)
TENTHS = 10
Points = NDArray[np.float64]


def contours(mask_YX: NDArray[np.bool_]) -> list[Points]:
    """Closed outlines (N, 2) of (y, x), at the image's border too; the last point is the first."""
    from skimage.measure import find_contours

    rows, columns = np.flatnonzero(mask_YX.any(axis=1)), np.flatnonzero(mask_YX.any(axis=0))
    if not len(rows):
        return []
    box = mask_YX[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    corner = (
        np.array([rows[0], columns[0]]) - 0.5
    )  # a pixel of padding less, half a one from centre to corner
    return [outline_N2 + corner for outline_N2 in find_contours(np.pad(box, 1).astype(float), 0.5)]


def drawing_order(label: NDArray[np.uint8], values: Sequence[LabelValue]) -> list[int]:
    """Indices of the structures, the one that spans most (…, Y, X) first: a cavity's outline is drawn over that of its wall."""
    label_ZYX = label.reshape(-1, *label.shape[-2:])

    def span(index: int) -> int:
        """Rows times columns in which the structure has a pixel."""
        mask_YX = np.any(inside(label_ZYX, values[index]), axis=0)
        return int(mask_YX.any(axis=1).sum()) * int(mask_YX.any(axis=0).sum())

    return sorted(range(len(values)), key=span, reverse=True)


def outline_paths(label_ZYX: NDArray[np.uint8], labels: Labels) -> list[list[str]]:
    """For each slice the outline of each label as an SVG path; "" where the slice has none."""
    found = [
        [outline_N2[:-1, ::-1] for outline_N2 in contours(inside(plane, value))]
        for plane in label_ZYX
        for value in labels.values()
    ]
    # All outlines of a stack at once: one by one takes ten times as long.
    long = [outline for outlines in found for outline in outlines if len(outline) >= SHORT]
    shorter = iter(simplified(long, TOLERANCE_PIXELS))
    paths = [
        "".join(_path(next(shorter) if len(outline) >= SHORT else outline) for outline in outlines)
        for outlines in found
    ]
    return [paths[start : start + len(labels)] for start in range(0, len(paths), len(labels))]


def _path(points_N2: Points) -> str:
    tenths = np.rint(points_N2 * TENTHS).astype(int)
    steps = np.diff(tenths, axis=0).tolist()
    words = " ".join(f"{x} {y}" for x, y in steps).replace(" -", "-")
    return f"M{tenths[0, 0]} {tenths[0, 1]}l{words}z"


def simplified(outlines_N2: Sequence[Points], tolerance: float) -> list[Points]:
    """Fewer points of closed outlines (first not repeated), which lie within `tolerance` of them (Douglas and Peucker 1973).

    The first point of each and the one farthest from it always stay. Not by recursion: the spans of all outlines are split in rounds.
    """
    if not outlines_N2:
        return []
    closed = np.concatenate([np.vstack([points, points[:1]]) for points in outlines_N2])
    lasts = np.cumsum([len(points) + 1 for points in outlines_N2]) - 1
    firsts = np.concatenate([[0], lasts[:-1] + 1])
    farthest = [int(np.square(points - points[0]).sum(axis=1).argmax()) for points in outlines_N2]
    kept = np.zeros(len(closed), bool)
    kept[firsts] = kept[lasts] = kept[firsts + farthest] = True
    while True:
        ends = np.flatnonzero(kept)
        span = np.cumsum(kept) - 1
        distance = _squared_distance(closed, closed[ends][span], closed[np.append(ends[1:], ends[-1])][span])
        worst = np.maximum.reduceat(distance, ends)
        far = np.flatnonzero((distance == worst[span]) & (distance > tolerance * tolerance))
        if not len(far):
            break
        kept[far[np.unique(span[far], return_index=True)[1]]] = True
    kept[lasts] = False
    return np.split(
        closed[kept], np.cumsum([kept[a:b].sum() for a, b in zip(firsts, lasts, strict=True)])[:-1]
    )


def _squared_distance(points_N2: Points, start_N2: Points, end_N2: Points) -> Points:
    """Of each point from its chord, which has two ends."""
    chord, way = end_N2 - start_N2, points_N2 - start_N2
    length = np.einsum("ij,ij->i", chord, chord)
    along = np.einsum("ij,ij->i", way, chord) / np.where(length > 0, length, 1.0)
    left = way - np.minimum(np.maximum(along, 0.0), 1.0)[:, np.newaxis] * chord
    distance: Points = np.einsum("ij,ij->i", left, left)
    return distance
