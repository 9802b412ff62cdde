"""Dice of out-of-fold masks per case and label, and what a change of the masks gains, paired over subjects. Undefined values are NaN."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utseg.case import Case
from utseg.compute.pool import run_all
from utseg.evaluate.compare import ALPHA, LEAST_SUBJECTS, compare_pair
from utseg.evaluate.metrics import bounding_box, dice
from utseg.evaluate.pairs import MaskPair, count_overlap
from utseg.evaluate.subjects import Floats, Interval, mean_over_subjects, subject_scores
from utseg.label_map import Labels, structures, values_of
from utseg.postprocess import MaskArray
from utseg.selection.masks import labels_in

BeforeAfter = tuple[float | None, float | None]


@dataclass(frozen=True)
class OutOfFoldMask:
    """An out-of-fold mask and its reference, both (Z, Y, X), where the reference is ignored, and whose they are.

    May be cut to what is labelled in either.
    """

    subject: str
    mask_ZYX: MaskArray
    reference_ZYX: MaskArray
    ignored_ZYX: NDArray[np.bool_]


def dice_by_label(mask_ZYX: MaskArray, volume: OutOfFoldMask, labels: Labels) -> Floats:
    """(L,): the Dice of each structure in a mask of the volume, where that is annotated; NaN where mask and reference lack it."""
    counts = count_overlap(np.where(volume.ignored_ZYX, 0, mask_ZYX), volume.reference_ZYX, labels)
    found = []
    for value in structures(labels).values():
        own = list(values_of(value))
        shared = counts[np.ix_(own, own)].sum()
        found.append(dice(counts[own].sum(), counts[:, own].sum(), shared))
    return np.array(found)


def mask_pairs(
    cases: Sequence[Case],
    masks: Sequence[Path],
    labels: Labels,
    reference_labels: Labels,
) -> list[MaskPair]:
    """Each case with its mask, whose folder's record says how it is numbered."""
    numbering = {folder: labels_in(folder) for folder in {mask.parent for mask in masks}}
    return [
        MaskPair(case, mask, labels, reference_labels, numbering[mask.parent])
        for case, mask in zip(cases, masks, strict=True)
    ]


def read_cut(pair: MaskPair) -> OutOfFoldMask:
    """Mask and reference, cut to the box in which either is labelled. Raises InputError where they do not lie alike."""
    mask_ZYX, reference_ZYX, ignored_ZYX, _ = pair.read_whole()
    box = bounding_box((mask_ZYX > 0) | (reference_ZYX > 0))
    return OutOfFoldMask(
        pair.case.subject, mask_ZYX[box].copy(), reference_ZYX[box].copy(), ignored_ZYX[box].copy()
    )


def score(pair: MaskPair) -> Floats:
    """(L,): the Dice of one file."""
    volume = read_cut(pair)
    return dice_by_label(volume.mask_ZYX, volume, pair.labels)


def score_all(pairs: Sequence[MaskPair], executor: Executor, workers: int | None = None) -> Floats:
    """(C, L): the Dice of all files, in their order. Raises CaseErrors for all that cannot be scored."""
    return np.stack(
        run_all(score, pairs, executor, "scored", name=lambda pair: str(pair.mask), workers=workers)
    )


@dataclass(frozen=True)
class Gain:
    """`gain`: of so many subjects' mean Dice, with its bootstrap 95 % interval; `p`: of the paired permutation test, times the trials.

    `labels`: by name the mean over subjects before and after, None where none is defined.
    """

    subjects: int
    subjects_better: int
    subjects_worse: int
    gain: float
    interval95: Interval | None
    p: float | None
    labels: dict[str, BeforeAfter]

    def doubt(self, what: str) -> str:
        """Why nobody can tell whether it gains (`what`: "whether it pays"); empty where it does beyond noise."""
        if few := too_few(self.subjects, what):
            return few
        if self.interval95 is None or self.p is None or not self.interval95[0] > 0:
            return "the gain's interval does not lie above 0"
        return f"p {self.p:.3g} after correction is not below {ALPHA:g}" if self.p >= ALPHA else ""

    def measured(self) -> dict[str, Any]:
        """What a trial records of it."""
        return {key: value for key, value in asdict(self).items() if key != "subjects"}


def measure_gain(
    before_CL: Floats, after_CL: Floats, subjects_C: NDArray[np.str_], names: Sequence[str], trials: int
) -> Gain:
    """The gain in Dice (cases, labels) of the same cases; `names` of the labels, p corrected for so many trials (Bonferroni)."""
    before_S, after_S = (subject_scores(dice_CL, subjects_C) for dice_CL in (before_CL, after_CL))
    compared = compare_pair(after_S, before_S, np.unique(subjects_C))
    means = zip(label_means(before_CL, subjects_C), label_means(after_CL, subjects_C), strict=True)
    return Gain(
        subjects=compared["subjects"],
        subjects_better=int((after_S > before_S).sum()),
        subjects_worse=int((after_S < before_S).sum()),
        gain=compared["difference"] or 0.0,
        interval95=compared["interval95"],
        p=None if compared["p"] is None else min(1.0, compared["p"] * trials),
        labels=dict(zip(names, means, strict=True)),
    )


def label_means(dice_CL: Floats, subjects_C: NDArray[np.str_]) -> list[float | None]:
    """Of each label the mean over subjects, of each the mean over its cases; None where nothing is defined."""
    return [mean_over_subjects(dice_C, subjects_C) for dice_C in dice_CL.T]


def too_few(subjects: int, what: str) -> str:
    """That so few subjects cannot tell what they are asked; empty where there are enough."""
    are = "subject is" if subjects == 1 else "subjects are"
    return f"{subjects} {are} too few to tell {what}" if subjects < LEAST_SUBJECTS else ""
