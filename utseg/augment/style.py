"""Gives a slice the style of a slice of another subject, so that a network learns shapes and not one scanner's intensities.

By histogram matching, or by exchanging the Fourier amplitudes of long waves, which say how bright and shaded an image is (Yang, Soatto,
*FDA*, CVPR 2020; blended by a drawn share as in Xu et al., *A Fourier-Based Framework for Domain Generalization*, CVPR 2021).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from utseg.augment.draw import Augmentation
from utseg.augment.sampling import SliceRef
from utseg.augment.spatial import crop_or_pad
from utseg.errors import InputError

Image = npt.NDArray[np.float32]


class StyleSources:
    """Which slice of a training set lends another its style: one of another subject, of another vendor where there are several.

    The vendor is chosen first, each alike, then one of its cases, then the slice at the same relative height of the stack: the histograms
    of apex and base differ by anatomy, not by scanner. Raises InputError where all slices are of one subject.
    """

    def __init__(self, slices: Sequence[SliceRef]) -> None:
        self._stacks: dict[str, list[SliceRef]] = {}
        for ref in slices:
            self._stacks.setdefault(ref.case_id, []).append(ref)
        self._cases: dict[tuple[str, str], list[list[str]]] = {}
        if len({ref.subject for ref in slices}) < 2:
            raise InputError(
                "training: augmentation.histogram_probability and augmentation.amplitude_probability need slices of at least two "
                "subjects, and the selection has one; set both to 0 or train on more"
            )

    def source(self, ref: SliceRef, drawn: float) -> SliceRef:
        """The slice whose style `ref` takes, by a number drawn from 0 to below 1."""
        key = ref.subject, ref.vendor
        if key not in self._cases:
            self._cases[key] = self._find_cases(*key)
        vendors = self._cases[key]
        vendor, drawn = _pick(len(vendors), drawn)
        case, _ = _pick(len(vendors[vendor]), drawn)
        stack, of_ref = self._stacks[vendors[vendor][case]], self._stacks[ref.case_id]
        return stack[(2 * of_ref.index(ref) + 1) * len(stack) // (2 * len(of_ref))]

    def _find_cases(self, subject: str, vendor: str) -> list[list[str]]:
        """Cases of other subjects, by other vendor; all together where there is no other vendor."""
        others = [case_id for case_id, stack in self._stacks.items() if stack[0].subject != subject]
        by_vendor: dict[str, list[str]] = {}
        for case_id in others:
            by_vendor.setdefault(self._stacks[case_id][0].vendor, []).append(case_id)
        by_vendor.pop(vendor, None)
        return list(by_vendor.values()) or [others]


def _pick(count: int, drawn: float) -> tuple[int, float]:
    """Which of `count` equal parts of 0 … 1 the number falls into, and where in that part it lies: again a number from 0 to below 1."""
    index = min(int(drawn * count), count - 1)
    return index, drawn * count - index


def take_style(
    augmentation: Augmentation,
    image_CHW: Image,
    source_CHW: Image,
    spacing_yx_mm: tuple[float, float],
    slices: int = 1,
) -> Image:
    """A new image with as much of the source's histogram, then of its amplitudes, as was drawn. Sizes may differ, channels not.

    The `slices` shown of a channel have one histogram.
    """
    if augmentation.histogram_share:
        scan, source = (
            each.reshape(-1, slices * each.shape[1], each.shape[2]) for each in (image_CHW, source_CHW)
        )
        image_CHW = match_histogram(scan, source, augmentation.histogram_share).reshape(image_CHW.shape)
    if augmentation.amplitude_share:
        image_CHW = exchange_amplitude(
            image_CHW,
            source_CHW,
            augmentation.amplitude_share,
            wavelength_mm=augmentation.amplitude_wavelength_mm,
            spacing_yx_mm=spacing_yx_mm,
        )
    return image_CHW


def match_histogram(image_CHW: Image, source_CHW: Image, share: float) -> Image:
    """Moves each value of each channel by `share` of the way to the source's value of the same rank. The order of values stays."""
    from skimage.exposure import match_histograms

    matched_CHW = match_histograms(image_CHW, source_CHW, channel_axis=0)
    matched_CHW -= image_CHW
    matched_CHW *= np.float32(share)
    matched_CHW += image_CHW
    blended: Image = np.asarray(matched_CHW, dtype=np.float32)
    return blended


def exchange_amplitude(
    image_CHW: Image,
    source_CHW: Image,
    share: float,
    *,
    wavelength_mm: float,
    spacing_yx_mm: tuple[float, float],
) -> Image:
    """Moves the amplitude of each wave of at least that length, and of the mean, by `share` of the way to the source's; phases stay.

    The source is cut or padded evenly, with its minimum, to the image's size, for the same waves.
    """
    from scipy import fft

    size = image_CHW.shape[-2], image_CHW.shape[-1]
    if source_CHW.shape[-2:] != size:
        start = [(there - here) // 2 for there, here in zip(source_CHW.shape[-2:], size, strict=True)]
        label_HW = np.zeros(source_CHW.shape[-2:], np.uint8)
        source_CHW, _ = crop_or_pad(source_CHW, label_HW, (start[0], start[1]), size)
    waves_CHW, source_waves_CHW = fft.rfft2(image_CHW), fft.rfft2(source_CHW)
    frequency_H1 = fft.fftfreq(size[0], spacing_yx_mm[0])[:, None]
    frequency_W = fft.rfftfreq(size[1], spacing_yx_mm[1])
    long_HW = np.hypot(frequency_H1, frequency_W) * wavelength_mm <= 1
    chosen, amplitude = waves_CHW[:, long_HW], np.abs(source_waves_CHW[:, long_HW])
    before = np.abs(chosen)
    # A wave of no amplitude has no phase: it gets phase 0.
    phase = np.divide(chosen, before, out=np.ones_like(chosen), where=before > 0)
    waves_CHW[:, long_HW] = phase * (before + np.float32(share) * (amplitude - before))
    exchanged: Image = np.asarray(fft.irfft2(waves_CHW, s=size), dtype=np.float32)
    return exchanged
