"""How masks number their labels, where that is on record; and whether scores contradict a numbering that is not on record.

Nothing is scored here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from utseg.errors import InputError
from utseg.files import read_json
from utseg.labels import Labels, in_words, structures
from utseg.rawdata import dataset_around, open_dataset
from utseg.rawdata.description import read_description

DESCRIPTION_FILE = "dataset.json"
PREDICTION_FILE = "prediction.json"
AS_IT_IS, AS_MATCHED = 0.1, 0.5
"""Dice over all voxels of the labels in question: below the first as they are numbered, and at least the second as they lie."""

UnrecordedSide = Literal["masks", "references"]


def labels_of_masks(folder: Path) -> tuple[Labels, Path] | None:
    """The labels of the masks in a folder, and where they stand: its `prediction.json`, `dataset.json`, or the dataset that it belongs to.

    None where none is there. Raises InputError where one is there and cannot be read.
    """
    record = folder / PREDICTION_FILE
    if record.is_file():
        value = read_json(record)
        labels = value.get("labels") if isinstance(value, dict) else None
        if isinstance(labels, dict) and labels and all(type(number) is int for number in labels.values()):
            return labels, record
        raise InputError(
            f"{record}: labels: expected an object with names of labels and whole numbers, found {str(labels)[:80]}; "
            f"predict again, or put the masks without it into a folder with a {DESCRIPTION_FILE}"
        )
    if (folder / DESCRIPTION_FILE).is_file():
        return read_description(folder / DESCRIPTION_FILE).labels, folder / DESCRIPTION_FILE
    root = dataset_around(folder)
    return None if root is None else (open_dataset(root).labels, root)


def count_overlap(
    prediction_ZYX: NDArray[np.uint8], reference_ZYX: NDArray[np.uint8], labels: Labels
) -> NDArray[np.int64]:
    """Voxels by value in the mask (rows) and in the reference (columns)."""
    size = max(labels.values()) + 1
    both = prediction_ZYX.astype(np.intp).ravel() * size + reference_ZYX.ravel()
    return np.bincount(both, minlength=size * size).reshape(size, size).astype(np.int64)


def require_plausible(
    overlaps: Sequence[NDArray[np.int64]], labels: Labels, predictions: Path, assumed: UnrecordedSide
) -> None:
    """Raises InputError where two labels or more hardly overlap themselves, and each lies on another one.

    assumed: the side whose numbering is not on record, and was taken for the other's.
    """
    from scipy.optimize import linear_sum_assignment

    total = np.sum(overlaps, axis=0)
    names = {value: name for name, value in structures(labels).items()}
    values = list(names)
    inner = total[np.ix_(values, values)]
    sizes = total[values].sum(1)[:, None] + total[:, values].sum(0)[None]
    dice = 2 * inner / np.maximum(sizes, 1)
    rows, columns = linear_sum_assignment(-dice)
    moved = [
        (row, column)
        for row, column in zip(rows, columns, strict=True)
        if dice[row, row] < AS_IT_IS and dice[row, column] >= AS_MATCHED
    ]
    if len(moved) < 2:
        return
    found = ", ".join(
        f"{values[row]} is taken for {names[values[row]]} (Dice {dice[row, row]:.2f}) and lies on {names[values[column]]} "
        f"({dice[row, column]:.2f})"
        for row, column in moved
    )
    raise InputError(
        f"{predictions}: masks and references are numbered differently, and how the {assumed} are is not on record: as {in_words(labels)} "
        f"in the masks {found}; put a {DESCRIPTION_FILE} with the labels of the {assumed} beside them"
    )
