"""Summarises scores per label and group: n, mean, sd, median, bootstrap 95 % interval, and the counts of empty structures.

Intervals are over subjects, not cases: ED and ES of one heart belong together, so a subject's cases are drawn together. Undefined values
(empty structures) are left out of the means and counted beside them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

METRICS = ("dice", "hd95_mm", "assd_mm", "reference_ml", "prediction_ml", "difference_ml")
SUMMARISED = ("dice", "hd95_mm", "assd_mm", "difference_ml")
STATUSES = ("both_empty", "prediction_empty", "reference_empty")
RESAMPLES = 2000
SUMMARY_FORMAT = "utseg-summary-1"


def summarise(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    """The content of `summary.json` for the rows of `metrics.csv`, over all cases and for each value of each group column."""
    groups: dict[str, Any] = {}
    for column in columns:
        values = sorted({str(row.get(column, "")) for row in rows} - {""})
        groups[column] = {
            value: _of_group([row for row in rows if str(row.get(column, "")) == value]) for value in values
        }
    return {"format": SUMMARY_FORMAT, "all": _of_group(rows), "groups": groups}


def _of_group(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    names = list(dict.fromkeys(str(row["label_name"]) for row in rows))
    labels = {name: _of_label([row for row in rows if row["label_name"] == name]) for name in names}
    means = [label["dice"]["mean"] for label in labels.values() if label["dice"]["n"]]
    return {
        "cases": len({row["case"] for row in rows}),
        "subjects": len({row["subject"] for row in rows}),
        "mean_dice": float(np.mean(means)) if means else None,
        "labels": labels,
    }


def _of_label(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    subjects = np.array([str(row["subject"]) for row in rows])
    summary: dict[str, Any] = {
        metric: statistics(np.array([row[metric] for row in rows], dtype=float), subjects)
        for metric in SUMMARISED
    }
    summary["empty"] = {status: sum(row["status"] == status for row in rows) for status in STATUSES}
    return summary


def statistics(values: NDArray[np.float64], subjects: NDArray[np.str_]) -> dict[str, Any]:
    """n, undefined, mean, sd (n−1), median and the percentile-bootstrap 95 % interval of the mean over subjects.

    `values` and `subjects` are (cases,). NaN is undefined: left out and counted. Without values the statistics are None; the interval needs
    two subjects.
    """
    defined = ~np.isnan(values)
    kept, owners = values[defined], subjects[defined]
    n = int(defined.sum())
    if n == 0:
        return {
            "n": 0,
            "undefined": len(values),
            "mean": None,
            "sd": None,
            "median": None,
            "interval95": None,
        }
    return {
        "n": n,
        "undefined": len(values) - n,
        "mean": float(kept.mean()),
        "sd": float(kept.std(ddof=1)) if n > 1 else None,
        "median": float(np.median(kept)),
        "interval95": bootstrap_interval(kept, owners),
    }


def bootstrap_interval(
    values: NDArray[np.float64], subjects: NDArray[np.str_], seed: int = 0
) -> list[float] | None:
    """95 % percentile interval of the mean, subjects drawn with replacement (cluster bootstrap; Davison & Hinkley 1997, §3.8).

    None with fewer than two subjects. Deterministic for a seed.
    """
    _, owner = np.unique(subjects, return_inverse=True)
    count = int(owner.max()) + 1
    if count < 2:
        return None
    sums = np.bincount(owner, weights=values, minlength=count)
    sizes = np.bincount(owner, minlength=count)
    drawn = np.random.default_rng(seed).integers(0, count, size=(RESAMPLES, count))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return [float(low), float(high)]
