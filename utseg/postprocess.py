"""Rules on one mask, and `Postprocessing`: which are applied, in which order, as a value that is stored as JSON.

A rule gives a new label map (Z, Y, X) and leaves the old as it was. Labels are named; which number a name stands for comes with the mask.
A component is 26-connected: voxels that share a face, an edge or a corner belong together (in a short-axis stack slices lie far apart, and
a structure that moves between two of them touches itself at corners only). What is empty stays empty, and no rule adds a label.
"""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from utseg.errors import SettingError
from utseg.labels import Labels, structures
from utseg.settings import Settings

MaskArray = NDArray[np.uint8]


class KeepLargest(Settings):
    """Of all labels together the component of most voxels stays, of the same size the first in the order of the array."""

    rule: Literal["keep_largest"] = "keep_largest"

    def apply(self, mask_ZYX: MaskArray, labels: Labels) -> MaskArray:
        """The mask without what lies apart."""
        return np.where(_largest(mask_ZYX > 0), mask_ZYX, 0).astype(np.uint8)


class KeepLargestOfLabel(Settings):
    """Of one label the component of most voxels stays, of the same size the first."""

    rule: Literal["keep_largest_of_label"] = "keep_largest_of_label"
    label: str

    def apply(self, mask_ZYX: MaskArray, labels: Labels) -> MaskArray:
        """The mask with the label's other components as background."""
        own_ZYX = mask_ZYX == labels[self.label]
        return np.where(own_ZYX & ~_largest(own_ZYX), 0, mask_ZYX).astype(np.uint8)


class RemoveIslands(Settings):
    """Components of one label with fewer voxels than `share` of its largest one become background."""

    rule: Literal["remove_islands"] = "remove_islands"
    label: str
    share: Annotated[float, Field(gt=0, le=1)]

    def apply(self, mask_ZYX: MaskArray, labels: Labels) -> MaskArray:
        """The mask without the islands."""
        components_ZYX, sizes_N = _components(mask_ZYX == labels[self.label])
        small_N = np.concatenate([[False], sizes_N < self.share * sizes_N.max(initial=0)])
        return np.where(small_N[components_ZYX], 0, mask_ZYX).astype(np.uint8)


class FillHoles(Settings):
    """Background that one label encloses in a slice becomes that label. Other labels in there stay what they are.

    A contour is closed where its pixels share edges or corners; what reaches the border of the slice is not enclosed.
    """

    rule: Literal["fill_holes"] = "fill_holes"
    label: str

    def apply(self, mask_ZYX: MaskArray, labels: Labels) -> MaskArray:
        """The mask with the holes filled."""
        from scipy.ndimage import binary_fill_holes, find_objects

        own_ZYX = mask_ZYX == labels[self.label]
        filled_ZYX = mask_ZYX.copy()
        in_plane = np.zeros((3, 3, 3), dtype=bool)
        in_plane[1] = ((0, 1, 0), (1, 1, 1), (0, 1, 0))
        for box in find_objects(own_ZYX.astype(np.uint8)):
            enclosed_ZYX = binary_fill_holes(own_ZYX[box], structure=in_plane) & (mask_ZYX[box] == 0)
            filled_ZYX[box][enclosed_ZYX] = labels[self.label]
        return filled_ZYX


Rule = Annotated[KeepLargest | KeepLargestOfLabel | RemoveIslands | FillHoles, Field(discriminator="rule")]


class Postprocessing(Settings):
    """Rules in the order in which they are applied; none leaves masks as they are."""

    format: Literal["utseg-postprocessing-1"] = "utseg-postprocessing-1"
    rules: tuple[Rule, ...] = ()


def postprocess(mask_ZYX: MaskArray, postprocessing: Postprocessing, labels: Labels) -> MaskArray:
    """The mask (Z, Y, X) after all rules, a new array if there are any. `labels` maps names to the values in the mask.

    Raises SettingError where a rule names a label that is not there.
    """
    check_labels(postprocessing, labels)
    for rule in postprocessing.rules:
        mask_ZYX = rule.apply(mask_ZYX, labels)
    return mask_ZYX


def check_labels(postprocessing: Postprocessing, labels: Labels) -> None:
    """Raises SettingError where a rule names a label that is not there, or background."""
    known = structures(labels)
    for rule in postprocessing.rules:
        if not isinstance(rule, KeepLargest) and rule.label not in known:
            raise SettingError(
                f"postprocessing: {rule.rule} names the label {rule.label!r}; labels there: {', '.join(known)}"
            )


def in_words(rule: Rule) -> str:
    """What a rule does, for people."""
    if isinstance(rule, KeepLargest):
        return "largest component of everything"
    if isinstance(rule, KeepLargestOfLabel):
        return f"largest component of {rule.label}"
    if isinstance(rule, RemoveIslands):
        return f"no islands of {rule.label} below {rule.share:g} of its largest component"
    return f"holes of {rule.label} filled in each slice"


def _components(own_ZYX: NDArray[np.bool_]) -> tuple[NDArray[np.integer], NDArray[np.intp]]:
    """Number of the component at each voxel, 0 outside, and the sizes of components 1, 2, … ; numbered in the order of the array."""
    from scipy.ndimage import label

    components_ZYX, _ = label(own_ZYX, np.ones((3, 3, 3), dtype=bool))
    return components_ZYX, np.bincount(components_ZYX.ravel())[1:]


def _largest(own_ZYX: NDArray[np.bool_]) -> NDArray[np.bool_]:
    components_ZYX, sizes_N = _components(own_ZYX)
    return np.asarray(components_ZYX == 1 + int(sizes_N.argmax())) if len(sizes_N) else own_ZYX
