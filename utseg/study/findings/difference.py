"""Differences between two sides of a study, with intervals, tests and a verdict in a word. The unit is the subject throughout.

Paired, where a subject was scored on both sides: `utseg.evaluate.compare`. Unpaired, where the sides have other subjects: difference of
the means over subjects, the interval by drawing the subjects of each side with replacement, p by exchanging subjects between the sides.
In tests of distances, which are of ranks, a structure that is missed or extra is worse than any value. p is corrected after Holm over all
differences that stand in one table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from utseg.evaluate.compare import RANDOM_FLIPS, compare_pair, holm, is_significant, why_none
from utseg.evaluate.metrics import METRIC
from utseg.evaluate.subjects import RESAMPLES, SEED, Floats, subject_means
from utseg.study.findings.data import Side, StudyData
from utseg.study.record import MEAN_LABEL


@dataclass
class Difference:
    """`difference`: mean over subjects of a − b, in the metric's units. `subjects`: of both sides, or of each. None: too few for it.

    `means`: of a and of b, over these subjects. `agree`: whether the difference has the sign of what is tested. `p_holm`: set by `correct`.
    """

    metric: str
    label: str
    paired: bool
    subjects: tuple[int, ...]
    difference: float | None = None
    interval95: Sequence[float] | None = None
    p: float | None = None
    means: Sequence[float] | None = None
    agree: bool = False
    p_holm: float | None = None

    @property
    def significant(self) -> bool:
        """Whether one side is better: beyond chance, with subjects enough, and the difference says so as the test does."""
        return is_significant(self.p_holm, min(self.subjects), self.agree)

    def verdict(self, if_more: str, if_less: str) -> str:
        """`if_more` where a is larger beyond chance, `if_less` where it is smaller, else a tie, or too few subjects to tell."""
        if self.significant and self.difference is not None:
            return if_more if self.difference > 0 else if_less
        return why_none(self.difference, self.p_holm, min(self.subjects))


def paired(
    data: StudyData, a: Side, b: Side, metric: str = "dice", label: str = MEAN_LABEL, *, sign: int = 1
) -> Difference:
    """sign × (a − b), over the subjects of cases that both sides have."""
    found, tested = (data.averaged([a, b], metric, label, tested=counting) for counting in (False, True))
    return of_pair(sign * found.values, sign * tested.values, found.subjects, metric, label)


def of_pair(
    values: Floats, tested: Floats, subjects_C: NDArray[np.str_], metric: str, label: str
) -> Difference:
    """a − b of the same cases: (2, cases) each."""
    pair = compare_pair(
        values[0], values[1], subjects_C, tested=(tested[0], tested[1]), ranked=METRIC[metric].ranked
    )
    facts = {key: pair[key] for key in ("difference", "interval95", "p", "means", "agree")}
    return Difference(metric, label, True, (pair["subjects"],), **facts)


def unpaired(
    data: StudyData, a: Side, b: Side, metric: str = "dice", label: str = MEAN_LABEL, *, sign: int = 1
) -> Difference:
    """sign × (a − b), where the sides have other subjects."""
    means, tested = (
        [
            sign * subject_means(found.values[0], found.subjects)
            for found in (data.averaged([side], metric, label, tested=counting) for side in (a, b))
        ]
        for counting in (False, True)
    )
    sizes = len(means[0]), len(means[1])
    nothing = Difference(metric, label, False, sizes)
    if not all(sizes):
        return nothing
    ends = float(means[0].mean()), float(means[1].mean())
    known = replace(nothing, difference=ends[0] - ends[1], means=ends)
    if min(sizes) < 2:
        return known
    if METRIC[metric].ranked:
        tested = _joint_ranks(*tested)
    agree = (ends[0] - ends[1]) * float(tested[0].mean() - tested[1].mean()) > 0
    return replace(known, interval95=difference_interval(*means), p=exchange_p(*tested), agree=agree)


def _joint_ranks(a_S: Floats, b_S: Floats) -> list[Floats]:
    """The ranks of both among all (Wilcoxon's rank sum)."""
    from scipy.stats import rankdata

    return np.split(rankdata(np.concatenate([a_S, b_S])), [len(a_S)])


def difference_interval(a_S: Floats, b_S: Floats) -> list[float]:
    """95 % percentile interval of mean(a) − mean(b), the subjects of each drawn with replacement by themselves."""
    generator = np.random.default_rng(SEED)
    means = [side[generator.integers(0, len(side), (RESAMPLES, len(side)))].mean(1) for side in (a_S, b_S)]
    low, high = np.percentile(means[0] - means[1], [2.5, 97.5])
    return [float(low), float(high)]


def exchange_p(a_S: Floats, b_S: Floats) -> float:
    """Two-sided p by 9,999 random exchanges of subjects between the sides, 1 added to both counts (Phipson and Smyth 2010)."""
    # scipy.stats.permutation_test says the same and takes ten times as long: a report has hundreds of these
    everyone = np.concatenate([a_S, b_S])
    mixed = np.random.default_rng(SEED).permuted(np.tile(everyone, (RANDOM_FLIPS, 1)), axis=1)
    differences = mixed[:, : len(a_S)].mean(axis=1) - mixed[:, len(a_S) :].mean(axis=1)
    seen = abs(float(a_S.mean() - b_S.mean())) * (1 - 1e-12)
    return (int(np.count_nonzero(np.abs(differences) >= seen)) + 1) / (RANDOM_FLIPS + 1)


def correct(differences: Sequence[Difference]) -> None:
    """Sets p after Holm over all of them; those without a test stay without."""
    tested = [one for one in differences if one.p is not None]
    for one, p_holm in zip(tested, holm([one.p for one in tested if one.p is not None]), strict=True):
        one.p_holm = p_holm
