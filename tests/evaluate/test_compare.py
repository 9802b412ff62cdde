"""Comparing models: tests against scipy, Holm by hand, subjects as the unit, and nothing left out in silence."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utseg.errors import InputError
from utseg.evaluate.compare import compare_models, compare_pair, holm, paired_p, rank_biserial

stats = pytest.importorskip("scipy.stats")
LABELS = ("LV", "RV")


def rows(values, labels=LABELS, status="ok"):
    """values: (subjects, phases, labels) of one model."""
    return [
        {
            "case": f"s{s}_{phase}",
            "subject": f"s{s}",
            "vendor": "AB"[s % 2],
            "label_name": name,
            "dice": float(values[s, p, k]),
            "hd95_mm": 10 * (1 - float(values[s, p, k])),
            "status": status,
        }
        for s in range(len(values))
        for p, phase in enumerate(("ED", "ES"))
        for k, name in enumerate(labels)
    ]


@pytest.fixture
def three():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.7, 0.9, (20, 2, 2))
    better = base + rng.normal(0.03, 0.01, base.shape)
    like = base + rng.normal(0, 0.01, base.shape)
    return {"base": rows(base), "better": rows(better), "like": rows(like)}


def test_the_better_model_is_found_and_the_like_one_is_not(three):
    result = compare_models(three, columns=("vendor",))
    label = result["all"]["labels"]["LV"]
    pairs = {(pair["a"], pair["b"]): pair for pair in label["pairs"]}
    assert pairs["base", "better"]["significant"] and not pairs["base", "like"]["significant"]
    assert pairs["base", "better"]["difference"] == pytest.approx(-0.03, abs=0.005)
    low, high = pairs["base", "better"]["interval95"]
    assert low < pairs["base", "better"]["difference"] < high < 0
    assert label["best"] == "better" and label["best_is_significant"]
    assert pairs["base", "better"]["rank_biserial"] == -1 and pairs["base", "better"]["cohen_dz"] < -1
    assert (result["all"]["cases"], result["all"]["subjects"], pairs["base", "like"]["subjects"]) == (
        40,
        20,
        20,
    )
    assert set(result["groups"]["vendor"]) == {"A", "B"} and "mean" in result["all"]["labels"]
    distances = compare_models(three, metric="hd95_mm")
    assert not distances["higher_is_better"] and distances["all"]["labels"]["LV"]["best"] == "better"


def test_no_model_is_marked_where_the_best_is_not_significantly_so(three):
    result = compare_models({name: three[name] for name in ("base", "like")})
    for label in result["all"]["labels"].values():
        assert not label["best_is_significant"]


def test_twice_the_cases_of_a_subject_are_not_twice_the_evidence():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0.6, 0.9, (2, 8))
    once = compare_pair(a, b, np.arange(8).astype(str))
    twice = compare_pair(np.repeat(a, 2), np.repeat(b, 2), np.repeat(np.arange(8), 2).astype(str))
    assert twice["cases"] == 16
    assert {**once, "cases": 16} == twice


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1, 1).map(lambda v: round(v, 3)), min_size=2, max_size=10))
def test_the_exact_permutation_test_is_that_of_scipy(values):
    difference = np.array(values)
    expected = stats.permutation_test(
        (difference,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert paired_p(difference) == pytest.approx(expected)


def test_the_random_permutation_test_is_near_that_of_scipy_and_never_0():
    rng = np.random.default_rng(0)
    difference = rng.normal(0.4, 1, 40)
    expected = stats.permutation_test(
        (difference,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        rng=1,
    ).pvalue
    assert paired_p(difference) == pytest.approx(expected, abs=0.01)
    assert paired_p(np.full(40, 1.0)) == pytest.approx(1 / 10000)
    assert paired_p(np.zeros(5)) == 1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1, 1] and holm([]) == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_monotone_and_between_p_and_bonferroni(p_values):
    corrected = holm(p_values)
    for p, q in zip(p_values, corrected, strict=True):
        assert p <= q + 1e-15 and q <= min(1, len(p_values) * p) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(corrected)[order]) >= 0).all()


def test_rank_biserial_by_hand():
    assert rank_biserial(np.array([1.0, 2.0, -3.0, 0.0])) == pytest.approx((1 + 2 - 3) / 6)
    assert rank_biserial(np.array([1.0, 2.0])) == 1 and rank_biserial(np.zeros(3)) is None


def test_undefined_scores_are_counted_and_left_out():
    values = np.full((4, 2, 2), 0.8)
    a, b = rows(values), rows(values + np.arange(4)[:, None, None] / 100)
    a[0] |= {"dice": math.nan, "status": "both_empty"}
    label = compare_models({"a": a, "b": b})["all"]["labels"]["LV"]
    (pair,) = label["pairs"]
    assert (pair["cases"], pair["undefined"], pair["subjects"]) == (7, 1, 4)
    assert (
        label["models"]["a"]["cases"] == label["models"]["b"]["cases"] == 7
        and label["models"]["a"]["empty"]["both_empty"] == 1
    )
    nothing = [row | {"dice": math.nan} for row in a]
    label = compare_models({"a": nothing, "b": b})["all"]["labels"]["LV"]
    assert label["pairs"][0]["p"] is None and label["best"] is None and not label["best_is_significant"]


def test_models_scored_on_different_cases_are_refused(three):
    fewer = [row for row in three["like"] if row["case"] != "s3_ES"]
    with pytest.raises(InputError, match="like lacks s3_ES"):
        compare_models({"base": three["base"], "like": fewer})
    result = compare_models({"base": three["base"], "like": fewer}, only_common=True)
    assert result["left_out"] == {"like": ["s3_ES"]} and result["all"]["cases"] == 39
    with pytest.raises(InputError, match="metric 'reference_ml'"):
        compare_models(three, metric="reference_ml")


def test_false_alarms_are_as_rare_as_they_should_be():
    """Of comparisons of equals, Holm leaves about 5 % of groups with any difference called significant."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(60):
        noise = rng.normal(0.8, 0.05, (3, 10, 2, 1))
        models = {str(m): rows(noise[m], ("LV",)) for m in range(3)}
        pairs = compare_models(models)["all"]["labels"]["LV"]["pairs"]
        alarms += any(pair["significant"] for pair in pairs)
    assert alarms <= 9  # 60 × 5 % = 3 expected; 9 is beyond three standard deviations
