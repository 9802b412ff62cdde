"""2.5-D: the slices of a stack that a network is shown with each slice, gathered when it is to see them; on disk each slice is alone.

For each channel of the image: the slice before, the slice itself, the slice after, in the file's order, which begins at the base or at the
apex. All of them are of one volume, which is one frame of one case. Axes: C channels of the image, N slices shown of each, Z, Y, X.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from utseg.planning.plan import SLICE_OFFSETS, Plan

Floats = NDArray[np.float32]


def shown_slices(plan: Plan, slices: int, distance_mm: float) -> NDArray[np.intp]:
    """(Z, N): of each of so many slices, `distance_mm` apart, those of the stack that the network is shown.

    2d: the slice itself. 2.5d: the ones nearest to the planned distance before and after, the slice itself between them; at least the next
    one, and the last one of the stack where it ends before.
    """
    step = max(1, round((plan.neighbour_distance_mm or 0) / distance_mm))
    places_ZN = np.add.outer(np.arange(slices), step * np.array(SLICE_OFFSETS[plan.configuration]))
    return np.asarray(np.clip(places_ZN, 0, slices - 1))


def as_channels(images: Sequence[Floats]) -> Floats:
    """Images (C, …) of the N slices shown, as the channels (C·N, …) of one; of one slice as it is."""
    return images[0] if len(images) == 1 else np.stack(images, axis=1).reshape(-1, *images[0].shape[1:])


def with_neighbours(image_CZYX: Floats, plan: Plan, distance_mm: float) -> Floats:
    """A volume as the network is shown it, (C·N, Z, Y, X): with 2d as it is."""
    shown_NZ = shown_slices(plan, image_CZYX.shape[1], distance_mm).T
    return image_CZYX if len(shown_NZ) == 1 else as_channels([image_CZYX[:, shown] for shown in shown_NZ])
