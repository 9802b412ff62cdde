"""Where windows lie on a slice, what each shows of it, and how much each counts where several overlap. No network runs here.

Axes: C channels, Y rows, X columns of a slice; h, w: rows and columns of a window.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from utseg.inference.focus import EVERY
from utseg.inference.views import Pixels

Array = NDArray[np.float32]
FIRST_STEP = 1.0
"""From window to window of a first look, which need not be precise."""
GROWTH = 1 / 8
"""A slice that exceeds the patch by up to this fraction is one larger window: networks take any size, and two windows cost twice."""
GROWN_MULTIPLE = 16
GAUSSIAN_SD = 1 / 8
"""Standard deviation of the window weights as a fraction of the window, as in nnU-Net (Isensee et al., Nature Methods 2021)."""
LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Grid:
    """Where windows lie on a slice: their size, and their first row and column (negative where the slice is padded)."""

    slice_yx: tuple[int, int]
    window_yx: tuple[int, int]
    starts_yx: tuple[tuple[int, int], ...]


@lru_cache(maxsize=256)
def window_grid(slice_yx: tuple[int, int], patch_yx: tuple[int, int], step_size: float) -> Grid:
    """As few windows as cover the slice with at most that step from one to the next, a share of the window."""
    axes = [_axis_windows(size, patch, step_size) for size, patch in zip(slice_yx, patch_yx, strict=True)]
    (height, ys), (width, xs) = axes
    return Grid(slice_yx, (height, width), tuple((y, x) for y in ys for x in xs))


def windows_per_slice(
    slice_yx: tuple[int, int], patch_yx: tuple[int, int], step_size: float, focus: bool = False
) -> float:
    """How many windows a slice of a volume takes in the mean, where a focus is found if it is looked for."""
    windows = len(window_grid(slice_yx, patch_yx, step_size).starts_yx)
    if focus and windows > 1:
        return 1 + len(window_grid(slice_yx, patch_yx, FIRST_STEP).starts_yx) / EVERY
    return windows


def _axis_windows(size: int, patch: int, step_size: float) -> tuple[int, list[int]]:
    """Length of the windows along one axis, and where each starts."""
    window = patch
    if size > patch:
        grown = -(-size // GROWN_MULTIPLE) * GROWN_MULTIPLE
        window = grown if grown <= patch * (1 + GROWTH) else patch
    if size <= window:
        return window, [-((window - size) // 2)]
    step = max(1, int(window * step_size))
    count = -(-(size - window) // step) + 1
    return window, [round(start) for start in np.linspace(0, size - window, count)]


@lru_cache(maxsize=32)
def gaussian_weights(window_yx: tuple[int, int]) -> Array:
    """Weights (h, w) of one window's pixels: 1 in the middle, never below LEAST_WEIGHT."""
    profiles = []
    for length in window_yx:
        distance = np.arange(length) - (length - 1) / 2
        profiles.append(np.exp(-0.5 * (distance / (length * GAUSSIAN_SD)) ** 2))
    weights = np.outer(*profiles)
    at_least: Array = np.maximum(weights / weights.max(), LEAST_WEIGHT).astype(np.float32)
    return at_least


def cut(image_CYX: Array, grid: Grid, start_yx: Pixels, margin_yx: Pixels) -> Array:
    """The pixels of a window and of a margin on all sides, the image's minimum beside the slice."""
    on_slice, in_window = overlap(grid, start_yx, margin_yx)
    part = image_CYX[:, *on_slice]
    sizes_yx = tuple(size + 2 * margin for size, margin in zip(grid.window_yx, margin_yx, strict=True))
    if part.shape[1:] == sizes_yx:
        return part
    cut_CHW = np.empty((len(part), *sizes_yx), np.float32)
    cut_CHW[:] = image_CYX.min(axis=(1, 2), keepdims=True)
    cut_CHW[:, *in_window] = part
    return cut_CHW


def overlap(
    grid: Grid, start_yx: Pixels, margin_yx: Pixels = (0, 0)
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of the slice that a window with a margin on all sides shows, and where in it that is."""
    on_slice, in_window = [], []
    for start, window, size, margin in zip(start_yx, grid.window_yx, grid.slice_yx, margin_yx, strict=True):
        first, last = max(start - margin, 0), min(start + window + margin, size)
        on_slice.append(slice(first, last))
        in_window.append(slice(first - start + margin, last - start + margin))
    return (on_slice[0], on_slice[1]), (in_window[0], in_window[1])


@lru_cache(maxsize=32)
def weight_sum(grid: Grid) -> Array:
    """Sum of all windows' weights (Y, X): what the weighted probabilities are divided by."""
    total = np.zeros(grid.slice_yx, np.float32)
    for start in grid.starts_yx:
        on_slice, in_window = overlap(grid, start)
        total[on_slice] += gaussian_weights(grid.window_yx)[in_window]
    return total


@lru_cache(maxsize=32)
def beside(grid: Grid) -> NDArray[np.bool_]:
    """The pixels (Y, X) of the slice that no window shows."""
    beside = np.ones(grid.slice_yx, bool)
    for start in grid.starts_yx:
        beside[overlap(grid, start)[0]] = False
    return beside


@lru_cache(maxsize=64)
def shares(grid: Grid, start_yx: tuple[int, int]) -> Array:
    """How much of each pixel (h, w) a window stands for: 0 beside the slice; over all windows each pixel of the slice counts 1."""
    shares = np.zeros(grid.window_yx, np.float32)
    on_slice, in_window = overlap(grid, start_yx)
    weights = gaussian_weights(grid.window_yx)[in_window]
    shares[in_window] = weights / weight_sum(grid)[on_slice] if len(grid.starts_yx) > 1 else 1
    return shares
