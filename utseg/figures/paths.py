"""Outlines of labels as short SVG paths, simplified to within half a pixel.

Coordinates are whole tenths of a pixel, so that paths are short; the drawing scales them by 0.1. All outlines of a stack are simplified at
once: one by one takes ten times as long. Nothing is filled or coloured here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from utseg.figures.outlines import contours

TOLERANCE_PIXELS = 0.5
SHORT = 12
"""Outlines with fewer points stay as they are: simplified, a structure of one or two pixels would vanish."""
TENTHS = 10
Points = NDArray[np.float64]


def outlines(label_YX: NDArray[np.uint8], labels: Mapping[str, int]) -> list[str]:
    """The outline of each label of a slice as a path; "" where the slice has none. The corners of the first pixel are (0, 0) and (1, 1)."""
    return stack_outlines(label_YX[np.newaxis], labels)[0]


def stack_outlines(label_ZYX: NDArray[np.uint8], labels: Mapping[str, int]) -> list[list[str]]:
    """For each slice the outline of each label."""
    found = [
        _contours(plane == value) if value in there else []
        for plane in label_ZYX
        for there in [set(np.unique(plane).tolist())]
        for value in labels.values()
    ]
    every = [outline for of_label in found for outline in of_label]
    long = [outline for outline in every if len(outline) >= SHORT]
    shorter = iter(simplified(long, TOLERANCE_PIXELS))
    paths = [
        "".join(_path(next(shorter) if len(outline) >= SHORT else outline) for outline in of_label)
        for of_label in found
    ]
    return [paths[start : start + len(labels)] for start in range(0, len(paths), len(labels))]


def _contours(mask_YX: NDArray[np.bool_]) -> list[Points]:
    """Closed outlines, first point not repeated, (x, y)."""
    return [outline_N2[:-1, ::-1] for outline_N2 in contours(mask_YX)]


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
