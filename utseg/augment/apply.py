"""Applies a drawn augmentation to a slice: a pure function of the draw, the slice and the window. Its input is never modified."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from utseg.augment.draw import Augmentation
from utseg.augment.intensity import change_intensity
from utseg.augment.spatial import crop_or_pad, patch_start, pixel_matrix, warp
from utseg.augment.style import take_style


def apply_augmentation(
    augmentation: Augmentation,
    image_CHW: npt.NDArray[np.float32],
    label_HW: npt.NDArray[np.uint8],
    *,
    patch_size: tuple[int, int],
    center_yx: tuple[int, int],
    spacing_yx_mm: tuple[float, float] = (1.0, 1.0),
    style_CHW: npt.NDArray[np.float32] | None = None,
    slices: int = 1,
    unit_C: Sequence[float] = (1.0,),
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """The augmented patch (C, patch y, patch x) float32 and its label (patch y, patch x) uint8, in memory of their own.

    Args:
        augmentation: what was drawn.
        image_CHW: a normalised slice of any size.
        label_HW: its label.
        patch_size: (y, x) in pixels, larger or smaller than the slice.
        center_yx: the pixel of the slice that is the patch's middle (its pixel `patch_size // 2`); the patch has to overlap the slice.
        spacing_yx_mm: pixel size; rotation, scaling and blur are in mm.
        slices: slices per image channel (`utseg.preprocess.neighbours`). They are one scan: all lie in the same window, and its intensities
            change as one.
        unit_C: of noise and brightness, a value for each image channel or one for all.
        style_CHW: the slice whose style is taken, of any size, where the draw needs one.

    Beyond the slice the image is the slice's minimum (before intensities change, so it changes with them), the label 0.
    """
    if augmentation.takes_style:
        assert style_CHW is not None, "a slice to take the style of"
        image_CHW = take_style(augmentation, image_CHW, style_CHW, slices)
    if augmentation.mirror_z:
        image_CNHW = image_CHW.reshape(-1, slices, *label_HW.shape)
        image_CHW = image_CNHW[:, ::-1].reshape(image_CHW.shape)
    start = patch_start(center_yx, patch_size)
    if augmentation.interpolates:
        matrix = pixel_matrix(augmentation.rotation_deg, augmentation.scale, spacing_yx_mm)
        matrix = matrix * np.where([augmentation.mirror_y, augmentation.mirror_x], -1.0, 1.0)
        image, label = warp(image_CHW, label_HW, matrix, start, patch_size)
    else:
        image, label = crop_or_pad(image_CHW, label_HW, start, patch_size)
        mirrored = augmentation.mirror_y, augmentation.mirror_x
        axes = tuple(axis for axis, flipped in zip((-2, -1), mirrored, strict=True) if flipped)
        image, label = np.ascontiguousarray(np.flip(image, axes)), np.ascontiguousarray(np.flip(label, axes))
    return change_intensity(augmentation, image, spacing_yx_mm, slices, unit_C), label
