"""The matrix trained on × tested on as tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from utseg.evaluate.metrics import METRIC
from utseg.evaluate.tables import NOTHING, Table, interval, number
from utseg.report.page import TableBlock
from utseg.report.study.words import plain
from utseg.study.findings.data import StudyData
from utseg.study.findings.matrix import Cell, Matrix, MatrixRow
from utseg.study.record import MEAN_LABEL, SEEN, UNSEEN

SHADES = 9
OVER_ALL = "mean over labels"


def shade(matrix: Matrix, cell: Cell) -> int:
    """0 for the worst mean of the matrix … SHADES − 1 for the best."""
    worst, best = matrix.ends
    return 0 if cell.mean is None else min(SHADES - 1, int(SHADES * (cell.mean - worst) / (best - worst)))


def mean_text(matrix: Matrix, cell: Cell) -> str:
    """A cell's mean."""
    return number(cell.mean, METRIC[matrix.metric].digits)


def interval_text(matrix: Matrix, cell: Cell) -> str:
    """A cell's interval; empty where there is none."""
    return interval(cell.interval95, METRIC[matrix.metric].digits, "–") if cell.interval95 else ""


def subjects_text(row: MatrixRow) -> str:
    """How many subjects train; of several folds the range."""
    return "–".join(dict.fromkeys(map(str, row.subjects)))


def matrix_table(matrix: Matrix, by: str) -> Table:
    """The matrix as a plain table."""
    metric = METRIC[matrix.metric]
    rows = []
    for row in matrix.rows:
        cells = [_cell_text(matrix, cell) for cell in row.cells]
        rows.append([row.model, plain(row.trained_on), subjects_text(row), *cells])
    label = OVER_ALL if matrix.label == MEAN_LABEL else matrix.label
    note = (
        f"{metric.title}, {label}: mean over subjects with bootstrap 95 % interval, and subjects (n). Seeds and folds are "
        "averaged first." + (f" *: the {by} was trained on." if by else "")
    )
    columns = ["model", "trained on", "training subjects", *map(plain, matrix.columns)]
    return Table(f"Trained on, tested on: {metric.title.removesuffix(' mm')}", columns, rows, note)


def means_table(matrix: Matrix) -> Table:
    """The means alone, for a terminal."""
    rows = []
    for row in matrix.rows:
        means = [mean_text(matrix, cell) for cell in row.cells]
        rows.append([row.model, plain(row.trained_on), *means])
    columns = ["model", "trained on", *map(plain, matrix.columns)]
    return Table("mean Dice over labels, by what was tested on", columns, rows)


def _with_interval(matrix: Matrix, cell: Cell) -> str:
    bounds = interval_text(matrix, cell)
    return mean_text(matrix, cell) + (f" ({bounds})" if bounds else "")


def _cell_text(matrix: Matrix, cell: Cell) -> str:
    if cell.mean is None:
        return NOTHING
    inside = "; ".join(part for part in (interval_text(matrix, cell), f"n {cell.subjects}") if part)
    return f"{mean_text(matrix, cell)} ({inside}){'*' if cell.seen == SEEN else ''}"


def scores_table(data: StudyData, every: Sequence[Matrix]) -> Table:
    """All cells of all matrices, tidy: a row for each training set, column and label, metrics beside each other."""
    labels = dict.fromkeys(matrix.label for matrix in every)
    columns = ["model", "trained on", "tested on", "label", "seen", "subjects", "cases"]
    columns += [METRIC[metric].title for metric in data.metrics] + ["missed", "extra", "neither"]
    rows = []
    for r, row in enumerate(every[0].rows):
        for c, name in enumerate(every[0].columns):
            for label in labels:
                cells = [(one, one.rows[r].cells[c]) for one in every if one.label == label]
                first = cells[0][1]
                texts = [_with_interval(*one) for one in cells]
                seen = first.seen or (UNSEEN if first.cases and data.record.by else "")
                where = [row.model, plain(row.trained_on), plain(name), label, seen]
                counts = map(str, (first.subjects, first.cases))
                rows.append([*where, *counts, *texts, *map(str, first.empties)])
    note = (
        "Means over subjects with bootstrap 95 % intervals; seeds and folds averaged first. Missed, extra, neither: structures "
        "that only the reference has, only the prediction, or none of both, over all runs; undefined scores are left out of the means."
    )
    return Table("Scores of every training set", columns, rows, note)


@dataclass(frozen=True, kw_only=True)
class MatrixBlock(TableBlock):
    """A matrix of each metric and label, of which one is chosen on the page; `table` is the first of them, exported."""

    matrices: Sequence[Matrix]
    kind: str = "matrices"
    plain, shade = staticmethod(plain), staticmethod(shade)
    mean_text, interval_text = staticmethod(mean_text), staticmethod(interval_text)
    subjects_text = staticmethod(subjects_text)

    def choices(self, what: str) -> dict[str, str]:
        """The metrics, or labels, that can be chosen: value and name."""
        if what == "metric":
            return {matrix.metric: METRIC[matrix.metric].title for matrix in self.matrices}
        return {m.label: OVER_ALL if m.label == MEAN_LABEL else m.label for m in self.matrices}
