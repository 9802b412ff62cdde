"""Takes a patch out of a slice: cropping, padding, scaling, rotation and mirroring as one map, and so at most one interpolation.

Labels are interpolated one-hot and the largest share wins: closer to the truth than the nearest pixel (Dice .970 against .961 for a ring
like the myocardium). torch's grid_sample was six times as fast as the next candidate (benchmarks/README.md).
Axes: C channels, H rows (y), W columns (x), K labels that are present.
"""

import math

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
Label = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]


def patch_start(center_yx: tuple[int, int], patch_size: tuple[int, int]) -> tuple[int, int]:
    """The first row and column of the patch around a pixel; negative where the patch reaches beyond the slice."""
    return center_yx[0] - patch_size[0] // 2, center_yx[1] - patch_size[1] // 2


def crop_or_pad(
    image_CHW: Image, label_HW: Label, start_yx: tuple[int, int], patch_size: tuple[int, int]
) -> tuple[Image, Label]:
    """A copy of a window that touches the slice, padded where it reaches beyond. No pixel value changes."""
    window = list(zip(start_yx, patch_size, label_HW.shape, strict=True))
    inside = tuple(slice(max(start, 0), start + size) for start, size, _ in window)
    beyond = [(max(-start, 0), max(start + size - side, 0)) for start, size, side in window]
    padded = [np.pad(channel[inside], beyond, constant_values=channel.min()) for channel in image_CHW]
    return np.stack(padded), np.pad(label_HW[inside], beyond)


def pixel_matrix(rotation_deg: float, scale: float, spacing_yx_mm: tuple[float, float]) -> Matrix:
    """The (2, 2) matrix that takes an offset in the patch (y, x, in pixels) to the offset in the slice that is seen there.

    Pixels → mm, turned and scaled there, → pixels: a rotation stays one for any spacing and any patch shape.
    """
    angle = math.radians(rotation_deg)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    spacing = np.asarray(spacing_yx_mm, dtype=np.float64)
    return turn * spacing[None, :] / spacing[:, None] / scale


def warp(
    image_CHW: Image, label_HW: Label, matrix: Matrix, start_yx: tuple[int, int], patch_size: tuple[int, int]
) -> tuple[Image, Label]:
    """Samples the patch once, through `matrix` about the centre of the window that begins at `start_yx`."""
    import torch
    from torch.nn.functional import grid_sample

    center = (np.asarray(patch_size) - 1) / 2
    offset = np.asarray(start_yx) + center - matrix @ center
    grid_HW2 = sampling_grid(matrix, offset, label_HW.shape, patch_size)
    background_C11 = image_CHW.min(axis=(1, 2), keepdims=True)
    patch_CHW = grid_sample(
        torch.from_numpy(image_CHW - background_C11)[None],
        torch.from_numpy(grid_HW2)[None],
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )[0].numpy()
    patch_CHW += background_C11
    return patch_CHW, _warp_label(label_HW, matrix, offset, patch_size)


def sampling_grid(
    matrix: Matrix, offset: Matrix, source_shape: tuple[int, ...], patch_size: tuple[int, int]
) -> Image:
    """Positions in the source for each patch pixel, (H, W, 2) in x, y order, where −1 and 1 are the outer borders of the source."""
    grid = np.empty((*patch_size, 2), dtype=np.float32)
    rows, columns = np.arange(patch_size[0]), np.arange(patch_size[1])
    for axis, column in ((0, 1), (1, 0)):
        unit = 2 / source_shape[axis]
        along_rows = (matrix[axis, 0] * rows + offset[axis] + 0.5) * unit - 1
        along_columns = matrix[axis, 1] * columns * unit
        np.add.outer(along_rows.astype(np.float32), along_columns.astype(np.float32), out=grid[..., column])
    return grid


def _warp_label(label_HW: Label, matrix: Matrix, offset: Matrix, patch_size: tuple[int, int]) -> Label:
    """Linear interpolation of the share of each label, background included; the largest wins. Computed around the labels only."""
    import torch
    from torch.nn.functional import grid_sample

    patch = np.zeros(patch_size, dtype=np.uint8)
    rows, columns = np.flatnonzero(label_HW.any(axis=1)), np.flatnonzero(label_HW.any(axis=0))
    if not len(rows):
        return patch
    source = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    corner = np.array([rows[0], columns[0]], dtype=np.float64)
    box_HW = np.pad(label_HW[source], 1)
    target = _seen_window(matrix, offset, corner - 1, box_HW.shape, patch_size)
    if any(part.start >= part.stop for part in target):
        return patch
    first = np.array([part.start for part in target], dtype=np.float64)
    size = target[0].stop - target[0].start, target[1].stop - target[1].start
    grid = sampling_grid(matrix, offset + matrix @ first - (corner - 1), box_HW.shape, size)
    values = np.flatnonzero(np.bincount(box_HW.ravel())).astype(np.uint8)
    shares_KHW = torch.from_numpy((box_HW == values[:, None, None]).astype(np.float32))
    sampled = grid_sample(
        shares_KHW[None],
        torch.from_numpy(grid)[None],
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    patch[target] = _largest_share(sampled[0].numpy(), values)
    return patch


def _largest_share(shares_KHW: Image, values: Label) -> Label:
    """The value of the largest share at each pixel, the first of equal ones. (As argmax, which is several times slower.)"""
    largest_HW = shares_KHW[0].copy()
    winner_HW = np.full(largest_HW.shape, values[0], dtype=np.uint8)
    for value, share_HW in zip(values[1:], shares_KHW[1:], strict=True):
        np.copyto(winner_HW, value, where=share_HW > largest_HW)
        np.maximum(largest_HW, share_HW, out=largest_HW)
    return winner_HW


def _seen_window(
    matrix: Matrix, offset: Matrix, corner: Matrix, box_shape: tuple[int, ...], patch_size: tuple[int, int]
) -> tuple[slice, slice]:
    """The smallest window of the patch in which the box of the source (its first pixel at `corner`) can be seen."""
    ends = np.array([(y, x) for y in (0, box_shape[0] - 1) for x in (0, box_shape[1] - 1)], dtype=np.float64)
    seen = np.linalg.solve(matrix, (corner + ends - offset).T)
    low = np.clip(np.floor(seen.min(axis=1)), 0, patch_size).astype(int)
    high = np.clip(np.ceil(seen.max(axis=1)) + 1, 0, patch_size).astype(int)
    return slice(low[0], high[0]), slice(low[1], high[1])
