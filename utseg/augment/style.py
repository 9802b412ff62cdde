"""Gives a slice the style of a slice of another subject, so that a network learns shapes and not one scanner's intensities.

By histogram matching, blended by a drawn share. What did not pay, and the figures of what does, are in `benchmarks/README.md`.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from utseg.augment.draw import Augmentation
from utseg.augment.sampling import SliceRef
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
                "training: augmentation.histogram_probability needs slices of at least two subjects, and the selection has one; set it "
                "to 0 or train on more"
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


def take_style(augmentation: Augmentation, image_CHW: Image, source_CHW: Image, slices: int = 1) -> Image:
    """A new image with as much of the source's histogram as was drawn. Sizes may differ, channels not.

    The `slices` shown of a channel have one histogram.
    """
    scan, source = (
        each.reshape(-1, slices * each.shape[1], each.shape[2]) for each in (image_CHW, source_CHW)
    )
    return match_histogram(scan, source, augmentation.histogram_share).reshape(image_CHW.shape)


def match_histogram(image_CHW: Image, source_CHW: Image, share: float) -> Image:
    """Moves each value of each channel by `share` of the way to the source's value of the same rank. The order of values stays."""
    from skimage.exposure import match_histograms

    matched_CHW = match_histograms(image_CHW, source_CHW, channel_axis=0)
    matched_CHW -= image_CHW
    matched_CHW *= np.float32(share)
    matched_CHW += image_CHW
    blended: Image = np.asarray(matched_CHW, dtype=np.float32)
    return blended
