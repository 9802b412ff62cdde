"""Gives a slice the look of a slice of another subject, so that a network learns shapes and not one scanner's intensities.

Two ways that others have found to help on unseen scanners. Histogram matching: a monotone map of intensities after which both slices
have the same histogram. Fourier amplitude exchange: amplitudes of long waves say how bright and how shaded an image is, phases where
things are (Yang, Soatto, *FDA: Fourier Domain Adaptation for Semantic Segmentation*, CVPR 2020; blended by a drawn share as in Xu et al.,
*A Fourier-Based Framework for Domain Generalization*, CVPR 2021). Nothing is drawn here. Results are new arrays.
"""

import numpy as np
import numpy.typing as npt

from utseg.augment.draw import Augmentation
from utseg.augment.spatial import crop_or_pad

Image = npt.NDArray[np.float32]


def take_look(
    augmentation: Augmentation, image_CHW: Image, partner_CHW: Image, spacing_yx_mm: tuple[float, float]
) -> Image:
    """The image with as much of the partner's histogram, then of its amplitudes, as was drawn. Sizes may differ, channels not."""
    if augmentation.histogram_share:
        image_CHW = match_histogram(image_CHW, partner_CHW, augmentation.histogram_share)
    if augmentation.amplitude_share:
        image_CHW = exchange_amplitude(
            image_CHW,
            partner_CHW,
            augmentation.amplitude_share,
            wavelength_mm=augmentation.amplitude_wavelength_mm,
            spacing_yx_mm=spacing_yx_mm,
        )
    return image_CHW


def match_histogram(image_CHW: Image, partner_CHW: Image, share: float) -> Image:
    """Moves each value of each channel by `share` of the way to the partner's value of the same rank. The order of values stays."""
    from skimage.exposure import match_histograms

    matched_CHW = match_histograms(image_CHW, partner_CHW, channel_axis=0)
    matched_CHW -= image_CHW
    matched_CHW *= np.float32(share)
    matched_CHW += image_CHW
    blended: Image = np.asarray(matched_CHW, dtype=np.float32)
    return blended


def exchange_amplitude(
    image_CHW: Image,
    partner_CHW: Image,
    share: float,
    *,
    wavelength_mm: float,
    spacing_yx_mm: tuple[float, float],
) -> Image:
    """Moves the amplitude of each wave of at least that length, and of the mean, by `share` of the way to the partner's; phases stay.

    The partner is cut or padded evenly, with its minimum, to the image's size, for the same waves.
    """
    from scipy import fft

    size = image_CHW.shape[-2], image_CHW.shape[-1]
    if partner_CHW.shape[-2:] != size:
        start = [(there - here) // 2 for there, here in zip(partner_CHW.shape[-2:], size, strict=True)]
        label_HW = np.zeros(partner_CHW.shape[-2:], np.uint8)
        partner_CHW, _ = crop_or_pad(partner_CHW, label_HW, (start[0], start[1]), size)
    waves_CHW, partner_waves_CHW = fft.rfft2(image_CHW), fft.rfft2(partner_CHW)
    frequency_H1 = fft.fftfreq(size[0], spacing_yx_mm[0])[:, None]
    frequency_W = fft.rfftfreq(size[1], spacing_yx_mm[1])
    long_HW = np.hypot(frequency_H1, frequency_W) * wavelength_mm <= 1
    chosen, amplitude = waves_CHW[:, long_HW], np.abs(partner_waves_CHW[:, long_HW])
    own = np.abs(chosen)
    # A wave of no amplitude has no phase: it gets phase 0.
    phase = np.divide(chosen, own, out=np.ones_like(chosen), where=own > 0)
    waves_CHW[:, long_HW] = phase * (own + np.float32(share) * (amplitude - own))
    exchanged: Image = np.asarray(fft.irfft2(waves_CHW, s=size), dtype=np.float32)
    return exchanged
