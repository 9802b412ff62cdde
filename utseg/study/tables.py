"""`cases.csv` and `results.csv` of a study, from the `metrics.csv` of its runs. Both are tidy; `record.py` names their columns.

n, means, deviations and intervals are over subjects, each with the mean of its cases (`utseg.evaluate.subjects`). The label "mean" is
the mean over the labels of a case, undefined ones left out. Groups are those that the datasets have now. Nothing is compared here.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utseg.case import Case
from utseg.evaluate.metrics import EMPTIES, Row
from utseg.evaluate.records import METRIC_KEYS, METRICS_FILE, read_metrics, to_csv
from utseg.evaluate.subjects import mean_over_subjects, statistics
from utseg.evaluate.summary import mean_over_labels
from utseg.files import write_text
from utseg.study.jobs import test_folder
from utseg.study.record import (
    ALL,
    CASES_FILE,
    MAIN,
    MEAN_LABEL,
    MEANS,
    RESULTS_COLUMNS,
    RESULTS_FILE,
    RUN_COLUMNS,
    SEEN,
    UNSEEN,
    StudyRun,
    cases_columns,
)

MOST_VALUES = 12
"""A group column with more values (age, weight, a name) makes no groups."""


Cases = Mapping[tuple[str, str], Case]
"""The cases of all datasets, by dataset and id."""


def case_rows(run: StudyRun, by: str, cases: Cases) -> list[Row]:
    """The rows of `cases.csv` of a finished run."""
    several = len(run.subjects.testing) > 1
    rows = []
    for dataset in run.subjects.testing:
        for row in read_metrics(test_folder(Path(run.folder), dataset) / METRICS_FILE):
            scored = _regrouped(row, cases.get((dataset, row["case"])))
            value = str(scored.get(by, "")) if by else ""
            where = f"{by}={value}" if value else ALL
            rows.append(
                {
                    **{column: getattr(run, column) for column in RUN_COLUMNS},
                    "dataset": dataset,
                    "tested_on": (f"{dataset} {where}" if value else dataset) if several else where,
                    # without a value, a dataset that was trained on is seen
                    "seen": SEEN if (value in run.seen if value else dataset == run.dataset) else UNSEEN,
                    **scored,
                }
            )
    return rows


def _regrouped(row: Row, case: Case | None) -> Row:
    """The scores with the groups of their case, which may have been corrected since it was scored: no run depends on its test groups."""
    if case is None:
        return row
    phase = {"phase": case.phase} if case.phase else {}
    before = group_columns([row])
    return {key: value for key, value in row.items() if key not in before} | {**phase, **case.groups}


def group_columns(rows: Sequence[Row]) -> list[str]:
    """The group columns of `metrics.csv` among the columns of case rows, in their order."""
    own = {*cases_columns(())}
    return [column for column in dict.fromkeys(key for row in rows for key in row) if column not in own]


def result_rows(run: StudyRun, rows: Sequence[Row], by: str) -> list[Row]:
    """The rows of `results.csv` of a finished run, from its rows of `cases.csv`."""
    facts = {key: getattr(run, key) for key in (*RUN_COLUMNS, "parameters", "gmac", "training_seconds")}
    return [
        facts | {"tested_on": tested_on, "seen": seen, "group": group, "label": label} | scores
        for tested_on, seen, tested in _by_test(rows)
        for group, members in _by_group(tested, by)
        for label, scores in _by_label(members)
    ]


def _by_test(rows: Sequence[Row]) -> Iterator[tuple[str, str, list[Row]]]:
    """What was tested on, whether it was seen (empty: both), and the rows: each value, then the seen, the unseen, and all."""
    for name in sorted({str(row["tested_on"]) for row in rows} - {ALL}):
        own = [row for row in rows if row["tested_on"] == name]
        kinds = {str(row["seen"]) for row in own}
        yield name, kinds.pop() if len(kinds) == 1 else "", own
    for kind in (SEEN, UNSEEN):
        if own := [row for row in rows if row["seen"] == kind]:
            yield kind, kind, own
    yield ALL, "", list(rows)


def _by_group(rows: Sequence[Row], by: str) -> Iterator[tuple[str, list[Row]]]:
    yield ALL, list(rows)
    for column in group_columns(rows):
        values = sorted({value for row in rows if (value := str(row.get(column, "")))})
        if column != by and 1 < len(values) <= MOST_VALUES:
            for value in values:
                yield f"{column}={value}", [row for row in rows if str(row.get(column, "")) == value]


def _by_label(rows: Sequence[Row]) -> Iterator[tuple[str, Row]]:
    for label in dict.fromkeys(str(row["label_name"]) for row in rows):
        own = [row for row in rows if row["label_name"] == label]
        yield label, _summary(own) | _empties(own)
    yield MEAN_LABEL, _summary(mean_over_labels(rows, METRIC_KEYS)) | _empties(rows)


def _empties(rows: Sequence[Row]) -> Row:
    return {name: sum(row["status"] == status for row in rows) for name, status in EMPTIES.items()}


def _summary(rows: Sequence[Row]) -> Row:
    """n and cases (subjects and cases with a Dice), means over subjects, and of the metrics with intervals deviation and bounds."""
    subjects = np.array([f"{row['dataset']}/{row['subject']}" for row in rows])
    summary: dict[str, Any] = {}
    for metric in MAIN:
        found = statistics(np.array([row[metric] for row in rows], dtype=float), subjects)
        low, high = found["interval95"] or (None, None)
        summary |= {metric: found["mean"], f"{metric}_sd": found["sd"]}
        summary |= {f"{metric}_low": low, f"{metric}_high": high}
        if metric == MAIN[0]:
            summary |= {"n": found["n"], "cases": found["cases"]}
    for metric in MEANS:
        values = np.array([row.get(metric, math.nan) for row in rows], dtype=float)
        summary[metric] = mean_over_subjects(values, subjects)
    return summary


class Tables:
    """Both tables, written anew after each finished run; the rows of a run are worked out once."""

    def __init__(self, folder: Path, by: str, cases: Cases) -> None:
        self._folder = folder
        self._by = by
        self._of_datasets = cases
        self._cases: dict[str, list[Row]] = {}
        self._results: dict[str, list[Row]] = {}

    def of(self, run: StudyRun) -> list[Row]:
        """The rows of `results.csv` of a run; empty where it has not been written."""
        return self._results.get(run.run, [])

    def write(self, finished: Sequence[StudyRun]) -> None:
        """Writes both files, with the rows of these runs in this order."""
        for run in finished:
            if run.run not in self._cases:
                self._cases[run.run] = case_rows(run, self._by, self._of_datasets)
                self._results[run.run] = result_rows(run, self._cases[run.run], self._by)
        cases = [row for run in finished for row in self._cases[run.run]]
        results = [row for run in finished for row in self._results[run.run]]
        write_text(self._folder / CASES_FILE, to_csv(cases, cases_columns(group_columns(cases))))
        write_text(self._folder / RESULTS_FILE, to_csv(results, RESULTS_COLUMNS))
