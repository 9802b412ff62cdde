"""Differences between two sides of a study, with intervals, tests and a verdict in a word. The unit is the subject throughout.

Paired, where a subject was scored on both sides: `utseg.evaluate.compare`. Unpaired, where the sides have other subjects: difference of
the means over subjects, the interval by drawing the subjects of each side with replacement, p by exchanging subjects between the sides.
p is corrected after Holm over all differences that stand in one table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import comb

import numpy as np
from numpy.typing import NDArray

from utseg.evaluate.compare import ALPHA, HIGHER_IS_BETTER, RANDOM_FLIPS, compare_pair, holm
from utseg.evaluate.intervals import RESAMPLES, SEED, statistics
from utseg.evaluate.tables import NOTHING, interval, number
from utseg.report.glance import MARK
from utseg.report.study_data import SHOWN_METRICS, Floats, Side, StudyData
from utseg.study.record import MEAN_LABEL

TIE = "tie"
TOO_FEW = "too few subjects to tell"
NOT_COMPARABLE = "not comparable"
PAIRED, UNPAIRED = "paired", "unpaired"


@dataclass(frozen=True)
class Difference:
    """`difference`: mean over subjects of a − b, in the metric's units. `subjects`: of both sides, or of each. None: too few for it."""

    metric: str
    label: str
    paired: bool
    subjects: tuple[int, ...]
    difference: float | None
    interval95: Sequence[float] | None
    p: float | None
    p_holm: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the corrected p is below 0.05."""
        return self.p_holm is not None and self.p_holm < ALPHA

    @property
    def could_be(self) -> bool:
        """Whether so many subjects could give p < 0.05 at all."""
        if not all(self.subjects):
            return False
        ways = 2 ** self.subjects[0] if self.paired else comb(sum(self.subjects), self.subjects[0])
        return 2 / ways < ALPHA

    @property
    def kind(self) -> str:
        """Paired or unpaired, in a word."""
        return PAIRED if self.paired else UNPAIRED

    def verdict(self, if_more: str, if_less: str) -> str:
        """`if_more` where a is larger beyond chance, `if_less` where it is smaller, else a tie, or too few subjects to tell."""
        if self.difference is None:
            return NOT_COMPARABLE
        if self.significant:
            return if_more if self.difference > 0 else if_less
        return TIE if self.could_be else TOO_FEW


def paired(
    data: StudyData, a: Side, b: Side, metric: str = "dice", label: str = MEAN_LABEL, *, sign: int = 1
) -> Difference:
    """sign × (a − b), over the subjects of cases that both sides have."""
    found = data.averaged([a, b], metric, label)
    return of_pair(sign * found.values[0], sign * found.values[1], found.subjects, metric, label)


def of_pair(a_C: Floats, b_C: Floats, subjects_C: NDArray[np.str_], metric: str, label: str) -> Difference:
    """a − b of the same cases."""
    pair = compare_pair(a_C, b_C, subjects_C)
    return Difference(
        metric, label, True, (pair["subjects"],), pair["difference"], pair["interval95"], pair["p"]
    )


def unpaired(
    data: StudyData, a: Side, b: Side, metric: str = "dice", label: str = MEAN_LABEL, *, sign: int = 1
) -> Difference:
    """sign × (a − b), where the sides have other subjects."""
    means = []
    for side in (a, b):
        found = data.averaged([side], metric, label)
        means.append(sign * subject_means(found.values[0], found.subjects))
    sizes = len(means[0]), len(means[1])
    if not all(sizes):
        return Difference(metric, label, False, sizes, None, None, None)
    difference = float(means[0].mean() - means[1].mean())
    if min(sizes) < 2:
        return Difference(metric, label, False, sizes, difference, None, None)
    return Difference(
        metric, label, False, sizes, difference, difference_interval(*means), exchange_p(*means)
    )


def subject_means(values_C: Floats, subjects_C: NDArray[np.str_]) -> Floats:
    """The mean over each subject's cases, undefined ones left out; subjects without any are left out."""
    defined = ~np.isnan(values_C)
    if not defined.any():
        return np.empty(0)
    _, owner = np.unique(subjects_C[defined], return_inverse=True)
    means: Floats = np.bincount(owner, weights=values_C[defined]) / np.bincount(owner)
    return means


def difference_interval(a_S: Floats, b_S: Floats) -> list[float]:
    """95 % percentile interval of mean(a) − mean(b), the subjects of each drawn with replacement by themselves."""
    generator = np.random.default_rng(SEED)
    means = [own[generator.integers(0, len(own), (RESAMPLES, len(own)))].mean(axis=1) for own in (a_S, b_S)]
    low, high = np.percentile(means[0] - means[1], [2.5, 97.5])
    return [float(low), float(high)]


def exchange_p(a_S: Floats, b_S: Floats) -> float:
    """Two-sided p by 9,999 random exchanges of subjects between the sides, 1 added to both counts (Phipson and Smyth 2010)."""
    every = np.concatenate([a_S, b_S])
    generator = np.random.default_rng(SEED)
    mixed = generator.permuted(np.tile(every, (RANDOM_FLIPS, 1)), axis=1)
    differences = mixed[:, : len(a_S)].mean(axis=1) - mixed[:, len(a_S) :].mean(axis=1)
    seen = abs(float(a_S.mean() - b_S.mean())) * (1 - 1e-12)
    return (int(np.count_nonzero(np.abs(differences) >= seen)) + 1) / (RANDOM_FLIPS + 1)


def corrected(differences: Sequence[Difference]) -> list[Difference]:
    """With p after Holm over all of them; those without a test stay without."""
    tested = iter(holm([one.p for one in differences if one.p is not None]))
    return [one if one.p is None else replace(one, p_holm=next(tested)) for one in differences]


def sign_of(metric: str) -> int:
    """1 where more is better, −1 where less is."""
    return 1 if metric in HIGHER_IS_BETTER else -1


def difference_text(one: Difference, *, signed: bool = True) -> str:
    """A difference with its interval for a cell, marked where it is beyond chance."""
    if one.difference is None:
        return NOTHING
    digits = SHOWN_METRICS[one.metric][1]
    text = signed_number(one.difference, digits) if signed else number(one.difference, digits)
    if one.interval95:
        bounds = (signed_number(bound, digits) for bound in one.interval95)
        text += f" ({' to '.join(bounds)})"
    return text + (MARK if one.significant else "")


def signed_number(value: float, digits: int) -> str:
    """With its sign; nothing but zeros has none."""
    text = f"{value:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def p_text(value: float | None) -> str:
    """A p value for a cell."""
    if value is None:
        return NOTHING
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def mean_text(data: StudyData, side: Side, metric: str = "dice", label: str = MEAN_LABEL) -> tuple[str, int]:
    """The mean over a side's cases with its interval over subjects, for a cell, and the number of subjects."""
    found = data.averaged([side], metric, label)
    digits = SHOWN_METRICS[metric][1]
    own = statistics(found.values[0], found.subjects)
    if own["mean"] is None:
        return NOTHING, 0
    text = number(own["mean"], digits)
    if own["interval95"]:
        text += f" ({interval(own['interval95'], digits).replace(' … ', '–')})"
    return text, found.subject_count
