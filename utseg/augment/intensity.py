"""Intensity augmentations with given values, on a patch that the caller owns. Channels change alike, the slices of one by one curve.

They are nnU-Net's, written out here: those of batchgenerators draw for themselves, which cannot be replayed, and import pandas.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from utseg.augment.draw import Augmentation

Image = npt.NDArray[np.float32]


def change_intensity(
    augmentation: Augmentation,
    image_CHW: Image,
    spacing_yx_mm: tuple[float, float] = (1.0, 1.0),
    slices: int = 1,
    unit_C: Sequence[float] = (1.0,),
) -> Image:
    """Blur, resolution, noise, brightness, contrast, gamma, in this order. Float32 in, the same array out. A constant image stays finite.

    `spacing_yx_mm`: pixel size, for the blur. `slices`: slices per image channel, changed by one curve. `unit_C`: of noise and brightness,
    a value for each channel or one for all.
    """
    if augmentation.blur_sd_mm:
        blur(image_CHW, augmentation.blur_sd_mm, spacing_yx_mm)
    if augmentation.resolution != 1:
        lower_resolution(image_CHW, augmentation.resolution)
    scan_CNHW = image_CHW.reshape(-1, slices, *image_CHW.shape[1:])
    unit_C111 = np.array(unit_C)[:, None, None, None]
    if augmentation.noise_sd:
        add_noise(scan_CNHW, augmentation.noise_sd * unit_C111, augmentation.noise_seed)
    if augmentation.brightness:
        scan_CNHW += np.float32(augmentation.brightness * unit_C111)
    if augmentation.contrast != 1:
        change_contrast(scan_CNHW, augmentation.contrast)
    if augmentation.gamma != 1:
        change_gamma(scan_CNHW, augmentation.gamma, inverted=augmentation.gamma_inverted)
    return image_CHW


def blur(image_CHW: Image, sd_mm: float, spacing_yx_mm: tuple[float, float]) -> None:
    """Convolves each channel with a Gaussian of that standard deviation along both axes, in place."""
    from scipy.ndimage import gaussian_filter

    sd_px = [sd_mm / spacing for spacing in spacing_yx_mm]
    for channel in image_CHW:
        gaussian_filter(channel, sd_px, output=channel, mode="nearest", truncate=3.0)


def lower_resolution(image_CHW: Image, share: float) -> None:
    """Averages into pixels 1 / `share` times as wide and interpolates back, both linearly, in place: what a coarser scan looks like."""
    import torch
    from torch.nn.functional import interpolate

    size = image_CHW.shape[-2:]
    coarse = [max(1, round(side * share)) for side in size]
    x_1CHW = torch.from_numpy(image_CHW.copy())[
        None
    ]  # a mirrored single pixel has strides that torch refuses
    low = interpolate(x_1CHW, size=coarse, mode="bilinear", antialias=True)
    image_CHW[:] = interpolate(low, size=size, mode="bilinear")[0].numpy()


def add_noise(image: Image, sd: float | npt.NDArray[np.float64], seed: int) -> None:
    """Adds Gaussian noise of the standard deviation, one for all or broadcast, in place."""
    noise = np.random.default_rng(seed).standard_normal(image.shape, dtype=np.float32)
    noise *= np.float32(sd)
    image += noise


def change_contrast(image_CNHW: Image, factor: float) -> None:
    """Moves each channel's values away from their mean, `factor` times as far, in place; none leaves the range there was."""
    for channel in image_CNHW:
        low, high, mean = channel.min(), channel.max(), channel.mean()
        channel -= mean
        channel *= np.float32(factor)
        channel += mean
        np.clip(channel, low, high, out=channel)


def change_gamma(image_CNHW: Image, gamma: float, *, inverted: bool) -> None:
    """Raises each channel, scaled to 0 … 1, to the power `gamma` (of 1 − value where inverted), in place; its mean and deviation stay.

    Mean and deviation stay because a z-score gives every image the same ones: what changes is the shape of the histogram only.
    """
    for channel in image_CNHW:
        low, high = channel.min(), channel.max()
        mean, deviation = channel.mean(), channel.std()
        if not high > low:
            continue
        channel -= low
        channel /= high - low
        if inverted:
            np.subtract(1, channel, out=channel)
        np.clip(channel, 0, 1, out=channel)
        np.power(channel, np.float32(gamma), out=channel)
        if inverted:
            np.subtract(1, channel, out=channel)
        bent = channel.std()
        channel -= channel.mean()
        channel *= deviation / bent if bent > 0 else 0
        channel += mean
