"""Compares models that were scored on the same cases: who is better, by how much, and whether that can be chance.

The unit is the subject: of each subject the mean over its cases (ED and ES of one heart belong together). For each label and group:

- means, and for each pair of models the mean difference with its bootstrap 95 % interval: all over the cases in which every model has a
  value, so that the difference of two means is the mean difference;
- a two-sided paired test over all cases in which a structure is or was painted. A structure that a model missed, or painted where there
  is none, counts as worse than any value, one that it rightly left out as the best. Overlaps: `permutation`, all or 9,999 random changes
  of sign of the subjects' differences, statistic their mean (Fisher; p with 1 added to both counts where it is random, Phipson and Smyth
  2010). Distances: the same of the differences' signed ranks (Wilcoxon's statistic), for a miss has no length in mm. `wilcoxon`: the
  signed-rank test of scipy for both;
- p corrected after Holm (1979) over all pairs and labels of one group;
- effect sizes: Cohen's d_z (mean / sd of the differences) and the matched-pairs rank-biserial correlation (Kerby 2014), of what is tested.

A model is better than another where the corrected p is below 0.05, there are at least six subjects, and the mean difference and the test
agree in the sign: fewer misses at longer distances, or the reverse, make nobody better. Nothing is read, written or drawn here.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations, product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from utseg.errors import InputError
from utseg.evaluate.metrics import EMPTIES, METRIC, Metric, Row
from utseg.evaluate.subjects import Floats, bootstrap_interval, mean_defined, statistics, subject_means
from utseg.evaluate.summary import STATUSES, by_value

Test = Literal["permutation", "wilcoxon"]
COMPARISON_FORMAT = "utseg-comparison-1"
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
    test: Test = "permutation",
    only_common: bool = False,
) -> dict[str, Any]:
    """Compares two models or more on one metric, over all cases and for each value of each group column.

    scores_by_model: for each model the rows of its `metrics.csv` (`read_metrics`). Returns {"format", "metric", "higher_is_better", "test",
    "correction", "models", "left_out" (cases that not all models have), "all": GROUP, "groups": {column: {value: GROUP}}}. A GROUP has
    "cases", "subjects" and under "labels", per label name and for "mean": "models": statistics of each over the cases in which all of them
    have a value (a model without any value takes no part), and its empties over all cases; "pairs": what `compare_pair` says of each two
    over these; "best": the model with the best of these means, None where one has none; "best_is_significant": whether it is better than
    every other.
    Raises InputError where the metric is not one to compare by, or the models were scored on different cases (unless `only_common`).
    """
    known = {key: one for key, one in METRIC.items() if one.better}
    if metric not in known:
        raise InputError(f"metric {metric!r}: models are compared by one of {', '.join(sorted(known))}")
    by = known[metric]
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
            groups[column][value] = _of_group(chosen, by, test)
    return {
        "format": COMPARISON_FORMAT,
        "metric": metric,
        "higher_is_better": by.better > 0,
        "test": test,
        "correction": "holm",
        "models": list(models),
        "left_out": left_out,
        "all": _of_group(models, by, test),
        "groups": groups,
    }


def _left_out(models: Mapping[str, Sequence[Row]]) -> dict[str, list[str]]:
    there = {name: {str(row["case"]) for row in rows} for name, rows in models.items()}
    every = set().union(*there.values()) if there else set()
    return {name: sorted(every - cases) for name, cases in there.items() if every - cases}


def _of_group(models: Mapping[str, Sequence[Row]], metric: Metric, test: Test) -> dict[str, Any]:
    first = next(iter(models.values()), [])
    subjects = {str(row["case"]): str(row["subject"]) for row in first}
    names = list(dict.fromkeys(str(row["label_name"]) for row in first))
    values, tested = _arrays(models, list(subjects), names, metric)
    owners = np.array(list(subjects.values()))
    labels: dict[str, Any] = {}
    for place, name in enumerate(names):
        own, counting = ({m: of[:, place] for m, of in every.items()} for every in (values, tested))
        labels[name] = _of_label(own, counting, owners, metric, test)
        for model, rows in models.items():
            found = [row["status"] for row in rows if row["label_name"] == name]
            labels[name]["models"][model]["empty"] = {status: found.count(status) for status in STATUSES}
    if len(names) > 1:
        labels[OVER_LABELS] = _of_label(_over_labels(values), _over_labels(tested), owners, metric, test)
    pairs = [pair for label in labels.values() for pair in label["pairs"] if pair["p"] is not None]
    for pair, p_holm in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = p_holm
        pair["significant"] = is_significant(p_holm, pair["subjects"], pair["agree"])
        if pair["significant"]:
            pair["better"] = pair["a" if (pair["difference"] > 0) is (metric.better > 0) else "b"]
    for label in labels.values():
        label["best_is_significant"] = _best_is_significant(label)
    return {"cases": len(subjects), "subjects": len(set(subjects.values())), "labels": labels}


def _arrays(
    models: Mapping[str, Sequence[Row]], cases: Sequence[str], names: Sequence[str], metric: Metric
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """By model (cases, labels): the values, and with what empty structures count as in the test."""
    place_of = {key: place for place, key in enumerate(product(cases, names))}
    values = np.full((len(models), len(place_of)), np.nan)
    wrong, neither = np.zeros((2, *values.shape), bool)
    for m, rows in enumerate(models.values()):
        for row in rows:
            place = place_of.get((str(row["case"]), str(row["label_name"])))
            if place is not None:
                values[m, place] = row[metric.key]
                wrong[m, place] = row["status"] in WRONG
                neither[m, place] = row["status"] == EMPTIES["neither"]
    shape = len(cases), len(names)
    by_model, tested = (
        {model: of.reshape(shape) for model, of in zip(models, every, strict=True)}
        for every in (values, counted_in_test(values, wrong, neither, metric))
    )
    return by_model, tested


def counted_in_test(
    values: Floats, wrong: NDArray[np.bool_], neither: NDArray[np.bool_], metric: Metric
) -> Floats:
    """Values (models, …) with what structures count as that are missed or extra, and that are rightly left out where another is wrong."""
    worst, best = metric.ends
    return np.where(wrong, worst, np.where(neither & wrong.any(axis=0), best, values))


def _defined_for_all(values: Mapping[str, Floats]) -> NDArray[np.bool_]:
    """Where all models have a value that have any."""
    taking_part = [own for own in values.values() if not np.isnan(own).all()]
    if not taking_part:
        return np.zeros(next(iter(values.values())).shape, dtype=bool)
    return np.asarray(~np.isnan(taking_part).any(axis=0))


def _over_labels(values: Mapping[str, Floats]) -> dict[str, Floats]:
    """Of each model the mean over a case's labels, of those in which all models have a value."""
    defined = _defined_for_all(values)
    return {model: mean_defined(np.where(defined, own, np.nan), 1) for model, own in values.items()}


def _of_label(
    values: Mapping[str, Floats],
    tested: Mapping[str, Floats],
    owners: NDArray[np.str_],
    metric: Metric,
    test: Test,
) -> dict[str, Any]:
    for_all = _defined_for_all(values)
    values = {model: np.where(for_all, own, np.nan) for model, own in values.items()}
    found = {model: statistics(own, owners) for model, own in values.items()}
    means = {model: own["mean"] for model, own in found.items() if own["mean"] is not None}
    best = means if len(means) == len(values) else {}
    choose = max if metric.better > 0 else min
    return {
        "models": found,
        "pairs": [
            {"a": a, "b": b}
            | compare_pair(
                values[a], values[b], owners, test, tested=(tested[a], tested[b]), ranked=metric.ranked
            )
            for a, b in combinations(values, 2)
        ],
        "best": choose(best, key=lambda model: best[model]) if best else None,
    }


def _best_is_significant(label: Mapping[str, Any]) -> bool:
    best = label["best"]
    own = [pair for pair in label["pairs"] if best in (pair["a"], pair["b"])]
    return bool(own) and all(pair["significant"] for pair in own)


def compare_pair(
    a_C: Floats,
    b_C: Floats,
    subjects_C: NDArray[np.str_],
    test: Test = "permutation",
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
    apart_S = signed_ranks(tested_S) if ranked else tested_S
    spread = float(difference_S.std(ddof=1)) if len(difference_S) > 1 else 0.0
    return {
        "cases": int(defined.sum()),
        "undefined": int((~defined).sum()),
        "subjects": len(difference_S),
        "means": [float(subject_means(own[defined], subjects_C[defined]).mean()) for own in (a_C, b_C)]
        if defined.any()
        else None,
        "difference": difference,
        "interval95": bootstrap_interval(a_C - b_C, subjects_C),
        "tested_subjects": len(tested_S),
        "p": paired_p(apart_S, test) if len(tested_S) > 1 else None,
        "p_holm": None,
        "cohen_dz": difference / spread if difference is not None and spread > 0 else None,
        "rank_biserial": rank_biserial(tested_S),
        "agree": difference is not None and difference * float(apart_S.sum()) > 0,
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
    apart = difference_S != 0
    ranks[apart] = rankdata(np.abs(difference_S[apart])) * np.sign(difference_S[apart])
    return ranks


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
    ranks = signed_ranks(difference_S)
    return float(ranks.sum() / np.abs(ranks).sum()) if ranks.any() else None


def holm(p_values: Sequence[float]) -> list[float]:
    """p corrected for multiple testing after Holm (Scand. J. Statistics 1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    largest = 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = largest
    return [float(p) for p in corrected]
