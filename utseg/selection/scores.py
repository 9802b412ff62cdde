"""Dice of masks against references, per case and label. Undefined values are left out and counted by whoever reports."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from utseg.case import Case
from utseg.compute.pool import run_all
from utseg.evaluate.metrics import bounding_box, dice
from utseg.evaluate.numbering import count_overlap
from utseg.evaluate.pairs import MaskPair
from utseg.evaluate.subjects import Floats
from utseg.labels import structures
from utseg.postprocess.rules import MaskArray
from utseg.selection.masks import labels_in


def dice_by_label(mask_ZYX: MaskArray, reference_ZYX: MaskArray, labels: Mapping[str, int]) -> Floats:
    """(L,): the Dice of each label but background, by value; NaN where both lack it."""
    counts = count_overlap(mask_ZYX, reference_ZYX, labels)
    predicted, referenced, shared = counts.sum(1), counts.sum(0), counts.diagonal()
    return np.array(
        [dice(predicted[value], referenced[value], shared[value]) for value in structures(labels).values()]
    )


def mask_pairs(
    cases: Sequence[Case],
    masks: Sequence[Path],
    labels: Mapping[str, int],
    reference_labels: Mapping[str, int],
) -> list[MaskPair]:
    """Each case with its mask, whose folder's record says how it is numbered."""
    numbering = {folder: labels_in(folder) for folder in {mask.parent for mask in masks}}
    return [
        MaskPair(case, mask, labels, reference_labels, numbering[mask.parent])
        for case, mask in zip(cases, masks, strict=True)
    ]


def read_cut(pair: MaskPair) -> tuple[MaskArray, MaskArray]:
    """Mask and reference, cut to the box in which either is labelled. Raises InputError where they do not lie alike."""
    mask_ZYX, reference_ZYX, _ = pair.read()
    box = bounding_box((mask_ZYX > 0) | (reference_ZYX > 0))
    return mask_ZYX[box].copy(), reference_ZYX[box].copy()


def score(pair: MaskPair) -> Floats:
    """(L,): the Dice of one file."""
    return dice_by_label(*read_cut(pair), pair.labels)


def score_all(pairs: Sequence[MaskPair], executor: Executor, workers: int | None = None) -> Floats:
    """(C, L): the Dice of all files, in their order. Raises CaseErrors for all that cannot be scored."""
    return np.stack(
        run_all(score, pairs, executor, "scored", name=lambda pair: str(pair.mask), workers=workers)
    )
