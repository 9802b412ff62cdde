"""Compares models that were scored on the same cases: who is better, by how much, and whether that can be chance.

The unit is the subject, with the mean over its cases. Means and differences are over the cases in which every model has a value. The
two-sided paired test is over all cases in which a structure is or was painted: one that a model missed, or painted where there is none,
counts as worse than any value, one that it rightly left out as the best. All or 9,999 random changes of sign of the subjects' differences
(Fisher; Phipson and Smyth 2010), of distances of their signed ranks (Wilcoxon: a miss has no length in mm); p after Holm (1979) over all
pairs and labels of one group. Effect sizes: Cohen's d_z and the matched-pairs rank-biserial correlation (Kerby 2014). DEFINITIONS.md says
when a model is better than another.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utseg.errors import InputError
from utseg.evaluate.metrics import EMPTIES, METRIC, Metric, Row
from utseg.evaluate.subjects import Floats, bootstrap_interval, mean_defined, statistics, subject_means
from utseg.evaluate.summary import STATUSES, by_value

OVER_LABELS = "mean"
"""Under this name: the mean over a case's labels, of those that are defined for all models."""
ALPHA = 0.05
LEAST_SUBJECTS = 6
"""With fewer it is a tie: no paired test can reach p < 0.05, and a bootstrap interval of two to five subjects leaves 0 out in 49 to 16 % of
comparisons of equals."""
EXACT_SUBJECTS = 13
RANDOM_FLIPS = 9999
TIE = "tie"
TOO_FEW = "too few subjects to tell"
NOT_COMPARABLE = "not comparable"
DISAGREE = "misses and mean disagree"
WRONG = (EMPTIES["missed"], EMPTIES["extra"])


def compare_models(
    scores_by_model: Mapping[str, Sequence[Row]],
    *,
    metric: str = "dice",
    columns: Sequence[str] = (),
    only_common: bool = False,
) -> dict[str, Any]:
    """Compares two models or more on one metric, over all cases and for each value of each group column.

    scores_by_model: for each model the rows of its `metrics.csv` (`read_metrics`). Returns {"metric", "higher_is_better", "models",
    "left_out" (cases that not all models have), "all": GROUP, "groups": {column: {value: GROUP}}}. A GROUP has "cases", "subjects" and
    under "labels", per label name and for "mean": "models": statistics of each over the cases in which all of them have a value (a model
    without any value takes no part), and its empties over all cases; "pairs": what `compare_pair` says of each two over these; "best": the
    model with the best of these means, None where one has none; "best_is_significant": whether it is better than every other.
    Raises InputError where the metric is not one to compare by, or the models were scored on different cases (unless `only_common`).
    """
    known = {key: one for key, one in METRIC.items() if one.better}
    if metric not in known:
        raise InputError(f"metric {metric!r}: models are compared by one of {', '.join(sorted(known))}")
    by = known[metric]
    cases = {name: {str(row["case"]) for row in rows} for name, rows in scores_by_model.items()}
    every, common = set().union(*cases.values()), set.intersection(*cases.values())
    left_out = {name: sorted(every - there) for name, there in cases.items() if every - there}
    if left_out and not only_common:
        shown = "; ".join(f"{name} lacks {', '.join(lacking)}" for name, lacking in left_out.items())
        raise InputError(
            f"the models were scored on different cases: {shown}; score the same, or compare only those in common"
        )
    models = {name: [row for row in rows if row["case"] in common] for name, rows in scores_by_model.items()}
    groups: dict[str, Any] = {column: {} for column in columns}
    for column, of_column in groups.items():
        for value, rows in by_value(next(iter(models.values())), column).items():
            chosen = {row["case"] for row in rows}
            of_column[value] = _of_group(
                {name: [row for row in some if row["case"] in chosen] for name, some in models.items()}, by
            )
    return {
        "metric": metric,
        "higher_is_better": by.better > 0,
        "models": list(models),
        "left_out": left_out,
        "all": _of_group(models, by),
        "groups": groups,
    }


def _of_group(models: Mapping[str, Sequence[Row]], metric: Metric) -> dict[str, Any]:
    first = next(iter(models.values()), [])
    subjects = {str(row["case"]): str(row["subject"]) for row in first}
    owners = np.array(list(subjects.values()))
    names = list(dict.fromkeys(str(row["label_name"]) for row in first))
    values, tested = _arrays(models, list(subjects), names, metric)
    labels: dict[str, Any] = {}
    for index, name in enumerate(names):
        labels[name] = _of_label(list(models), values[:, :, index], tested[:, :, index], owners, metric)
        for model, rows in models.items():
            found = [row["status"] for row in rows if row["label_name"] == name]
            labels[name]["models"][model]["empty"] = {status: found.count(status) for status in STATUSES}
    if len(names) > 1:
        mean, tested_mean = (mean_defined(_defined_for_all(every), 2) for every in (values, tested))
        labels[OVER_LABELS] = _of_label(list(models), mean, tested_mean, owners, metric)
    pairs = [pair for label in labels.values() for pair in label["pairs"] if pair["p"] is not None]
    for pair, p_holm in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = p_holm
        pair["significant"] = is_significant(p_holm, pair["subjects"], pair["agree"])
        if pair["significant"]:
            pair["better"] = pair["a" if (pair["difference"] > 0) is (metric.better > 0) else "b"]
    for label in labels.values():
        of_best = [pair for pair in label["pairs"] if label["best"] in (pair["a"], pair["b"])]
        label["best_is_significant"] = bool(of_best) and all(pair["significant"] for pair in of_best)
    return {"cases": len(subjects), "subjects": len(set(subjects.values())), "labels": labels}


def _arrays(
    models: Mapping[str, Sequence[Row]], cases: Sequence[str], names: Sequence[str], metric: Metric
) -> tuple[Floats, Floats]:
    """(models, cases, labels): the values, and with what empty structures count as in the test."""
    index = {key: number for number, key in enumerate(product(cases, names))}
    values = np.full((len(models), len(index)), np.nan)
    wrong, neither = np.zeros((2, *values.shape), bool)
    for m, rows in enumerate(models.values()):
        for row in rows:
            number = index.get((str(row["case"]), str(row["label_name"])))
            if number is not None:
                values[m, number] = row[metric.key]
                wrong[m, number] = row["status"] in WRONG
                neither[m, number] = row["status"] == EMPTIES["neither"]
    shape = len(models), len(cases), len(names)
    return values.reshape(shape), counted_in_test(values, wrong, neither, metric).reshape(shape)


def counted_in_test(
    values: Floats, wrong: NDArray[np.bool_], neither: NDArray[np.bool_], metric: Metric
) -> Floats:
    """Values (models, …) with what structures count as that are missed or extra, and that are rightly left out where another is wrong."""
    worst, best = metric.ends
    return np.where(wrong, worst, np.where(neither & wrong.any(axis=0), best, values))


def _defined_for_all(values: Floats) -> Floats:
    """The values (models, …) where all models have one that have any; NaN elsewhere."""
    missing = np.isnan(values)
    has_any = ~missing.reshape(len(values), -1).all(axis=1)
    return np.where(missing[has_any].any(axis=0) | ~has_any.any(), np.nan, values)


def _of_label(
    models: Sequence[str], values_MC: Floats, tested_MC: Floats, owners: NDArray[np.str_], metric: Metric
) -> dict[str, Any]:
    values_MC = _defined_for_all(values_MC)
    found = {model: statistics(values, owners) for model, values in zip(models, values_MC, strict=True)}
    means = {model: metric.better * some["mean"] for model, some in found.items() if some["mean"] is not None}
    pairs = [
        {"a": models[a], "b": models[b]}
        | compare_pair(
            *(values_MC[a], values_MC[b], owners), tested=(tested_MC[a], tested_MC[b]), ranked=metric.ranked
        )
        for a, b in combinations(range(len(models)), 2)
    ]
    best = max(means, key=lambda model: means[model]) if len(means) == len(models) else None
    return {"models": found, "pairs": pairs, "best": best}


def compare_pair(
    a_C: Floats,
    b_C: Floats,
    subjects_C: NDArray[np.str_],
    *,
    tested: tuple[Floats, Floats] | None = None,
    ranked: bool = False,
) -> dict[str, Any]:
    """Two models' scores (cases,) of the same cases, NaN where undefined.

    tested: the scores that the test and the effect sizes are of, where they are other ones (with what misses count as); ranked: the test
    is of the differences' ranks. "difference", "interval95", "means", "subjects" and "cases" are of the cases in which both have a value;
    "tested_subjects" counts those of the test; "agree": whether both have the same sign. p_holm, significant and better are for the
    caller to set. Without subjects all is None.
    """
    defined = ~(np.isnan(a_C) | np.isnan(b_C))
    difference_S = subject_means(a_C - b_C, subjects_C)
    tested_S = difference_S if tested is None else subject_means(tested[0] - tested[1], subjects_C)
    difference = float(difference_S.mean()) if len(difference_S) else None
    counted_S = signed_ranks(tested_S) if ranked else tested_S
    spread = float(difference_S.std(ddof=1)) if len(difference_S) > 1 else 0.0
    means = [
        float(subject_means(some[defined], subjects_C[defined]).mean())
        for some in (a_C, b_C)
        if defined.any()
    ]
    return {
        "cases": int(defined.sum()),
        "undefined": int((~defined).sum()),
        "subjects": len(difference_S),
        "means": means or None,
        "difference": difference,
        "interval95": bootstrap_interval(a_C - b_C, subjects_C),
        "tested_subjects": len(tested_S),
        "p": paired_p(counted_S) if len(tested_S) > 1 else None,
        "p_holm": None,
        "cohen_dz": difference / spread if difference is not None and spread > 0 else None,
        "rank_biserial": rank_biserial(tested_S),
        "agree": difference is not None and difference * float(counted_S.sum()) > 0,
        "significant": False,
        "better": None,
    }


def is_significant(p_holm: float | None, subjects: int, agree: bool) -> bool:
    """Whether one of a pair is better: by the corrected test, with subjects enough, and in the sense of the mean difference too."""
    return p_holm is not None and p_holm < ALPHA and subjects >= LEAST_SUBJECTS and agree


def why_none(difference: float | None, p_holm: float | None, subjects: int) -> str:
    """In words why none of a pair is better."""
    if difference is None:
        return NOT_COMPARABLE
    if subjects < LEAST_SUBJECTS:
        return TOO_FEW
    return DISAGREE if p_holm is not None and p_holm < ALPHA else TIE


def signed_ranks(difference_S: Floats) -> Floats:
    """Ranks of the differences' sizes, ties their mean, with the differences' signs; 0 for none (Wilcoxon 1945)."""
    from scipy.stats import rankdata

    ranks: Floats = np.zeros(len(difference_S))
    some = difference_S != 0
    ranks[some] = rankdata(np.abs(difference_S[some])) * np.sign(difference_S[some])
    return ranks


def paired_p(difference_S: Floats) -> float:
    """Two-sided p of the subjects' differences against none, by changes of sign. 1 where all are 0."""
    # scipy.stats.permutation_test says the same and takes 60 to 1,600 times as long: a report has hundreds of these
    if not difference_S.any():
        return 1.0
    signs = _signs(len(difference_S))
    seen = abs(float(difference_S.sum())) * (1 - 1e-12)
    as_extreme = int(np.count_nonzero(np.abs(signs @ difference_S) >= seen))
    exact = len(difference_S) <= EXACT_SUBJECTS
    return as_extreme / len(signs) if exact else (as_extreme + 1) / (len(signs) + 1)


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
    ranks = signed_ranks(difference_S)
    return float(ranks.sum() / np.abs(ranks).sum()) if ranks.any() else None


def holm(p_values: Sequence[float]) -> list[float]:
    """p corrected for multiple testing after Holm (Scand. J. Statistics 1979), in the order given."""
    # scipy has no such correction, and statsmodels would bring pandas for these lines
    count, order = len(p_values), np.argsort(p_values, kind="stable")
    raised = np.minimum(1.0, (count - np.arange(count)) * np.asarray(p_values, dtype=float)[order])
    corrected = np.empty(count)
    corrected[order] = np.maximum.accumulate(raised)
    return [float(p) for p in corrected]
