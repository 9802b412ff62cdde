"""Means of cases with intervals over subjects: ED and ES of one heart belong together, so a subject's cases are drawn together.

Undefined values (NaN) are left out and counted. Comparing models is done elsewhere (`compare.py`).
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
SEED = 0


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
    values: NDArray[np.float64], subjects: NDArray[np.str_], seed: int = SEED
) -> list[float] | None:
    """95 % percentile interval of the mean, subjects drawn with replacement (cluster bootstrap; Davison & Hinkley 1997, §3.8).

    None with fewer than two subjects. Deterministic for a seed.
    """
    _, owner = np.unique(subjects, return_inverse=True)
    count = int(owner.max()) + 1
    if count < 2:
        return None
    sums = np.bincount(owner, weights=values, minlength=count)
    sizes = np.bincount(owner, minlength=count).astype(float)
    times = times_drawn(count, seed)
    low, high = np.percentile((times @ sums) / (times @ sizes), [2.5, 97.5])
    return [float(low), float(high)]


@lru_cache(maxsize=8)
def times_drawn(count: int, seed: int) -> NDArray[np.float64]:
    """How often each of `count` subjects is drawn in each resample: (RESAMPLES, count)."""
    drawn = np.random.default_rng(seed).integers(0, count, size=(RESAMPLES, count))
    flat = (drawn + np.arange(RESAMPLES)[:, None] * count).ravel()
    return np.bincount(flat, minlength=RESAMPLES * count).reshape(RESAMPLES, count).astype(float)
