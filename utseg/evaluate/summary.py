"""Summarises scores per label and group: n, mean, sd, median, bootstrap 95 % interval, and the counts of empty structures.

The unit of n, mean, sd, median and interval is the subject, each with the mean of its cases (`subjects.py`); "cases", "undefined" and
"empty" count cases. Undefined values (empty structures) are left out of the means.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from utseg.cardiac.thirds import REGIONS
from utseg.evaluate.metrics import METRICS, Row
from utseg.evaluate.subjects import UNIT, mean_over_subjects, statistics

STATUSES = ("both_empty", "prediction_empty", "reference_empty")
SUMMARY_FORMAT = "utseg-summary-1"


def summarise(rows: Sequence[Row], columns: Sequence[str]) -> dict[str, Any]:
    """The content of `summary.json` for the rows of `metrics.csv`, over all cases and for each value of each group column."""
    groups = {
        column: {value: _of_group(some) for value, some in by_value(rows, column).items()}
        for column in columns
    }
    return {"format": SUMMARY_FORMAT, "unit": UNIT, "all": _of_group(rows), "groups": groups}


def summarise_regions(rows: Sequence[Row]) -> dict[str, Any]:
    """Per region and label, for the rows of `regions.csv`. Empty where no case has regions."""
    found = by_value(rows, "region")
    return {region: _of_group(found[region]) for region in REGIONS if region in found}


def by_value(rows: Sequence[Row], column: str) -> dict[str, list[Row]]:
    """The rows of each value that a column has, in the order of the values; rows without one are in none."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        value = str(row.get(column, ""))
        if value:
            found.setdefault(value, []).append(row)
    return dict(sorted(found.items()))


def _of_group(rows: Sequence[Row]) -> dict[str, Any]:
    names = list(dict.fromkeys(str(row["label_name"]) for row in rows))
    labels = {name: _of_label([row for row in rows if row["label_name"] == name]) for name in names}
    return {
        "cases": len({row["case"] for row in rows}),
        "subjects": len({row["subject"] for row in rows}),
        "mean_dice": _mean_dice(rows),
        "labels": labels,
    }


def _mean_dice(rows: Sequence[Row]) -> float | None:
    """Over subjects, of each the mean over its cases, of each case the mean over the labels that have a Dice."""
    means = mean_over_labels(rows, ("dice",))
    subjects_C = np.array([row["subject"] for row in means])
    return mean_over_subjects(np.array([row["dice"] for row in means]), subjects_C)


def mean_over_labels(rows: Sequence[Row], metrics: Sequence[str]) -> list[Row]:
    """A row for each case (and dataset): the mean over its labels of each metric that there is, NaN where it is defined for none."""
    cases: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        cases.setdefault((str(row.get("dataset", "")), str(row["case"])), []).append(row)
    means = []
    for (dataset, _), own in cases.items():
        mean: Row = {"dataset": dataset, "subject": str(own[0]["subject"])}
        for metric in metrics:
            if metric in own[0]:
                values = [float(row[metric]) for row in own if not math.isnan(row[metric])]
                mean[metric] = sum(values) / len(values) if values else math.nan
        means.append(mean)
    return means


def _of_label(rows: Sequence[Row]) -> dict[str, Any]:
    subjects = np.array([str(row["subject"]) for row in rows])
    there = [metric for metric in METRICS if metric.key in rows[0]]
    summary: dict[str, Any] = {
        metric.key: statistics(np.array([row[metric.key] for row in rows], dtype=float), subjects)
        for metric in there
        if metric.summary == "statistics"
    }
    summary["empty"] = {status: sum(row["status"] == status for row in rows) for status in STATUSES}
    sums = {
        metric.key: sum(int(row[metric.key]) for row in rows) for metric in there if metric.summary == "sum"
    }
    return summary | ({"slices": sums} if sums else {})
