"""Matches labels of two origins by name: masks and references, weights and a dataset, members of an ensemble.

Datasets number the same structures differently (M&Ms: 1 LV, 2 MYO, 3 RV; ACDC: the other way round). Background is the value 0, whatever
it is called. Values may have gaps; the classes of a network, which are its channels and what slices hold, have none. Names match when they
are equal, else by their letters whatever the case, or as names of one cardiac structure ("LV", "left ventricle"). The label `ignore` is no
structure: its voxels are not annotated, and take no part in training and scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utseg.cardiac.structures import find_structures
from utseg.errors import InputError, UsageError

Labels = Mapping[str, int]
LARGEST_LABEL = 255
IGNORE = "ignore"
IGNORED_CLASS = 255
"""What slices hold where nothing is annotated; there are never so many classes."""


class LabelMismatch(InputError):
    """The labels of two origins do not match by name."""


@dataclass(frozen=True)
class Matching:
    """Labels of two origins, background left out, and for each name of `ours` that in `theirs`."""

    ours: Labels
    theirs: Labels
    names: Mapping[str, str]

    def in_words(self) -> str:
        """Ours first, as in "LV 1 = LV 3, MYO 2 = myocardium 2"."""
        return ", ".join(
            f"{name} {self.ours[name]} = {other} {self.theirs[other]}" for name, other in self.names.items()
        )

    def translate(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A mask of any shape in their values, in ours."""
        values = np.zeros(256, dtype=np.uint8)
        for name, other in self.names.items():
            values[self.theirs[other]] = self.ours[name]
        return np.asarray(values[mask])

    def channel_order(self) -> list[int]:
        """For each channel in our order, background first, the channel of the same label in theirs."""
        theirs = class_numbers(self.theirs)
        return [0, *(theirs[self.names[name]] for name in class_numbers(self.ours))]


def parse_labels(words: Sequence[str]) -> dict[str, int]:
    """Labels as people type them, NAME=VALUE or VALUE, which is its own name. Raises UsageError."""
    labels = {"background": 0}
    for word in words:
        name, _, value = word.rpartition("=")
        if not value.isdecimal() or not 0 < int(value) <= LARGEST_LABEL:
            raise UsageError(
                f"--labels {word}: expected NAME=VALUE or VALUE, a whole number from 1 to {LARGEST_LABEL}"
            )
        if (name := name or value) in labels or int(value) in labels.values():
            raise UsageError(f"--labels {word}: this name or value is there twice")
        labels[name] = int(value)
    return labels


def structures(labels: Labels) -> dict[str, int]:
    """The labels without background and `ignore`, by value."""
    found = ((name, value) for name, value in labels.items() if value and name != IGNORE)
    return dict(sorted(found, key=lambda item: item[1]))


def without_ignored(label: NDArray[np.uint8], labels: Labels) -> NDArray[np.uint8]:
    """A label map of any shape in which ignored voxels are background."""
    return np.where(ignored(label, labels), np.uint8(0), label) if IGNORE in labels else label


def ignored(label: NDArray[np.uint8], labels: Labels) -> NDArray[np.bool_]:
    """Where a label map of any shape in the values of `labels` is not annotated."""
    return label == labels[IGNORE] if IGNORE in labels else np.zeros(label.shape, dtype=bool)


def class_numbers(labels: Labels) -> dict[str, int]:
    """The labels without background as classes of a network, 1, 2, … in the order of their values."""
    return {name: number for number, name in enumerate(structures(labels), start=1)}


def to_classes(label: NDArray[np.uint8], labels: Labels) -> NDArray[np.uint8]:
    """A label map of any shape in the values of `labels`, in classes, IGNORED_CLASS where it is ignored."""
    classes = Matching(class_numbers(labels), labels, _same_names(labels)).translate(label)
    if IGNORE in labels:
        classes[ignored(label, labels)] = IGNORED_CLASS
    return classes


def to_values(classes: NDArray[np.uint8], labels: Labels) -> NDArray[np.uint8]:
    """The inverse of `to_classes`."""
    return Matching(labels, class_numbers(labels), _same_names(labels)).translate(classes)


def _same_names(labels: Labels) -> dict[str, str]:
    return {name: name for name in structures(labels)}


def in_words(labels: Labels) -> str:
    """As in "LV 1, MYO 2, RV 3"."""
    return ", ".join(f"{name} {value}" for name, value in structures(labels).items())


def same_numbering(ours: Labels, theirs: Labels) -> bool:
    """Whether both give the same names the same values; background may be called otherwise."""
    return structures(ours) == structures(theirs)


def match_labels(ours: Labels, theirs: Labels, *, we: str, they: str) -> Matching:
    """Each label with its counterpart, one to one. `we`, `they`: what these are the labels of, for the error.

    Raises LabelMismatch where a label of either has no counterpart.
    """
    left, right = structures(ours), structures(theirs)
    found = {name: name for name in left if name in right}
    for known in (_by_letters, _by_structure):
        keys = known([name for name in left if name not in found])
        others = known([name for name in right if name not in found.values()])
        found |= {keys[key]: others[key] for key in keys.keys() & others.keys()}
    alone = [name for name in left if name not in found]
    others_alone = [name for name in right if name not in found.values()]
    if alone or others_alone:
        raise LabelMismatch(
            f"labels do not match by name: {in_words(left)} in {we}, {in_words(right)} in {they}; "
            f"no counterpart for {', '.join(alone + others_alone)}; give the same names to both"
        )
    return Matching(left, right, {name: found[name] for name in left})


def _by_letters(names: list[str]) -> dict[str, str]:
    """Names by their letters and digits, whatever their case; those that share them are left out."""
    keys = ["".join(each for each in name.casefold() if each.isalnum()) for name in names]
    return {key: name for key, name in zip(keys, names, strict=True) if key and keys.count(key) == 1}


def _by_structure(names: list[str]) -> dict[str, str]:
    """Names by the cardiac structure that they are of."""
    return find_structures(names).names
