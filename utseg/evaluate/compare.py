"""Compares models that were scored on the same cases: who is better, by how much, and whether that can be chance.

The unit is the subject: of each subject the mean difference over its cases (ED and ES of one heart belong together). A case counts where
the score is defined for both models; how many are not is said beside it. For each pair of models, label and group:

- the mean difference over subjects with its bootstrap 95 % interval;
- a two-sided paired test: `permutation`, all or 9,999 random changes of sign of the subjects' differences, statistic their mean
  (Fisher; p with 1 added to both counts where it is random, Phipson and Smyth 2010), or `wilcoxon`, the signed-rank test of scipy;
- p corrected after Holm (1979) over all pairs and labels of one group;
- effect sizes: Cohen's d_z (mean / sd of the differences) and the matched-pairs rank-biserial correlation (Kerby 2014).

Nothing is read, written or drawn here.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from utseg.errors import InputError
from utseg.evaluate.intervals import bootstrap_interval, statistics
from utseg.evaluate.summary import STATUSES, Row, by_value

Test = Literal["permutation", "wilcoxon"]
COMPARISON_FORMAT = "utseg-comparison-1"
HIGHER_IS_BETTER = frozenset({"dice", "jaccard", "precision", "recall", "surface_dice", "slice_dice"})
LOWER_IS_BETTER = frozenset({"hd95_mm", "hd_mm", "assd_mm", "masd_mm", "slice_hd95_mm"})
OVER_LABELS = "mean"
"""Under this name: the mean over a case's labels, of those that are defined for all models."""
ALPHA = 0.05
LEAST_SUBJECTS = 6
"""With fewer it is a tie: no paired test can reach p < 0.05, and a bootstrap interval of two to five subjects leaves 0 out in 49 to 16 % of
comparisons of equals."""
EXACT_SUBJECTS = 13
RANDOM_FLIPS = 9999
Cells = dict[tuple[str, str], float]


def compare_models(
    scores_by_model: Mapping[str, Sequence[Row]],
    *,
    metric: str = "dice",
    columns: Sequence[str] = (),
    test: Test = "permutation",
    only_common: bool = False,
) -> dict[str, Any]:
    """Compares two models or more on one metric, over all cases and for each value of each group column.

    scores_by_model: for each model the rows of its `metrics.csv` (`read_metrics`). Returns {"format", "metric", "higher_is_better", "test",
    "correction", "models", "left_out" (cases that not all models have), "all": GROUP, "groups": {column: {value: GROUP}}}. A GROUP has
    "cases", "subjects" and under "labels", per label name and for "mean": "models": statistics and empties of each; "pairs": what
    `compare_pair` says of each two; "best": the model with the best mean over the cases that are defined for all; "best_is_significant":
    whether it is better than every other by the corrected test.
    Raises InputError where the metric is not one to compare by, or the models were scored on different cases (unless `only_common`).
    """
    if metric not in HIGHER_IS_BETTER | LOWER_IS_BETTER:
        known = ", ".join(sorted(HIGHER_IS_BETTER | LOWER_IS_BETTER))
        raise InputError(f"metric {metric!r}: models are compared by one of {known}")
    models = {name: list(rows) for name, rows in scores_by_model.items()}
    left_out = _left_out(models)
    if left_out and not only_common:
        shown = "; ".join(f"{name} lacks {', '.join(cases)}" for name, cases in left_out.items())
        raise InputError(
            f"the models were scored on different cases: {shown}; score the same, or compare only those in common"
        )
    lacking = {case for cases in left_out.values() for case in cases}
    models = {name: [row for row in rows if row["case"] not in lacking] for name, rows in models.items()}
    first = next(iter(models.values()), [])
    groups: dict[str, Any] = {}
    for column in columns:
        groups[column] = {}
        for value, own in by_value(first, column).items():
            cases = {row["case"] for row in own}
            chosen = {name: [row for row in rows if row["case"] in cases] for name, rows in models.items()}
            groups[column][value] = _of_group(chosen, metric, test)
    return {
        "format": COMPARISON_FORMAT,
        "metric": metric,
        "higher_is_better": metric in HIGHER_IS_BETTER,
        "test": test,
        "correction": "holm",
        "models": list(models),
        "left_out": left_out,
        "all": _of_group(models, metric, test),
        "groups": groups,
    }


def _left_out(models: Mapping[str, Sequence[Row]]) -> dict[str, list[str]]:
    there = {name: {str(row["case"]) for row in rows} for name, rows in models.items()}
    every = set().union(*there.values()) if there else set()
    return {name: sorted(every - cases) for name, cases in there.items() if every - cases}


def _of_group(models: Mapping[str, Sequence[Row]], metric: str, test: Test) -> dict[str, Any]:
    first = next(iter(models.values()), [])
    subjects = {str(row["case"]): str(row["subject"]) for row in first}
    names = list(dict.fromkeys(str(row["label_name"]) for row in first))
    cells = {model: _cells(rows, metric) for model, rows in models.items()}
    labels: dict[str, Any] = {name: _of_label(cells, subjects, name, metric, test) for name in names}
    for name in names:
        for model, rows in models.items():
            own = [row["status"] for row in rows if row["label_name"] == name]
            labels[name]["models"][model]["empty"] = {status: own.count(status) for status in STATUSES}
    if len(names) > 1:
        over = {model: _over_labels(model, cells, subjects, names) for model in cells}
        labels[OVER_LABELS] = _of_label(over, subjects, OVER_LABELS, metric, test)
    pairs = [pair for label in labels.values() for pair in label["pairs"]]
    tested = [pair for pair in pairs if pair["p"] is not None]
    for pair, p_holm in zip(tested, holm([pair["p"] for pair in tested]), strict=True):
        pair["p_holm"] = p_holm
        pair["significant"] = p_holm < ALPHA
    for label in labels.values():
        label["best_is_significant"] = _best_is_significant(label)
    return {"cases": len(subjects), "subjects": len(set(subjects.values())), "labels": labels}


def _cells(rows: Sequence[Row], metric: str) -> Cells:
    return {(str(row["case"]), str(row["label_name"])): float(row[metric]) for row in rows}


def _over_labels(
    model: str, cells: Mapping[str, Cells], subjects: Mapping[str, str], names: Sequence[str]
) -> Cells:
    means: Cells = {}
    for case in subjects:
        defined = [
            name
            for name in names
            if not any(np.isnan(own.get((case, name), np.nan)) for own in cells.values())
        ]
        values = [cells[model][case, name] for name in defined]
        means[case, OVER_LABELS] = sum(values) / len(values) if values else float("nan")
    return means


def _of_label(
    cells: Mapping[str, Cells], subjects: Mapping[str, str], name: str, metric: str, test: Test
) -> dict[str, Any]:
    owners = np.array(list(subjects.values()))
    values = {
        model: np.array([own.get((case, name), np.nan) for case in subjects], dtype=float)
        for model, own in cells.items()
    }
    found = {model: statistics(own, owners) for model, own in values.items()}
    for_all = ~np.isnan(list(values.values())).any(axis=0)
    means = {model: float(own[for_all].mean()) for model, own in values.items()} if for_all.any() else {}
    choose = max if metric in HIGHER_IS_BETTER else min
    return {
        "models": found,
        "pairs": [
            {"a": a, "b": b, **compare_pair(values[a], values[b], owners, test)}
            for a, b in combinations(values, 2)
        ],
        "best": choose(means, key=lambda model: means[model]) if means else None,
    }


def _best_is_significant(label: Mapping[str, Any]) -> bool:
    best = label["best"]
    own = [pair for pair in label["pairs"] if best in (pair["a"], pair["b"])]
    return bool(own) and all(pair["significant"] for pair in own)


def compare_pair(
    a_C: NDArray[np.float64],
    b_C: NDArray[np.float64],
    subjects_C: NDArray[np.str_],
    test: Test = "permutation",
) -> dict[str, Any]:
    """Two models' scores (cases,) of the same cases. p_holm and significant are for the caller to set; without subjects all is None."""
    defined = ~(np.isnan(a_C) | np.isnan(b_C))
    result: dict[str, Any] = {
        "cases": int(defined.sum()),
        "undefined": int((~defined).sum()),
        "subjects": 0,
        **dict.fromkeys(("difference", "interval95", "p", "p_holm", "cohen_dz", "rank_biserial")),
        "significant": False,
    }
    if not defined.any():
        return result
    names, owner = np.unique(subjects_C[defined], return_inverse=True)
    difference_S = np.bincount(owner, weights=(a_C - b_C)[defined]) / np.bincount(owner)
    n = len(names)
    spread = float(difference_S.std(ddof=1)) if n > 1 else 0.0
    difference = float(difference_S.mean())
    return result | {
        "subjects": n,
        "difference": difference,
        "interval95": bootstrap_interval(difference_S, names),
        "p": paired_p(difference_S, test) if n > 1 else None,
        "cohen_dz": difference / spread if spread > 0 else None,
        "rank_biserial": rank_biserial(difference_S),
    }


def paired_p(difference_S: NDArray[np.float64], test: Test) -> float:
    """Two-sided p of the subjects' differences against none. 1 where all are 0."""
    if not difference_S.any():
        return 1.0
    if test == "wilcoxon":
        from scipy.stats import wilcoxon

        return float(wilcoxon(difference_S).pvalue)
    n = len(difference_S)
    signs = _signs(n)
    seen = abs(float(difference_S.sum())) * (1 - 1e-12)
    as_extreme = int(np.count_nonzero(np.abs(signs @ difference_S) >= seen))
    return as_extreme / len(signs) if n <= EXACT_SUBJECTS else (as_extreme + 1) / (len(signs) + 1)


@lru_cache(maxsize=2)
def _signs(count: int) -> NDArray[np.float64]:
    """Changes of sign (flips, subjects): all of them where that is not too many, else random ones."""
    if count <= EXACT_SUBJECTS:
        flips = np.arange(2**count)[:, None] >> np.arange(count) & 1
    else:
        flips = np.random.default_rng(0).integers(0, 2, (RANDOM_FLIPS, count))
    return np.asarray(1.0 - 2.0 * flips, dtype=np.float64)


def rank_biserial(difference_S: NDArray[np.float64]) -> float | None:
    """Matched-pairs rank-biserial correlation: (ranks in favour − against) / all, of the differences that are not 0. None without any."""
    from scipy.stats import rankdata

    apart = difference_S[difference_S != 0]
    if not len(apart):
        return None
    ranks = rankdata(np.abs(apart))
    return float((ranks @ np.sign(apart)) / ranks.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """p corrected for multiple testing after Holm (Scand. J. Statistics 1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    largest = 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = largest
    return [float(p) for p in corrected]
