"""Rules on one mask: each a pure function of a label map (Z, Y, X) and a label's value, which gives a new one and leaves the old as it was.

A component is 26-connected: voxels that share a face, an edge or a corner belong together (in a short-axis stack slices lie far apart, and
a structure that moves between two of them touches itself at corners only). Holes are looked for in each slice by itself. What is empty
stays empty, and no rule makes a label that was not there. Nothing is read, written or chosen here.
"""

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]
Flags = NDArray[np.bool_]


def keep_largest(mask_ZYX: Labels) -> Labels:
    """All labels together are one thing: its component of most voxels stays, whatever lies apart from it becomes background.

    Of components of the same size the first in the order of the array stays.
    """
    return np.where(_largest(mask_ZYX > 0), mask_ZYX, 0).astype(np.uint8)


def keep_largest_of_label(mask_ZYX: Labels, value: int) -> Labels:
    """Of one label the component of most voxels stays, its others become background. Of the same size the first stays."""
    own_ZYX = mask_ZYX == value
    return np.where(own_ZYX & ~_largest(own_ZYX), 0, mask_ZYX).astype(np.uint8)


def remove_islands(mask_ZYX: Labels, value: int, share: float) -> Labels:
    """Components of one label with fewer voxels than `share` (0 … 1) of its largest one become background."""
    components_ZYX, sizes_N = _components(mask_ZYX == value)
    if len(sizes_N) < 2:
        return mask_ZYX.copy()
    small_N = np.concatenate([[False], sizes_N < share * sizes_N.max()])
    return np.where(small_N[components_ZYX], 0, mask_ZYX).astype(np.uint8)


def fill_holes(mask_ZYX: Labels, value: int) -> Labels:
    """Background that one label encloses within a slice becomes that label. Other labels in there stay what they are.

    A contour is closed where its pixels share edges or corners; what reaches the border of the slice is not enclosed.
    """
    from scipy.ndimage import binary_fill_holes

    own_ZYX = mask_ZYX == value
    box = _box(own_ZYX)
    filled_ZYX = mask_ZYX.copy()
    if box is None:
        return filled_ZYX
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[1] = ((0, 1, 0), (1, 1, 1), (0, 1, 0))
    enclosed_ZYX = binary_fill_holes(own_ZYX[box], structure=in_plane) & (mask_ZYX[box] == 0)
    filled_ZYX[box][enclosed_ZYX] = value
    return filled_ZYX


def _components(own_ZYX: Flags) -> tuple[NDArray[np.integer], NDArray[np.intp]]:
    """Number of the component at each voxel, 0 outside, and the sizes of components 1, 2, … ; numbered in the order of the array."""
    from scipy.ndimage import label

    components_ZYX, _ = label(own_ZYX, np.ones((3, 3, 3), dtype=bool))
    return components_ZYX, np.bincount(components_ZYX.ravel())[1:]


def _largest(own_ZYX: Flags) -> Flags:
    components_ZYX, sizes_N = _components(own_ZYX)
    if len(sizes_N) < 2:
        return own_ZYX
    return np.asarray(components_ZYX == 1 + int(sizes_N.argmax()))


def _box(own_ZYX: Flags) -> tuple[slice, ...] | None:
    """The smallest box around what is set, None where nothing is."""
    if not own_ZYX.any():
        return None
    ends = [np.flatnonzero(own_ZYX.any(axis=others))[[0, -1]] for others in ((1, 2), (0, 2), (0, 1))]
    return tuple(slice(int(first), int(last) + 1) for first, last in ends)
