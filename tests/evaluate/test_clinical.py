"""Clinical measures by hand, their agreement against formulas written again, and who is left out."""

import math

import numpy as np
import pytest

from utseg.evaluate.clinical import agreement, clinical_measures, summarise_clinical

NAN = math.nan


def row(subject, phase, label, reference, prediction, vendor="A", case=None):
    return {
        "case": case or f"{subject}_{phase}",
        "subject": subject,
        "phase": phase,
        "vendor": vendor,
        "label_name": label,
        "reference_ml": reference,
        "prediction_ml": prediction,
    }


def heart(subject, scale=1.0, vendor="A"):
    volumes = {"LV": (150, 60), "MYO": (100, 101), "RV": (160, 80)}
    return [
        row(subject, phase, label, float(volume), volume * scale, vendor)
        for label, both in volumes.items()
        for phase, volume in zip(("ED", "ES"), both, strict=True)
    ]


def by_measure(rows, subject):
    return {found["measure"]: found for found in rows if found["subject"] == subject}


def test_measures_by_hand():
    found = clinical_measures(heart("a") + heart("b", 1.1, "B"), ("phase", "vendor"))
    reference = {name: found["reference"] for name, found in by_measure(found.rows, "a").items()}
    assert reference == pytest.approx(
        {
            "LV_EDV": 150,
            "LV_ESV": 60,
            "LV_SV": 90,
            "LV_EF": 60,
            "RV_EDV": 160,
            "RV_ESV": 80,
            "RV_SV": 80,
            "RV_EF": 50,
            "LV_mass": 105,
        }
    )
    second = by_measure(found.rows, "b")
    assert second["LV_EF"]["difference"] == pytest.approx(0) and second["LV_SV"][
        "difference"
    ] == pytest.approx(9)
    assert (second["LV_mass"]["unit"], second["LV_EF"]["unit"], second["LV_EDV"]["unit"]) == ("g", "%", "ml")
    assert second["LV_EDV"]["vendor"] == "B" and "phase" not in second["LV_EDV"]


def test_es_before_ed_is_the_same():
    rows = heart("a")
    one, other = (clinical_measures(own, ()).rows for own in (rows, rows[::-1]))
    key = {found["measure"]: found["reference"] for found in one}
    assert {found["measure"]: found["reference"] for found in other} == key


def test_who_is_left_out_is_named():
    rows = heart("a") + [r for r in heart("b") if r["phase"] == "ED"]
    rows += [*heart("c"), row("c", "ED", "LV", 1.0, 1.0, case="c_again")]
    found = clinical_measures(rows, ())
    assert (found.incomplete, found.ambiguous) == (["b"], ["c"])
    assert {r["subject"] for r in found.rows} == {"a"}
    summary = summarise_clinical(found, ())
    assert summary["subjects"] == 1 and summary["incomplete"] == ["b"]
    assert clinical_measures([row("a", "", "LV", 1.0, 1.0)], ()) is None
    assert clinical_measures([row("a", "ED", "anterior", 1.0, 1.0)], ()) is None


def test_a_missing_ventricle_has_no_ejection_fraction():
    rows = [r | {"prediction_ml": 0.0} if r["label_name"] == "LV" else r for r in heart("a")]
    found = clinical_measures(rows + heart("b"), ())
    assert math.isnan(by_measure(found.rows, "a")["LV_EF"]["prediction"])
    assert by_measure(found.rows, "a")["LV_EDV"]["difference"] == -150
    summary = summarise_clinical(found, ())["all"]
    assert (summary["LV_EF"]["n"], summary["LV_EF"]["undefined"]) == (1, 1) and summary["LV_EDV"]["n"] == 2


def test_what_the_reference_lacks_is_undefined_and_no_ejection_fraction_of_100():
    lacking = [
        r | {"reference_ml": 0.0} if (r["label_name"], r["phase"]) == ("RV", "ES") else r for r in heart("a")
    ]
    found = clinical_measures(lacking + heart("b"), ("phase",))
    assert math.isnan(by_measure(found.rows, "a")["RV_EF"]["reference"])
    summary = summarise_clinical(found, ("phase",))["all"]
    assert {key: (summary[key]["n"], summary[key]["undefined"]) for key in ("RV_EDV", "RV_ESV", "RV_EF")} == {
        "RV_EDV": (2, 0),
        "RV_ESV": (1, 1),
        "RV_EF": (1, 1),
    }
    assert summary["RV_EF"]["bias"] == 0


def test_agreement_against_scipy_and_bland_and_altman():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    reference = rng.normal(120, 30, 50)
    prediction = reference + rng.normal(3, 5, 50)
    found = agreement(np.r_[reference, NAN], np.r_[prediction, 1.0])
    difference = prediction - reference
    assert (found["n"], found["undefined"]) == (50, 1)
    assert found["bias"] == pytest.approx(difference.mean())
    sd = np.sqrt(((difference - difference.mean()) ** 2).sum() / 49)
    assert found["limits"] == pytest.approx([difference.mean() - 1.96 * sd, difference.mean() + 1.96 * sd])
    assert found["r"] == pytest.approx(stats.pearsonr(reference, prediction).statistic)
    low, high = found["bias_interval95"]
    assert low < difference.mean() < high and high - low == pytest.approx(
        2 * 1.96 * sd / np.sqrt(50), rel=0.15
    )
    covariance = np.cov(reference, prediction, ddof=0)
    assert found["ccc"] == pytest.approx(
        2 * covariance[0, 1] / (covariance[0, 0] + covariance[1, 1] + difference.mean() ** 2)
    )


def test_agreement_says_none_where_nothing_can_be_said():
    assert agreement(np.array([NAN]), np.array([1.0]))["bias"] is None
    one = agreement(np.array([2.0]), np.array([3.0]))
    assert (one["bias"], one["sd"], one["limits"], one["r"]) == (1, None, None, None)
    same = agreement(np.full(3, 2.0), np.full(3, 2.0))
    assert (same["bias"], same["sd"], same["r"], same["ccc"]) == (0, 0, None, None)
    perfect = agreement(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 4.0]))
    assert (perfect["r"], perfect["ccc"]) == pytest.approx((1, 1))
