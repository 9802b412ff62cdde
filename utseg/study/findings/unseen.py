"""What is lost where the vendor (or centre, …) was not trained on, and whether models differ in it.

Loss is what is better on the seen side: Dice seen − unseen, distances unseen − seen; positive is worse on the unseen. It is paired over
subjects that some runs of a model saw the vendor of and others did not. Vendors that no run saw have no such pairs: there it is the
difference to the subjects of seen vendors, unpaired, and harder scans look like a loss.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from utseg.evaluate.metrics import METRIC
from utseg.study.findings.data import Side, StudyData
from utseg.study.findings.difference import Difference, correct, of_pair, paired, unpaired
from utseg.study.record import MEAN_LABEL

ON_UNSEEN, LOSS, ON_ALL = "unseen", "loss", "all"
MOST_COMPARED = 16


@dataclass(frozen=True)
class Loss:
    """The loss of a model. `never`: on groups that no run of it saw, unpaired; else paired. `seen`, `unseen`: what is compared."""

    model: str
    never: bool
    seen: Side
    unseen: Side
    difference: Difference


@dataclass(frozen=True)
class ModelPair:
    """Two models. `what`: their scores on unseen groups, the loss of both, or their scores on all cases. The difference is a − b."""

    a: str
    b: str
    what: str
    difference: Difference

    @property
    def ahead(self) -> str:
        """Who is better, or loses less, by the sign of the difference."""
        more_is_better = self.what != LOSS and METRIC[self.difference.metric].better > 0
        return self.a if ((self.difference.difference or 0.0) > 0) is more_is_better else self.b

    @property
    def behind(self) -> str:
        """The other one."""
        return self.b if self.ahead == self.a else self.a

    @property
    def verdict(self) -> str:
        """Who is better, or loses less; a tie; or that nothing can be told."""
        words = f"{self.ahead} {'loses less' if self.what == LOSS else 'better'}"
        return self.difference.verdict(words, words)


def losses(data: StudyData, metric: str = "dice") -> list[Loss]:
    """The losses of all models by label, p after Holm over all of them. None of models that saw all groups, or none."""
    found = []
    for model in data.models:
        runs = data.runs_of(model)
        seen, unseen = data.side(runs, saw=True), data.side(runs, saw=False)
        both = seen.any(axis=0) & unseen.any(axis=0)
        known = np.isin(data.groups, data.groups[seen.any(axis=0)])
        never = unseen.any(axis=0) & ~known
        sign = METRIC[metric].better
        sides = ((paired, seen & both, unseen & both), (unpaired, seen, unseen & never))
        for test, a, b in sides:
            if a.any() and b.any():
                found += [
                    Loss(model, test is unpaired, a, b, test(data, a, b, metric, label, sign=sign))
                    for label in data.labels_and_mean
                ]
    correct([one.difference for one in found])
    return found


def losses_by_group(data: StudyData, metric: str = "dice") -> dict[str, list[Difference]]:
    """The paired loss on each group, by model; empty with fewer than two groups that are seen and unseen."""
    found: dict[str, list[Difference]] = {}
    for group in data.tested_on:
        runs_by_model = [data.runs_of(model) for model in data.models]
        sides = [
            [data.side(runs, saw=saw, tested_on=group) for saw in (True, False)] for runs in runs_by_model
        ]
        of_group = [paired(data, a, b, metric, sign=METRIC[metric].better) for a, b in sides]
        if any(one.difference is not None for one in of_group):
            found[group] = of_group
    if len(found) < 2:
        return {}
    correct([one for of_group in found.values() for one in of_group])
    return found


def model_pairs(data: StudyData, metric: str = "dice") -> list[ModelPair]:
    """Each two models on unseen groups and in their loss; on all cases where there are no unseen ones.

    Of each pair only runs that both have with the same training set, seed and fold. None with one model, with very many, or where models
    are variants of a part, which are compared there.
    """
    if any(run.part for run in data.record.runs) or not 2 <= len(data.models) <= MOST_COMPARED:
        return []
    found = [
        ModelPair(a, b, what, _compared(data, a, b, what, metric))
        for what in ((ON_UNSEEN, LOSS) if (data.saw == 0).any() else (ON_ALL,))
        for a, b in combinations(data.models, 2)
    ]
    found = [pair for pair in found if pair.difference.difference is not None]
    correct([pair.difference for pair in found])
    return found


def _compared(data: StudyData, a: str, b: str, what: str, metric: str) -> Difference:
    sides = data.comparable(data.runs_of(a), data.runs_of(b))
    if what == ON_ALL:
        return paired(data, *sides, metric)
    unseen = [side & (data.saw == 0) for side in sides]
    if what == ON_UNSEEN:
        return paired(data, unseen[0], unseen[1], metric)
    seen = [side & (data.saw == 1) for side in sides]
    found = [data.averaged([*seen, *unseen], metric, tested=counting) for counting in (False, True)]
    lost, tested = (METRIC[metric].better * (sides.values[:2] - sides.values[2:]) for sides in found)
    return of_pair(lost, tested, found[0].subjects, metric, MEAN_LABEL)
