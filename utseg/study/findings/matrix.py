"""The matrix trained on × tested on: a row for each training set of each model, a column for each group that was tested.

Seeds and folds of one training set are averaged before anything else. Each cell has its mean with interval over subjects, the number of
subjects, and whether the runs saw the group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from utseg.evaluate.metrics import METRIC
from utseg.study.findings.data import Side, StudyData
from utseg.study.record import MEAN_LABEL, SEEN

UNSEEN_ALL, SEEN_ALL, EVERY = "all unseen", "all seen", "all"
PARTLY = "partly"


@dataclass(frozen=True)
class Cell:
    """A mean over subjects with its interval, None where nothing was scored; `seen`: whether the runs saw the group, or some of them."""

    mean: float | None
    interval95: Sequence[float] | None
    subjects: int
    cases: int
    seen: str
    empties: tuple[int, int, int]


@dataclass(frozen=True)
class MatrixRow:
    """A model and what it was trained on, its training subjects (the least and the most of its runs), and the cells."""

    model: str
    trained_on: str
    subjects: tuple[int, int]
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Matrix:
    """One metric and label for all rows and columns. `groups`: the columns that are groups; further ones sum them up."""

    metric: str
    label: str
    columns: Sequence[str]
    groups: int
    rows: Sequence[MatrixRow]

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The worst mean and the best, or a least range below the best: noise shall not look like a difference."""
        metric = METRIC[self.metric]
        means = [
            metric.better * cell.mean for row in self.rows for cell in row.cells if cell.mean is not None
        ]
        best = max(means, default=0.0)
        worst = best - max(best - min(means, default=0.0), metric.least_range)
        return metric.better * worst, metric.better * best


def matrices(data: StudyData) -> list[Matrix]:
    """The matrix for every metric and label; the mean Dice over labels first."""
    labels = data.labels_and_mean if len(data.labels) > 1 else list(data.labels)
    return [_matrix(data, metric, label) for metric, label in product(data.metrics, labels)]


def mean_dice_matrix(data: StudyData) -> Matrix:
    """That of the mean Dice over labels."""
    return _matrix(data, "dice", MEAN_LABEL)


def _matrix(data: StudyData, metric: str, label: str) -> Matrix:
    columns = _columns(data)
    rows = []
    for model, trained_on in data.training_sets:
        runs = data.runs_of(model, trained_on)
        sizes = [len(run.subjects.training) for run in runs]
        cells = [_cell(data, data.side(runs) & side, metric, label) for _, side in columns]
        rows.append(MatrixRow(model, trained_on, (min(sizes), max(sizes)), cells))
    return Matrix(metric, label, [name for name, _ in columns], len(data.tested_on), rows)


def _columns(data: StudyData) -> list[tuple[str, Side]]:
    """Names of columns and the scores that count there: each group, then all unseen, all seen, and all."""
    columns = [(name, data.side(tested_on=name)) for name in data.tested_on]
    if len(columns) < 2:
        return columns
    known = [(UNSEEN_ALL, data.saw == 0), (SEEN_ALL, data.saw == 1)]
    some = known if all(side.any() for _, side in known) else []
    return [*columns, *some, (EVERY, data.side())]


def _cell(data: StudyData, side: Side, metric: str, label: str) -> Cell:
    found = data.statistics(side, metric, label)
    saw = set(np.unique(data.saw[side]).tolist())
    seen = (SEEN if saw == {1} else "") if len(saw) < 2 else PARTLY
    counts = found["n"], found["cases"]
    return Cell(found["mean"], found["interval95"], *counts, seen, data.empties(side, label))
