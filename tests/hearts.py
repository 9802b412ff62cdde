"""A made short-axis mask: a ring of muscle around a cavity that narrows towards the apex, a crescent beside it."""

import numpy as np

LABELS = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}
SPACING = (8.0, 1.5, 1.5)


def heart(slices: int = 9, empty: int = 1) -> np.ndarray:
    """(Z, Y, X) uint8; so many empty slices before and after."""
    mask = np.zeros((slices + 2 * empty, 80, 90), np.uint8)
    y, x = np.mgrid[:80, :90]
    for z in range(slices):
        shrink = 1 - 0.5 * z / slices
        away = np.hypot(y - 40, x - 50)
        own = mask[z + empty]
        own[np.hypot((y - 40) / 1.2, x - 28) <= 18 * shrink] = 3
        own[away <= 22 * shrink] = 2
        own[away <= 15 * shrink] = 1
    return mask
