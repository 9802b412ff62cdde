"""What a change of the out-of-fold masks gains: Dice before and after, paired over subjects; and whether that is beyond noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utseg.evaluate.compare import ALPHA, LEAST_SUBJECTS, compare_pair
from utseg.evaluate.subjects import Floats, Interval, mean_over_subjects, subject_scores

BeforeAfter = tuple[float | None, float | None]


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
        return {key: value for key, value in vars(self).items() if key != "subjects"}


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


def too_few(subjects: int, what: str) -> str:
    """That so few subjects cannot tell what they are asked; empty where there are enough."""
    are = "subject is" if subjects == 1 else "subjects are"
    return f"{subjects} {are} too few to tell {what}" if subjects < LEAST_SUBJECTS else ""


def label_means(dice_CL: Floats, subjects_C: NDArray[np.str_]) -> list[float | None]:
    """Of each label the mean over subjects, of each the mean over its cases; None where nothing is defined."""
    return [mean_over_subjects(dice_C, subjects_C) for dice_C in dice_CL.T]
