"""The matrix trained on × tested on: a row for each training set of each model, a column for each group that was tested.

Seeds and folds of one training set are averaged before anything else. Each cell has its mean with interval over subjects, the number of
subjects, its shade, and whether the runs saw the group.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from utseg.evaluate.metrics import METRIC
from utseg.evaluate.subjects import statistics
from utseg.evaluate.tables import NOTHING, Table, interval, number
from utseg.report.study.gap import plain
from utseg.study.findings.data import Side, StudyData
from utseg.study.record import MEAN_LABEL, SEEN, StudyRun

UNSEEN_ALL, SEEN_ALL, EVERY = "all unseen", "all seen", "all"
SHADES = 9
LEAST_RANGE, LEAST_RANGE_MM = 0.05, 1.0
PARTLY = "partly"


@dataclass(frozen=True)
class Cell:
    """A mean as text ("–" where nothing was scored), its interval, subjects, cases, shade 0 (worst) … SHADES − 1, and what was seen."""

    mean: float | None
    text: str
    interval: str
    subjects: int
    cases: int
    seen: str
    empties: tuple[int, int, int]
    shade: int = 0


@dataclass(frozen=True)
class MatrixRow:
    """A model and what it was trained on (`again`: the model stands in the row above), its training subjects and runs, and the cells."""

    model: str
    again: bool
    trained_on: str
    subjects: str
    runs: int
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Matrix:
    """One metric and label for all rows and columns. `summaries`: how many of the last columns sum up others."""

    metric: str
    label: str
    head: str
    columns: Sequence[str]
    summaries: int
    rows: Sequence[MatrixRow]


def matrices(data: StudyData) -> list[Matrix]:
    """The matrix for every metric and label; the mean Dice over labels first."""
    if not data.runs:
        return []
    labels = [MEAN_LABEL, *data.labels] if len(data.labels) > 1 else list(data.labels)
    return [_matrix(data, metric, label) for metric, label in product(data.metrics, labels)]


def _matrix(data: StudyData, metric: str, label: str) -> Matrix:
    columns = _columns(data)
    rows: list[MatrixRow] = []
    for model, trained_on in training_sets(data):
        runs = [run for run in data.runs if (data.model_of(run), run.trained_on) == (model, trained_on)]
        side = data.side(runs)
        cells = [_cell(data, side & mask, metric, label) for _, mask in columns]
        again = bool(rows) and rows[-1].model == model
        rows.append(MatrixRow(model, again, plain(trained_on), _subjects(runs), len(runs), cells))
    summaries = len(columns) - len(data.tested_on)
    names = [name for name, _ in columns]
    return Matrix(metric, label, METRIC[metric].title, names, summaries, _shaded(rows, metric))


def training_sets(data: StudyData) -> list[tuple[str, str]]:
    """Model and training set of all runs, models together, in their order."""
    found = dict.fromkeys((data.model_of(run), run.trained_on) for run in data.runs)
    order = {model: place for place, model in enumerate(data.models)}
    return sorted(found, key=lambda own: order[own[0]])


def _columns(data: StudyData) -> list[tuple[str, Side]]:
    """Names of columns and the scores that count there: each group, then all unseen, all seen, and all."""
    everything = np.ones_like(data.tested)
    columns = [(plain(name), data.side(tested_on=name)) for name in data.tested_on]
    if len(columns) < 2:
        return columns
    known = [
        (name, data.saw == value)
        for name, value in ((UNSEEN_ALL, 0), (SEEN_ALL, 1))
        if (data.saw == value).any()
    ]
    return [*columns, *(known if len(known) > 1 else []), (EVERY, everything)]


def _subjects(runs: Sequence[StudyRun]) -> str:
    """How many subjects train; of several folds the range."""
    counts = sorted({len(run.subjects.training) for run in runs})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


def _cell(data: StudyData, side: Side, metric: str, label: str) -> Cell:
    found = data.averaged([side], metric, label)
    own = statistics(found.values[0], found.subjects)
    digits = METRIC[metric].digits
    saw = set(np.unique(data.saw[side]).tolist())
    seen = {frozenset({1}): SEEN, frozenset({0}): "", frozenset({-1}): "", frozenset(): ""}
    return Cell(
        own["mean"],
        number(own["mean"], digits),
        interval(own["interval95"], digits, "–") if own["interval95"] else "",
        own["n"],
        own["cases"],
        seen.get(frozenset(saw), PARTLY),
        data.empties(side, label),
    )


def _shaded(rows: Sequence[MatrixRow], metric: str) -> list[MatrixRow]:
    """Shades between the worst and the best mean of the matrix, or over a least range, so that noise does not look like a difference."""
    means = [cell.mean for row in rows for cell in row.cells if cell.mean is not None]
    if not means:
        return list(rows)
    sign = METRIC[metric].better
    best = max(sign * mean for mean in means)
    span = max(
        best - min(sign * mean for mean in means), LEAST_RANGE_MM if METRIC[metric].unit else LEAST_RANGE
    )

    def shade(cell: Cell) -> Cell:
        if cell.mean is None:
            return cell
        share = 1 - (best - sign * cell.mean) / span
        return replace(cell, shade=min(SHADES - 1, int(share * SHADES)))

    return [replace(row, cells=[shade(cell) for cell in row.cells]) for row in rows]


def matrix_table(matrix: Matrix, by: str) -> Table:
    """The matrix as a plain table."""
    columns = ["model", "trained on", "training subjects", *matrix.columns]
    rows = [
        [row.model, row.trained_on, row.subjects, *(_cell_text(cell) for cell in row.cells)]
        for row in matrix.rows
    ]
    label = "mean over labels" if matrix.label == MEAN_LABEL else matrix.label
    note = (
        f"{matrix.head}, {label}: mean over subjects with bootstrap 95 % interval, and subjects (n). Seeds and folds are "
        "averaged first." + (f" *: the {by} was trained on." if by else "")
    )
    return Table(f"Trained on, tested on: {matrix.head.removesuffix(' mm')}", columns, rows, note)


def _cell_text(cell: Cell) -> str:
    if cell.mean is None:
        return NOTHING
    inside = "; ".join(part for part in (cell.interval, f"n {cell.subjects}") if part)
    return f"{cell.text} ({inside}){'*' if cell.seen == SEEN else ''}"


def scores_table(data: StudyData, every: Sequence[Matrix]) -> Table:
    """All cells of all matrices, tidy: a row for each training set, column and label, metrics beside each other."""
    by_label: dict[str, list[Matrix]] = {}
    for matrix in every:
        by_label.setdefault(matrix.label, []).append(matrix)
    columns = ["model", "trained on", "tested on", "label", "seen", "subjects", "cases"]
    columns += [METRIC[metric].title for metric in data.metrics] + ["missed", "extra", "neither"]
    rows = []
    first = next(iter(by_label.values()))[0]
    for r, row in enumerate(first.rows):
        for c, name in enumerate(first.columns):
            for label, own in by_label.items():
                cells = [matrix.rows[r].cells[c] for matrix in own]
                one = cells[0]
                texts = [f"{cell.text} ({cell.interval})" if cell.interval else cell.text for cell in cells]
                seen = one.seen or ("unseen" if one.cases and data.record.by else "")
                counts = (str(one.subjects), str(one.cases))
                rows.append(
                    [row.model, row.trained_on, name, label, seen, *counts, *texts, *map(str, one.empties)]
                )
    note = (
        "Means over subjects with bootstrap 95 % intervals; seeds and folds averaged first. Missed, extra, neither: structures "
        "that only the reference has, only the prediction, or none of both, over all runs; undefined scores are left out of the means."
    )
    return Table("Scores of every training set", columns, rows, note)
