"""What a change of the masks gains: Dice before and after, paired over subjects. Nothing is decided here."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utseg.evaluate.compare import compare_pair
from utseg.evaluate.subjects import by_subject, mean_defined
from utseg.selection.scores import Floats, label_means

BeforeAfter = tuple[float | None, float | None]


@dataclass(frozen=True)
class Gain:
    """`mean`: of so many subjects' differences, with its bootstrap 95 % interval; `p`: of the paired permutation test, times the tests.

    `labels`: by name the mean over subjects before and after, None where none is defined.
    """

    subjects: int
    mean: float
    interval95: tuple[float, float] | None
    p: float | None
    subjects_better: int
    subjects_worse: int
    labels: dict[str, BeforeAfter]


def gain(
    before_CL: Floats, after_CL: Floats, subjects_C: NDArray[np.str_], names: Sequence[str], tests: int
) -> Gain:
    """The gain in Dice (cases, labels) of the same cases; `names` of the labels, `tests` to correct for (Bonferroni)."""
    (subjects_S, before_S), (_, after_S) = (
        by_subject(mean_defined(dice_CL, 1), subjects_C) for dice_CL in (before_CL, after_CL)
    )
    compared = compare_pair(after_S, before_S, subjects_S)
    p, interval = compared["p"], compared["interval95"]
    means = zip(label_means(before_CL, subjects_C), label_means(after_CL, subjects_C), strict=True)
    with np.errstate(invalid="ignore"):
        better, worse = int((after_S > before_S).sum()), int((after_S < before_S).sum())
    return Gain(
        subjects=compared["subjects"],
        mean=compared["difference"] or 0.0,
        interval95=None if interval is None else (interval[0], interval[1]),
        p=None if p is None else min(1.0, p * tests),
        subjects_better=better,
        subjects_worse=worse,
        labels=dict(zip(names, means, strict=True)),
    )
