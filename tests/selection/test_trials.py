"""Postprocessing is kept where it helps beyond noise, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utseg.evaluate.subjects import by_subject, mean_defined
from utseg.postprocess import FillHoles, KeepLargest, KeepLargestOfLabel, Postprocessing, postprocess
from utseg.selection.scores import dice_by_label
from utseg.selection.trials import OutOfFoldMask, choose_postprocessing

LABELS = {"background": 0, "LV": 1, "RV": 3}


def heart() -> np.ndarray:
    reference = np.zeros((3, 24, 24), np.uint8)
    reference[:, 4:12, 4:12] = 1
    reference[:, 4:12, 13:18] = 3
    return reference


def volumes(damage, subjects: int, every: int = 1) -> list[OutOfFoldMask]:
    """Two cases a subject; `damage` changes the mask of each `every`th subject."""
    made = []
    for number in range(subjects):
        for _ in range(2):
            mask = heart()
            if number % every == 0:
                damage(mask)
            made.append(OutOfFoldMask(f"s{number:02d}", mask, heart(), np.zeros(mask.shape, bool)))
    return made


def island(mask: np.ndarray) -> None:
    mask[1, 20:23, 20:23] = 1


def hole(mask: np.ndarray) -> None:
    mask[:, 7:9, 7:9] = 0


def test_everything_goes_first_and_must_not_cost_a_label():
    """LV and RV do not touch here: the largest component of everything is LV alone, which would lose RV."""
    found = choose_postprocessing(volumes(island, 12), LABELS)
    everything = found.trials[0]
    assert everything.rule == KeepLargest()
    assert everything.labels["RV"] == (1.0, 0.0)
    assert not everything.kept
    assert found.postprocessing == Postprocessing(rules=(KeepLargestOfLabel(label="LV"),))
    assert (found.dice_CL == 1).all()


def test_holes_are_filled_where_that_helps():
    found = choose_postprocessing(volumes(hole, 12), LABELS)
    assert found.postprocessing == Postprocessing(rules=(FillHoles(label="LV"),))
    trial = next(trial for trial in found.trials if trial.kept)
    assert trial.subjects_better == 12 and trial.subjects_worse == 0
    assert trial.gain > 0 and trial.interval95[0] > 0 and trial.p < 0.05


def test_what_helps_three_of_twelve_only_is_noise():
    found = choose_postprocessing(volumes(hole, 12, every=4), LABELS)
    assert found.postprocessing == Postprocessing()
    trial = next(trial for trial in found.trials if trial.rule == FillHoles(label="LV"))
    assert trial.gain > 0 and trial.subjects_better == 3 and not trial.kept
    assert trial.why


@pytest.mark.parametrize("subjects", [1, 5])
def test_few_subjects_cannot_tell(subjects):
    found = choose_postprocessing(volumes(hole, subjects), LABELS)
    assert found.postprocessing == Postprocessing()
    said = {trial.why for trial in found.trials if trial.cases_changed}
    assert said == {
        f"{subjects} subject{'s are' if subjects > 1 else ' is'} too few to tell whether it helps"
    }


def test_perfect_masks_need_nothing():
    found = choose_postprocessing(volumes(lambda mask: None, 10), LABELS)
    assert found.postprocessing == Postprocessing()
    assert [trial.rule for trial in found.trials if trial.cases_changed] == [KeepLargest()]


def test_the_order_is_everything_then_labels_then_holes():
    rules = [trial.rule.rule for trial in choose_postprocessing(volumes(lambda mask: None, 2), LABELS).trials]
    assert rules == [
        "keep_largest",
        *["keep_largest_of_label", "remove_islands"] * 2,
        *["fill_holes"] * 2,
    ]


def test_rules_are_tried_on_the_whole_mask_where_only_lines_are_annotated():
    """Components are those of the mask, and not of its annotated lines; else the largest one would be a line."""
    ignored_ZYX = np.ones(heart().shape, bool)
    ignored_ZYX[:, ::2] = False
    annotated = [
        replace(one, reference_ZYX=np.where(ignored_ZYX, 0, one.reference_ZYX), ignored_ZYX=ignored_ZYX)
        for one in volumes(island, 12)
    ]
    trials = choose_postprocessing(annotated, LABELS).trials
    (trial,) = [one for one in trials if one.rule == KeepLargestOfLabel(label="LV")]
    assert trial.kept and trial.gain > 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_the_scores_after_are_those_of_the_stored_rules(seed, subjects):
    rng = np.random.default_rng(seed)
    made = [
        OutOfFoldMask(
            f"s{number}",
            rng.choice([0, 1, 3], (2, 9, 8), p=[0.5, 0.3, 0.2]).astype(np.uint8),
            rng.choice([0, 1, 3], (2, 9, 8), p=[0.5, 0.3, 0.2]).astype(np.uint8),
            rng.random((2, 9, 8)) < 0.2,
        )
        for number in range(subjects)
    ]
    found = choose_postprocessing(made, LABELS)
    expected = [
        dice_by_label(postprocess(volume.mask_ZYX, found.postprocessing, LABELS), volume, LABELS)
        for volume in made
    ]
    np.testing.assert_array_equal(found.dice_CL, expected)
    assert tuple(trial.rule for trial in found.trials if trial.kept) == found.postprocessing.rules


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_subjects_count_the_same_however_many_cases_they_have(seed):
    rng = np.random.default_rng(seed)
    dice = np.where(rng.random((7, 3)) < 0.2, np.nan, rng.random((7, 3)))
    owners = rng.choice(["a", "b", "c"], 7)
    names, means = by_subject(mean_defined(dice, 1), owners)
    for name, mean in zip(names, means, strict=True):
        cases = [row[~np.isnan(row)].mean() for row in dice[owners == name] if not np.isnan(row).all()]
        assert np.isnan(mean) if not cases else mean == pytest.approx(np.mean(cases))
    assert np.isnan(mean_defined(np.array([np.nan]), axis=0))
