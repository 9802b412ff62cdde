"""Dice of masks against references, per case and label, and what becomes of it per subject.

A case's score is the mean over the labels that are defined for it (a label that reference and prediction both lack has no Dice), a
subject's the mean over its cases. Undefined values are left out and counted by whoever reports.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utseg.case import Case
from utseg.compute.pool import run_each
from utseg.errors import CaseErrors, InputError
from utseg.evaluate.metrics import bounding_box, dice
from utseg.evaluate.subjects import mean_over_subjects
from utseg.labels import match_labels
from utseg.progress import progress
from utseg.rawdata.gate import read_label

Floats = NDArray[np.float64]
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Scoring:
    """A case, the file of its out-of-fold mask, the labels to score by, and those of the two files, which match by name."""

    case: Case
    mask: Path
    labels: Mapping[str, int]
    mask_labels: Mapping[str, int]
    reference_labels: Mapping[str, int]


def foreground(labels: Mapping[str, int]) -> dict[str, int]:
    """The labels without background, by value."""
    return dict(sorted(((name, value) for name, value in labels.items() if value), key=lambda item: item[1]))


def dice_by_label(mask_ZYX: Labels, reference_ZYX: Labels, labels: Mapping[str, int]) -> Floats:
    """(L,): the Dice of each label but background, by value; NaN where both lack it."""
    found = []
    for value in foreground(labels).values():
        predicted, referenced = mask_ZYX == value, reference_ZYX == value
        counts = (int(np.count_nonzero(flags)) for flags in (predicted, referenced, predicted & referenced))
        found.append(dice(*counts))
    return np.array(found, dtype=np.float64)


def read_both(scoring: Scoring) -> tuple[Labels, Labels]:
    """Mask and reference in the values to score by, cut to the box in which either is labelled.

    Raises InputError where they do not lie alike or their labels do not match.
    """
    case = scoring.case
    assert case.label is not None, "only labelled cases were trained on"
    reference_ZYX, geometry = read_label(case.label, scoring.reference_labels, case.frame)
    mask_ZYX, placed = read_label(scoring.mask, scoring.mask_labels)
    differences = placed.differences(geometry)
    if differences:
        raise InputError(f"{scoring.mask}: does not lie as {case.label} does: {'; '.join(differences)}")
    ours = scoring.labels
    reference_ZYX = match_labels(
        ours, scoring.reference_labels, we="the models", they="the raw dataset"
    ).translate(reference_ZYX)
    mask_ZYX = match_labels(ours, scoring.mask_labels, we="the models", they=str(scoring.mask)).translate(
        mask_ZYX
    )
    box = bounding_box((mask_ZYX > 0) | (reference_ZYX > 0))
    return mask_ZYX[box].copy(), reference_ZYX[box].copy()


def score(scoring: Scoring) -> Floats:
    """(L,): the Dice of one file."""
    return dice_by_label(*read_both(scoring), scoring.labels)


def score_all(scorings: Sequence[Scoring], executor: Executor, workers: int | None = None) -> Floats:
    """(C, L): the Dice of all files, in their order. Raises CaseErrors for all that cannot be scored."""
    found: dict[Path, Floats] = {}
    problems: list[str] = []
    with progress("scored", len(scorings)) as advance:
        for outcome in run_each(score, scorings, executor, name=lambda item: str(item.mask), workers=workers):
            if outcome.error is not None:
                problems += outcome.error.lines()
            elif outcome.result is not None:
                found[outcome.item.mask] = outcome.result
            advance()
    if problems:
        raise CaseErrors(sorted(problems))
    return np.stack([found[scoring.mask] for scoring in scorings])


def label_means(dice_CL: Floats, subjects_C: NDArray[np.str_]) -> list[float | None]:
    """Of each label the mean over subjects, of each the mean over its cases; None where nothing is defined."""
    return [mean_over_subjects(dice_C, subjects_C) for dice_C in dice_CL.T]
