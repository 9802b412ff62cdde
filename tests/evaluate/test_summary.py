"""Statistics per label and group."""

import numpy as np
import pytest

from utseg.evaluate.subjects import bootstrap_interval, statistics
from utseg.evaluate.summary import summarise


def rows():
    dice = {("a", "ED"): 0.9, ("a", "ES"): 0.8, ("b", "ED"): float("nan"), ("b", "ES"): 0.0}
    status = {("b", "ED"): "both_empty", ("b", "ES"): "prediction_empty"}
    return [
        {
            "case": f"{subject}_{phase}",
            "subject": subject,
            "vendor": {"a": "A", "b": "B"}[subject],
            "label_name": "LV",
            "dice": value,
            "hd95_mm": value * 10,
            "assd_mm": value,
            "difference_ml": 1.0,
            "status": status.get((subject, phase), "ok"),
        }
        for (subject, phase), value in dice.items()
    ]


def test_undefined_values_are_counted_and_never_averaged():
    summary = summarise(rows(), ["vendor"])
    label = summary["all"]["labels"]["LV"]
    assert (label["dice"]["n"], label["dice"]["cases"], label["dice"]["undefined"]) == (2, 3, 1)
    assert label["dice"]["mean"] == pytest.approx(((0.9 + 0.8) / 2 + 0) / 2)  # over subjects, not cases
    assert summary["all"]["mean_dice"] == label["dice"]["mean"] and summary["unit"] == "subjects"
    assert label["empty"] == {"both_empty": 1, "prediction_empty": 1, "reference_empty": 0}
    assert summary["groups"]["vendor"]["A"]["labels"]["LV"]["dice"]["mean"] == pytest.approx(0.85)
    assert summary["groups"]["vendor"]["A"]["subjects"] == 1 and summary["all"]["cases"] == 4


def test_without_any_defined_value_all_is_none():
    assert statistics(np.array([np.nan]), np.array(["a"]))["mean"] is None


def test_interval_is_over_subjects_and_not_over_cases():
    values = np.array([0.1, 0.9] * 20)
    subjects = np.array(
        [f"s{i // 2}" for i in range(40)]
    )  # every subject has the same mean: no spread between subjects
    low, high = bootstrap_interval(values, subjects)
    assert low == pytest.approx(0.5) and high == pytest.approx(0.5)
    low, high = bootstrap_interval(values, np.arange(40).astype(str))
    assert high - low > 0.1


def test_interval_covers_the_normal_one():
    values = np.random.default_rng(1).normal(0.8, 0.1, 400)
    low, high = bootstrap_interval(values, np.arange(400).astype(str))
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=0.003) and high == pytest.approx(
        values.mean() + half, abs=0.003
    )
    assert bootstrap_interval(values[:3], np.array(["a"] * 3)) is None
