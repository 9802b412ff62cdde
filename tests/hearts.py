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


def beating_heart(volumes: np.ndarray, slices: int = 9) -> np.ndarray:
    """(T, Z, Y, X): the heart whose cavities have these shares (T,) of their largest volumes; the muscle's area stays."""
    mask = np.zeros((len(volumes), slices + 2, 80, 90), np.uint8)
    y, x = np.mgrid[:80, :90]
    for t, z in np.ndindex(len(volumes), slices):
        shrink, share = 1 - 0.5 * z / slices, volumes[t]
        away, own = np.hypot(y - 40, x - 52), mask[t, z + 1]
        cavity = 15**2 * share
        outer = np.sqrt(cavity + 22**2 - 15**2)
        own[np.hypot((y - 40) / 1.2, x - (52 - outer * shrink)) <= 12 * shrink * np.sqrt(share)] = 3
        own[away <= outer * shrink] = 2
        own[away <= np.sqrt(cavity) * shrink] = 1
    return mask


def heart_beat(frames: int, ed: int = 0, ejected: float = 0.6) -> np.ndarray:
    """(T,) shares of the largest volume over one cycle from the frame `ed` on: ES after 3/8 of it, then filling."""
    phase = (np.arange(frames) - ed) % frames / frames
    down = 0.5 - 0.5 * np.cos(np.pi * phase / 0.375)
    back = 0.5 + 0.5 * np.cos(np.pi * (phase - 0.375) / 0.625)
    return 1 - ejected * np.where(phase < 0.375, down, back)
