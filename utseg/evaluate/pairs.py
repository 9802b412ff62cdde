"""A mask and its reference, read in the values of one set of labels, and that they lie on one grid."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from utseg.case import Case
from utseg.errors import InputError
from utseg.labels import Labels, match_labels, structures

if TYPE_CHECKING:
    from utseg.rawdata.gate import Geometry


@dataclass(frozen=True)
class MaskPair:
    """A labelled case and the file of its mask. `labels`: names and values to score by; those of the two files match by name."""

    case: Case
    mask: Path
    labels: Labels
    reference_labels: Labels
    mask_labels: Labels

    def read(self) -> "tuple[NDArray[np.uint8], NDArray[np.uint8], Geometry]":
        """Mask and reference (Z, Y, X), and where both lie. Raises InputError where they do not lie alike."""
        assert self.case.label is not None, "only labelled cases are scored"
        reference_ZYX, geometry = self._read(self.case.label, self.reference_labels, self.case.frame)
        mask_ZYX, mask_geometry = self._read(self.mask, self.mask_labels)
        if differences := mask_geometry.differences(geometry):
            raise InputError(
                f"{self.mask}: does not lie on the grid of its reference {self.case.label}: {'; '.join(differences)}"
            )
        return mask_ZYX, reference_ZYX, geometry

    def _read(
        self, path: Path, labels: Labels, frame: int | None = None
    ) -> "tuple[NDArray[np.uint8], Geometry]":
        from utseg.rawdata.gate import read_label

        mask_ZYX, geometry = read_label(path, {"background": 0} | structures(labels), frame)
        matching = match_labels(self.labels, labels, we="the scores", they=str(path))
        return matching.translate(mask_ZYX), geometry
