"""Matches labels of two origins by name: masks and references, weights and a dataset, members of an ensemble.

Datasets number the same structures differently (M&Ms: 1 LV, 2 MYO, 3 RV; ACDC: the other way round). Background is the value 0, whatever
it is called. Values may have gaps; the classes of a network, which are its channels and what slices hold, have none. Names match when they
are equal, else by their letters whatever the case, or as names of one cardiac structure ("LV", "left ventricle"). The label `ignore` is no
structure: its voxels are not annotated, and take no part in training and scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index

import numpy as np
from numpy.typing import NDArray

from utseg.cardiac.structures import find_structures
from utseg.errors import InputError, UsageError
from utseg.label_map import (
    IGNORE,
    LARGEST_LABEL,
    Labels,
    LabelValue,
    all_values,
    has_regions,
    inside,
    painted,
    structures,
    values_of,
)

IGNORED_CLASS = 255
"""What slices hold where nothing is annotated; there are never so many classes."""


OF_NETWORKS = (
    "leave one of them out, or train it again on the labels of the other (utseg_train … --overwrite)"
)
"""What can be done where the labels of trained networks do not match: their names cannot be changed."""


class LabelMismatch(InputError):
    """The labels of two origins do not match by name."""


@dataclass(frozen=True)
class Matching:
    """Labels of two origins, background left out, and for each name of `ours` that in `theirs`, where they have it."""

    ours: Labels
    theirs: Labels
    names: Mapping[str, str]

    def in_words(self) -> str:
        """Ours first, as in "LV 1 = LV 3, MYO 2 = myocardium 2"."""
        return ", ".join(
            f"{name} {_written(self.ours[name])} = {other} {_written(self.theirs[other])}"
            for name, other in self.names.items()
        )

    def translate(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A mask of any shape in their values, in ours. The values of regions are the same in both."""
        values = np.zeros(256, dtype=np.uint8)
        for name, other in self.names.items():
            theirs = self.theirs[other]
            if isinstance(theirs, tuple):
                values[list(theirs)] = theirs
            else:
                values[theirs] = self.ours[name]
        return np.asarray(values[mask])

    def channel_order(self) -> list[int]:
        """For each channel in our order, background first, the channel of the same label in theirs, which have all of them."""
        return [source for source in self.channel_sources() if source is not None]

    def channel_sources(self) -> list[int | None]:
        """For each channel in our order, background first, the channel of the same label in theirs; None where they have none."""
        theirs = list(structures(self.theirs))
        places = {name: 1 + theirs.index(other) for name, other in self.names.items()}
        return [0, *map(places.get, structures(self.ours))]


def parse_labels(words: Sequence[str]) -> dict[str, LabelValue]:
    """Labels as people type them, NAME=VALUE or VALUE, which is its own name. Raises UsageError."""
    labels: dict[str, LabelValue] = {"background": 0}
    for word in words:
        name, _, value = word.rpartition("=")
        if not value.isdecimal() or len(value) > 9 or not 0 < int(value) <= LARGEST_LABEL:
            raise UsageError(
                f"--labels {word}: expected NAME=VALUE or VALUE, a whole number from 1 to {LARGEST_LABEL}"
            )
        if (name := name or value) in labels or int(value) in labels.values():
            raise UsageError(f"--labels {word}: this name or value is there twice")
        labels[name] = int(value)
    return labels


def checked_labels(labels: Labels) -> dict[str, LabelValue]:
    """Labels as a program hands them in, values as plain integers. Raises UsageError for what `parse_labels` refuses of people."""
    try:
        named = {
            name: tuple(map(index, value)) if isinstance(value, tuple) else index(value)
            for name, value in dict(labels).items()
        }
    except (TypeError, ValueError):
        raise UsageError(
            f"labels: expected names with whole numbers, as {{'LV': 1}}; found {labels!r}"
        ) from None
    for name, value in named.items():
        if not (values := values_of(value)) or not all(0 <= each <= LARGEST_LABEL for each in values):
            raise UsageError(
                f"labels: {name}: expected whole numbers from 0 to {LARGEST_LABEL}, found {value}"
            )
    if not has_regions(named) and len(set(named.values())) < len(named):
        raise UsageError(f"labels: a value is there twice: {labels!r}")
    return named


def without_ignored(label: NDArray[np.uint8], labels: Labels) -> NDArray[np.uint8]:
    """A label map of any shape in which ignored voxels are background."""
    return np.where(ignored(label, labels), np.uint8(0), label) if IGNORE in labels else label


def ignored(label: NDArray[np.uint8], labels: Labels) -> NDArray[np.bool_]:
    """Where a label map of any shape in the values of `labels` is not annotated."""
    return inside(label, labels[IGNORE]) if IGNORE in labels else np.zeros(label.shape, dtype=bool)


def class_numbers(labels: Labels) -> dict[str, LabelValue]:
    """The structures in classes, which slices hold: 1, 2, … in the order of the values; a region has a tuple of them."""
    classes = _classes(labels)
    return {
        name: tuple(classes[each] for each in value) if isinstance(value, tuple) else classes[value]
        for name, value in structures(labels).items()
    }


def _classes(labels: Labels) -> dict[int, int]:
    """The class of each value."""
    return {value: number for number, value in enumerate(all_values(labels), start=1)}


def to_classes(label: NDArray[np.uint8], labels: Labels) -> NDArray[np.uint8]:
    """A label map of any shape in the values of `labels`, in classes, IGNORED_CLASS where it is ignored."""
    numbers = np.zeros(256, dtype=np.uint8)
    for value, number in _classes(labels).items():
        numbers[value] = number
    classes = np.asarray(numbers[label])
    classes[ignored(label, labels)] = IGNORED_CLASS
    return classes


def to_values(classes: NDArray[np.uint8], labels: Labels) -> NDArray[np.uint8]:
    """The inverse of `to_classes`, of what is annotated."""
    return np.array([0, *all_values(labels)], dtype=np.uint8)[classes]


def members(labels: Labels) -> NDArray[np.bool_]:
    """(K, N): whether each of the N classes, background first, belongs to each of the K channels of a network, background first."""
    count = len(all_values(labels)) + 1
    if not has_regions(labels):
        return np.eye(count, dtype=bool)
    rows = [
        [number in values_of(value) for number in range(count)] for value in class_numbers(labels).values()
    ]
    return np.array([[number == 0 for number in range(count)], *rows])


def decide(probabilities: NDArray[np.float32], labels: Labels) -> NDArray[np.uint8]:
    """The class at each place from the probabilities of the channels, (K, …): the likeliest, ties to the lower one.

    Of regions, whose probabilities know nothing of each other: each paints where its own is above one half, one after the other.
    """
    if not has_regions(labels):
        return np.asarray(probabilities.argmax(0).astype(np.uint8))
    classes = np.zeros(probabilities.shape[1:], dtype=np.uint8)
    for region, own in zip(class_numbers(labels).values(), probabilities[1:], strict=True):
        classes[own > 0.5] = painted(region)
    return classes


def in_words(labels: Labels) -> str:
    """As in "LV 1, MYO 2, RV 3", of regions "heart 1+2, LV 1", and where values have no other names "1, 2, 3"."""
    written = {name: _written(value) for name, value in structures(labels).items()}
    return ", ".join(name if name == value else f"{name} {value}" for name, value in written.items())


def changed_labels(then: Labels, now: Labels) -> str | None:
    """How labels differ from what they were, in words, background and `ignore` too; None where they are the same."""
    if dict(then) == dict(now):
        return None
    shown = (
        ", ".join(f"{name} {'+'.join(map(str, values_of(value)))}" for name, value in labels.items())
        for labels in (now, then)
    )
    return "labels are {}, they were {}".format(*shown)


def _written(value: LabelValue) -> str:
    return "+".join(map(str, sorted(values_of(value))))


def same_numbering(ours: Labels, theirs: Labels) -> bool:
    """Whether both give the same names the same values; background may be called otherwise."""
    return structures(ours) == structures(theirs)


def match_network_labels(ours: Labels, theirs: Labels, *, we: str, they: str) -> Matching:
    """As `match_labels`, for networks whose outputs are averaged or compared: regions never match plain labels."""
    if has_regions(ours) != has_regions(theirs):
        kinds = {True: "regions", False: "plain labels"}
        raise LabelMismatch(
            f"{we} has {kinds[has_regions(ours)]} ({in_words(ours)}), {they} {kinds[has_regions(theirs)]} ({in_words(theirs)}): they do "
            f"not go together, whatever their names; {OF_NETWORKS}"
        )
    return match_labels(ours, theirs, we=we, they=they, advice=OF_NETWORKS)


def match_labels(
    ours: Labels, theirs: Labels, *, we: str, they: str, advice: str = "give the same names to both"
) -> Matching:
    """Each label with its counterpart, one to one. `we`, `they`: what these are the labels of, for the error; advice: its end.

    Raises LabelMismatch where a label of either has no counterpart.
    """
    left, right = structures(ours), structures(theirs)
    found = _same_names(left, right)
    alone = [name for name in left if name not in found]
    others_alone = [name for name in right if name not in found.values()]
    if alone or others_alone:
        raise LabelMismatch(
            f"labels do not match by name: {in_words(left)} in {we}, {in_words(right)} in {they}; "
            f"no counterpart for {', '.join(alone + others_alone)}; {advice}"
        )
    both = {name: (left[name], right[found[name]]) for name in left}
    regions = {name: pair for name, pair in both.items() if any(isinstance(each, tuple) for each in pair)}
    if other := [
        name for name, pair in regions.items() if len({frozenset(values_of(each)) for each in pair}) > 1
    ]:
        raise LabelMismatch(
            f"regions are of other values: {in_words(left)} in {we}, {in_words(right)} in {they} ({', '.join(other)}); "
            "give both the same"
        )
    return Matching(left, right, {name: found[name] for name in left})


def common_labels(ours: Labels, theirs: Labels) -> Matching:
    """The labels that both have by name, as outputs of networks: a region is the same as a region of the same values only."""
    left, right = structures(ours), structures(theirs)

    def is_same(value: LabelValue, other: LabelValue) -> bool:
        if isinstance(value, tuple) or isinstance(other, tuple):
            return type(value) is type(other) and {*values_of(value)} == {*values_of(other)}
        return True

    found = _same_names(left, right)
    same = {name: found[name] for name in left if name in found and is_same(left[name], right[found[name]])}
    return Matching(left, right, same)


def _same_names(left: Labels, right: Labels) -> dict[str, str]:
    """Names of the left with their counterparts on the right, in no order."""
    found = {name: name for name in left if name in right}
    for known in (_by_letters, _by_structure):
        keys = known([name for name in left if name not in found])
        others = known([name for name in right if name not in found.values()])
        found |= {keys[key]: others[key] for key in keys.keys() & others.keys()}
    return found


def _by_letters(names: list[str]) -> dict[str, str]:
    """Names by their letters and digits, whatever their case; those that share them are left out."""
    keys = ["".join(each for each in name.casefold() if each.isalnum()) for name in names]
    return {key: name for key, name in zip(keys, names, strict=True) if key and keys.count(key) == 1}


def _by_structure(names: list[str]) -> dict[str, str]:
    """Names by the cardiac structure that they are of."""
    return find_structures(names).names
