"""Means over subjects with their intervals: ED and ES of one heart belong together, so a subject counts once, with the mean of its cases.

Undefined values (NaN) are left out and counted. Comparing models is done elsewhere (`compare.py`).
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
SEED = 0
UNIT = "subjects"
"""What n, mean, sd and median are over, in every summary and table."""
Floats = NDArray[np.float64]
Interval = list[float]


def subject_means(values_C: Floats, subjects_C: NDArray[np.str_]) -> Floats:
    """(S,): the mean over each subject's cases, in the order of the names; undefined cases, and subjects without others, are left out."""
    _, means = by_subject(values_C, subjects_C)
    return means[~np.isnan(means)]


def by_subject(values_C: Floats, subjects_C: NDArray[np.str_]) -> tuple[NDArray[np.str_], Floats]:
    """(S,): the subjects, sorted, and the mean over the cases of each, undefined ones left out; NaN where a subject has no other."""
    names, owner = np.unique(subjects_C, return_inverse=True)
    defined = ~np.isnan(values_C)
    count = np.bincount(owner, weights=defined, minlength=len(names))
    total = np.bincount(owner, weights=np.where(defined, values_C, 0), minlength=len(names))
    return names, np.where(count > 0, total / np.maximum(count, 1), np.nan)


def mean_over_subjects(values_C: Floats, subjects_C: NDArray[np.str_]) -> float | None:
    """None where no value is defined."""
    means = subject_means(values_C, subjects_C)
    return float(means.mean()) if len(means) else None


def mean_defined(values: Floats, axis: int) -> Floats:
    """The mean of what is not NaN; NaN where all is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis)
    total = np.where(defined, values, 0).sum(axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def subject_scores(values_CL: Floats, subjects_C: NDArray[np.str_]) -> Floats:
    """(S,): of each subject, sorted, the mean over its cases of the mean over labels; NaN where nothing is defined."""
    return by_subject(mean_defined(values_CL, 1), subjects_C)[1]


def statistics(values_C: Floats, subjects_C: NDArray[np.str_]) -> dict[str, Any]:
    """n, mean, sd (n−1), median and the percentile-bootstrap 95 % interval of the mean, over subjects; cases and undefined count cases.

    NaN is undefined: left out and counted. Without values the statistics are None; sd and interval need two subjects.
    """
    means = subject_means(values_C, subjects_C)
    n = len(means)
    undefined = int(np.isnan(values_C).sum())
    return {
        "n": n,
        "cases": len(values_C) - undefined,
        "undefined": undefined,
        "mean": float(means.mean()) if n else None,
        "sd": float(means.std(ddof=1)) if n > 1 else None,
        "median": float(np.median(means)) if n else None,
        "interval95": _interval(means, SEED),
    }


def bootstrap_interval(values_C: Floats, subjects_C: NDArray[np.str_], seed: int = SEED) -> Interval | None:
    """95 % percentile interval of the mean over subjects, drawn with replacement (cluster bootstrap; Davison & Hinkley 1997, §3.8).

    None with fewer than two subjects. Deterministic for a seed.
    """
    return _interval(subject_means(values_C, subjects_C), seed)


def _interval(means_S: Floats, seed: int) -> Interval | None:
    count = len(means_S)
    if count < 2:
        return None
    low, high = np.percentile(times_drawn(count, seed) @ means_S / count, [2.5, 97.5])
    return [float(low), float(high)]


@lru_cache(maxsize=8)
def times_drawn(count: int, seed: int) -> NDArray[np.float64]:
    """How often each of `count` subjects is drawn in each resample: (RESAMPLES, count)."""
    drawn = np.random.default_rng(seed).integers(0, count, size=(RESAMPLES, count))
    flat = (drawn + np.arange(RESAMPLES)[:, None] * count).ravel()
    return np.bincount(flat, minlength=RESAMPLES * count).reshape(RESAMPLES, count).astype(float)
