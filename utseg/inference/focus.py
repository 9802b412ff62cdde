"""Find the one window that shows what a volume has, from a quick first look at it. No network runs here.

Axes: Y rows, X columns of a slice.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Pixels = tuple[int, int]
EVERY = 3
"""The first look is at every third slice: neighbours show the same structures at the same place."""
SPREAD = 1 / 8
"""Standard deviation of the weights by which a window's middle counts more than its rim, a share of the window: it is centred so."""
LEAST_SHARE = 0.5


def looked_at(slices: int) -> slice:
    """The slices (of a volume with so many) that the first look is at: every third, from the second on."""
    return slice(min(1, slices - 1), None, EVERY)


def find_focus(seen_YX: NDArray[np.float64], window_yx: Pixels) -> Pixels | None:
    """First row and column of the window with most of what was seen in its middle. seen_YX: in how many slices, or in what share of them.

    Negative where the slice is smaller than the window. None where nothing was seen, or at least half of it is elsewhere: one window
    would miss it.
    """
    weighted_YX = gaussian_filter(seen_YX, [side * SPREAD for side in window_yx], mode="constant")
    middle_yx = np.unravel_index(int(weighted_YX.argmax()), weighted_YX.shape)
    starts = [
        -((window - size) // 2) if size <= window else min(max(int(middle) - window // 2, 0), size - window)
        for middle, window, size in zip(middle_yx, window_yx, seen_YX.shape, strict=True)
    ]
    inside = seen_YX[tuple(slice(max(s, 0), s + window) for s, window in zip(starts, window_yx, strict=True))]
    if float(inside.sum()) <= LEAST_SHARE * float(seen_YX.sum()):
        return None
    return starts[0], starts[1]
