"""Find the one window that shows what a volume has, from a quick first look at it. No network runs here.

Axes: Y rows, X columns of a slice.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects, gaussian_filter, label

from utseg.inference.views import Pixels

EVERY = 3
"""The first look is at every third slice: neighbours show the same structures at the same place."""
SPREAD = 1 / 8
"""Standard deviation of the weights by which a window's middle counts more than its rim, a share of the window: it is centred so."""
LEAST_SHARE, LEAST_SHARE_OF_MIDDLE = 0.5, 0.95
"""What one window has to show of all that was seen, and of what is connected in its middle."""


def looked_at(slices: int) -> slice:
    """The slices (of a volume with so many) that the first look is at: every third, from the second on."""
    return slice(min(1, slices - 1), None, EVERY)


def find_focus(seen_YX: NDArray[np.float64], window_yx: Pixels) -> Pixels | None:
    """First row and column of the window with most of what was seen in its middle, moved so that what is connected there lies within,
    if it fits. seen_YX: in how many slices, or in what share of them.

    Negative where the slice is smaller than the window. None where nothing was seen, or where one window would miss half of it, or
    a twentieth of what is connected in its middle.
    """
    weighted_YX = gaussian_filter(seen_YX, [side * SPREAD for side in window_yx], mode="constant")
    middle_yx = np.unravel_index(int(weighted_YX.argmax()), weighted_YX.shape)
    parts_YX, count = label(seen_YX > 0, structure=np.ones((3, 3)))
    if not count:
        return None
    nearest = distance_transform_edt(parts_YX == 0, return_distances=False, return_indices=True)
    part = int(parts_YX[tuple(nearest[:, *middle_yx])])
    starts = []
    for middle, side, size, extent in zip(
        middle_yx, window_yx, seen_YX.shape, find_objects(parts_YX)[part - 1], strict=True
    ):
        start = min(max(int(middle) - side // 2, 0), size - side)
        if extent.stop - extent.start <= side:
            start = min(max(start, extent.stop - side), extent.start)
        starts.append(start if side < size else -((side - size) // 2))
    window = tuple(slice(max(s, 0), s + side) for s, side in zip(starts, window_yx, strict=True))

    def share(weights_YX: NDArray[np.float64]) -> float:
        return float(weights_YX[window].sum()) / float(weights_YX.sum())

    if share(seen_YX) <= LEAST_SHARE or share(seen_YX * (parts_YX == part)) <= LEAST_SHARE_OF_MIDDLE:
        return None
    return starts[0], starts[1]


def shows_whole(background_ZYX: NDArray[np.float32], start_yx: Pixels, window_yx: Pixels) -> bool:
    """Whether the window shows structures, and none that touches its rim other than where the slice ends too.

    background_ZYX: the probability of background, 1 beside the window.
    """
    seen_ZYX = background_ZYX < 0.5
    return bool(seen_ZYX.any()) and not _reaches_rim(seen_ZYX, start_yx, window_yx)


def cuts_largest(background_ZYX: NDArray[np.float32], start_yx: Pixels, window_yx: Pixels) -> bool:
    """Whether the largest of the connected structures touches the rim, beyond which it may go on. Arguments as of `shows_whole`."""
    parts_ZYX, count = label(background_ZYX < 0.5, structure=np.ones((3, 3, 3)))
    if not count:
        return False
    largest = 1 + int(np.bincount(parts_ZYX.ravel())[1:].argmax())
    return _reaches_rim(parts_ZYX == largest, start_yx, window_yx)


def _reaches_rim(mask_ZYX: NDArray[np.bool_], start_yx: Pixels, window_yx: Pixels) -> bool:
    for axis, (start, side) in enumerate(zip(start_yx, window_yx, strict=True), 1):
        rim = [at for at in (start, start + side - 1) if 0 < at < mask_ZYX.shape[axis] - 1]
        if mask_ZYX.take(rim, axis).any():
            return True
    return False
