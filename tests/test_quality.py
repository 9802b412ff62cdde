"""When a case is flagged, why, and what the table for people says."""

import csv

import numpy as np
import pytest
from hearts import LABELS, SPACING, heart

from utseg.quality import QUALITY_FILE, CaseQuality, QualitySettings, assess, worst_of_frames, write_table

SURE = np.array([1.0, 0.95, 0.9, 0.92])
NOBODY = np.full(4, np.nan)


def verdict(mask=None, expected=SURE, between=NOBODY, members=1, **settings) -> CaseQuality:
    mask = heart() if mask is None else mask
    return assess(
        mask, SPACING, LABELS, np.asarray(expected), np.asarray(between), members, QualitySettings(**settings)
    )


def test_a_case_that_is_well_is_not_flagged():
    quality = verdict()
    assert not quality.flagged
    assert quality.reasons == ()
    assert quality.predicted_dice == {"LV": 0.95, "MYO": 0.9, "RV": 0.92}
    assert set(quality.members_dice.values()) == {None}


def test_the_lower_of_both_dice_counts():
    quality = verdict(between=[1, 0.97, 0.6, 0.9], members=3)
    assert quality.predicted_dice == {"LV": 0.95, "MYO": 0.6, "RV": 0.9}
    assert quality.flagged
    assert quality.reasons == ("Dice of MYO is expected to be 0.60, below 0.7",)
    assert not verdict(between=[1, 0.97, 0.6, 0.9], members=3, dice_at_least=0.5).flagged


def test_a_label_that_is_missing_has_no_dice_but_a_flag():
    mask = heart()
    mask[mask == 3] = 0
    quality = verdict(mask, [1, 0.95, 0.9, np.nan], [1, 0.95, 0.9, 0.1], 2)
    assert quality.predicted_dice["RV"] is None
    assert quality.reasons == ("RV is missing, expected 8 to 450 ml",)


def test_a_cine_is_as_good_as_its_worst_frame():
    hole = heart()
    hole[4][hole[4] == 1] = 0
    frames = [verdict(), verdict(hole, [1, 0.7, 0.95, 0.99]), verdict(expected=[1, 0.99, 0.85, 0.9])]
    quality = worst_of_frames(frames)
    assert quality.predicted_dice == {"LV": 0.7, "MYO": 0.85, "RV": 0.9}
    assert quality.flagged
    assert quality.reasons == tuple(f"frame 1: {reason}" for reason in frames[1].reasons)
    assert {check.words.split(":")[0] for check in quality.checks if not check.passed} == {"frame 1"}
    assert len(quality.checks) == len(frames[0].checks)
    assert worst_of_frames(frames[:1]) is frames[0]


def test_the_table_shows_first_what_should_be_looked_at_first(tmp_path):
    cases = {
        "a_good": verdict(),
        "b_unknown": None,
        "c_bad": verdict(expected=[1, 0.65, 0.9, 0.9]),
        "d_worse": verdict(expected=[1, 0.9, 0.5, 0.68]),
        "e_middling": verdict(expected=[1, 0.85, 0.9, np.nan]),
    }
    write_table(cases, LABELS, tmp_path)
    with (tmp_path / QUALITY_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["d_worse", "c_bad", "e_middling", "a_good", "b_unknown"]
    assert [row["flagged"] for row in rows] == ["yes", "yes", "no", "no", ""]
    assert float(rows[0]["lowest_predicted_dice"]) == 0.5
    assert float(rows[0]["predicted_dice_RV"]) == 0.68
    assert rows[2]["predicted_dice_RV"] == ""
    assert rows[0]["reasons"].count(";") == 1


def test_settings_survive_json_and_refuse_what_is_no_share():
    from pydantic import ValidationError

    settings = QualitySettings(dice_at_least=0.75)
    assert QualitySettings.model_validate_json(settings.model_dump_json()) == settings
    assert CaseQuality.model_validate_json(verdict().model_dump_json()) == verdict()
    with pytest.raises(ValidationError):
        QualitySettings(dice_at_least=1.2)
