"""Decides which slice, and where in it, each patch of a training run comes from: a function of the seed and the patch's number only.

Slices are taken without replacement, shuffled anew for each pass. Patches that lie anywhere go through all slices; those on foreground
take the labels in turn, and go through the slices that have the label.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from utseg.labels import IGNORED_CLASS

ORDER_STREAM, PATCH_STREAM = 0, 1


@dataclass(frozen=True)
class SliceRef:
    """One preprocessed slice, the classes (background left out) that it contains, whom it shows and whose scanner made it.

    `shown`: the slices of the case that the network is shown, this one in their middle. `vendor` is empty where it is not known.
    """

    case_id: str
    z: int
    labels: tuple[int, ...]
    shown: tuple[int, ...]
    subject: str = ""
    vendor: str = ""

    @property
    def name(self) -> str:
        """CASE/ZZZ, as the slice's file is named."""
        return f"{self.case_id}/{self.z:03d}"


class PatchSampler:
    """Chooses slices for the patches 0, 1, 2, … of a run. `slices` must not be empty."""

    def __init__(self, slices: Sequence[SliceRef], *, foreground_fraction: float, seed: int) -> None:
        self.slices = tuple(slices)
        self.seed = seed
        values = sorted({value for ref in slices for value in ref.labels})
        self._with_label = {
            value: [i for i, ref in enumerate(slices) if value in ref.labels] for value in values
        }
        self._values = values
        self._fraction = foreground_fraction if values else 0.0
        self._shuffled = lru_cache(maxsize=2 * len(values) + 2)(self._shuffle)

    def choose(self, number: int) -> tuple[SliceRef, int | None]:
        """The slice of patch `number`, and the class that its middle lies on, None if it may lie anywhere."""
        foreground = math.floor(number * self._fraction)
        if math.floor((number + 1) * self._fraction) == foreground:
            return self._nth(None, number - foreground), None
        turn, value_index = divmod(foreground, len(self._values))
        value = self._values[value_index]
        return self._nth(value, turn), value

    def rng(self, iteration: int, row: int) -> np.random.Generator:
        """The generator for all that is drawn for one patch: a row in the batch of an iteration."""
        stream = np.random.SeedSequence(self.seed, spawn_key=(PATCH_STREAM, iteration, row))
        return np.random.default_rng(stream)

    def _nth(self, value: int | None, position: int) -> SliceRef:
        size = len(self.slices) if value is None else len(self._with_label[value])
        number_of_pass, index = divmod(position, size)
        chosen: int = self._shuffled(value, number_of_pass)[index]
        return self.slices[chosen]

    def _shuffle(self, value: int | None, number_of_pass: int) -> npt.NDArray[np.int64]:
        indices = range(len(self.slices)) if value is None else self._with_label[value]
        stream = np.random.SeedSequence(self.seed, spawn_key=(ORDER_STREAM, value or 0, number_of_pass))
        return np.random.default_rng(stream).permutation(np.asarray(indices, dtype=np.int64))


def draw_center(
    rng: np.random.Generator,
    label_HW: npt.NDArray[np.uint8],
    patch_size: tuple[int, int],
    foreground: int | None,
) -> tuple[int, int]:
    """The pixel (y, x) that is the patch's middle.

    Around a random pixel of the class `foreground`, moved as little as is needed to stay in the slice. Without one uniformly, or
    around an annotated pixel where some are ignored. In an axis along which the slice is smaller than the patch, the slice lies wholly
    within it, anywhere.
    """
    aim = None
    annotated_HW = label_HW != IGNORED_CLASS
    if foreground is not None or not annotated_HW.all():
        pixels = np.flatnonzero(annotated_HW if foreground is None else label_HW == foreground)
        if len(pixels):
            aim = divmod(int(pixels[rng.integers(len(pixels))]), label_HW.shape[1])
    center = []
    for axis, (size, patch) in enumerate(zip(label_HW.shape, patch_size, strict=True)):
        low, high = min(0, size - patch), max(0, size - patch)
        start = (
            int(rng.integers(low, high + 1)) if aim is None else min(max(aim[axis] - patch // 2, low), high)
        )
        center.append(start + patch // 2)
    return center[0], center[1]
