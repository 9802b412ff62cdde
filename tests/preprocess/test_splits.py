"""Folds and selections: what must hold for any cohort."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utseg.case import Case
from utseg.errors import ArtefactError, InputError, UsageError
from utseg.preprocess.splits import (
    check_splits,
    make_splits,
    read_splits,
    select_cases,
    splits_of_nnunet,
    write_splits,
)

cohorts = st.lists(
    st.tuples(st.sampled_from("ABCD"), st.sampled_from(["HCM", "DCM", "NOR", ""]), st.integers(1, 3)),
    min_size=1,
    max_size=60,
)


def make_cases(cohort):
    return [
        Case(
            f"s{i:02d}_{phase}",
            f"s{i:02d}",
            (),
            phase=f"{phase}",
            groups={"Vendor": vendor, "pathology": pathology},
        )
        for i, (vendor, pathology, phases) in enumerate(cohort)
        for phase in range(phases)
    ]


@given(cohorts, st.integers(0, 3))
def test_folds_are_of_subjects_even_and_stratified(cohort, seed):
    cases = make_cases(cohort)
    subjects = {case.subject for case in cases}
    splits = make_splits(cases, seed=seed)
    assert len(splits) == (min(5, len(subjects)) if len(subjects) > 1 else 0)
    validated = Counter(subject for split in splits for subject in split["validation"])
    if splits:
        assert validated == Counter(subjects)
    for split in splits:
        assert set(split["training"]) == subjects - set(split["validation"])
        assert split["training"] and split["validation"]
    vendor = {case.subject: (case.groups["Vendor"],) for case in cases}
    both = {case.subject: (case.groups["Vendor"], case.groups["pathology"]) for case in cases}
    for stratum in (dict.fromkeys(subjects, ()), vendor, both):
        counts = [Counter(stratum[subject] for subject in split["validation"]) for split in splits]
        for value in set(stratum.values()):
            per_fold = [count[value] for count in counts] or [0]
            assert max(per_fold) - min(per_fold) <= 1


@given(cohorts)
def test_the_order_of_cases_does_not_matter_but_the_seed_does(cohort):
    cases = make_cases(cohort)
    assert make_splits(cases) == make_splits(sorted(cases, key=lambda case: case.case_id[::-1]))


def test_another_seed_gives_other_folds():
    cases = make_cases([("A", "HCM", 2)] * 20)
    assert make_splits(cases, seed=0) != make_splits(cases, seed=1)


@given(cohorts, st.sampled_from(["vendor=A", "vendor=a,B", "vendor!=C", "Pathology=HCM", "phase=0", "all"]))
def test_selections_hold_a_fifth_of_their_subjects_back(cohort, selection):
    cases = make_cases(cohort)
    try:
        training, validation = select_cases(selection, cases, make_splits(cases))
    except (UsageError, InputError):
        return
    by_id = {case.case_id: case for case in cases}
    subjects = [{by_id[case_id].subject for case_id in ids} for ids in (training, validation)]
    assert not subjects[0] & subjects[1] and training == tuple(sorted(training))
    if selection == "all":
        assert set(training) == set(by_id) and validation == ()
        return
    total = len(subjects[0]) + len(subjects[1])
    assert len(subjects[1]) >= 1 and abs(len(subjects[1]) - total / 5) <= 1
    chosen = [by_id[case_id] for case_id in (*training, *validation)]
    wanted = {
        "vendor=A": lambda case: case.groups["Vendor"] == "A",
        "vendor=a,B": lambda case: case.groups["Vendor"] in "AB",
        "vendor!=C": lambda case: case.groups["Vendor"] != "C",
        "Pathology=HCM": lambda case: case.groups["pathology"] == "HCM",
        "phase=0": lambda case: case.phase == "0",
    }[selection]
    assert {case.case_id for case in cases if wanted(case)} == {case.case_id for case in chosen}
    assert select_cases(selection, cases, []) == (training, validation)


COHORT = make_cases([("A", "HCM", 2)] * 5 + [("B", "NOR", 2)] * 5)


def test_who_may_be_of_the_vendor_that_is_left_out_does_not_train_and_is_named(caplog):
    cases = make_cases([("A", "HCM", 1)] * 4 + [("C", "HCM", 1)] * 2 + [("", "HCM", 1)])
    training, validation = select_cases("vendor!=C", cases, [])
    assert {case.case_id for case in cases[:4]} == {*training, *validation}
    assert f"cases without Vendor, which may be of C, are left out: {cases[6].case_id}" in caplog.text


def test_a_fold_takes_its_subjects_with_all_phases():
    splits = make_splits(COHORT)
    training, validation = select_cases("fold3", COHORT, splits)
    assert {case_id[:3] for case_id in validation} == set(splits[3]["validation"])
    assert len(training) == 16 and len(validation) == 4


@pytest.mark.parametrize(
    ("selection", "error", "expected"),
    [
        ("fold5", UsageError, "fold0, fold1, fold2, fold3, fold4, all"),
        ("fold", UsageError, "nothing to train on"),
        ("fold00", UsageError, "nothing to train on"),  # fold0, which would then count twice
        ("hospital=3", UsageError, "Vendor, pathology, phase, subject"),
        ("vendor=Z", UsageError, "A (10 cases), B (10 cases)"),
        ("vendor=A,Z", UsageError, "no case has Z"),
        ("vendor!=A,B", UsageError, "leaves no case"),
        ("subject=s00", InputError, "only subject s00 is left"),
    ],
)
def test_what_is_not_there_is_an_error_that_lists_what_is(selection, error, expected):
    with pytest.raises(error) as raised:
        select_cases(selection, COHORT, make_splits(COHORT))
    assert expected in str(raised.value)


def test_one_subject_has_no_folds_but_can_be_trained_on():
    cases = make_cases([("A", "HCM", 2)])
    assert make_splits(cases) == []
    with pytest.raises(UsageError, match="at least two subjects"):
        select_cases("fold0", cases, [])
    assert select_cases("all", cases, []) == (("s00_0", "s00_1"), ())


def test_the_file_comes_back_and_is_checked(tmp_path):
    splits = make_splits(COHORT)
    write_splits(splits, tmp_path)
    assert read_splits(tmp_path) == splits
    check_splits(splits, [*COHORT, Case("new", "new", ())], tmp_path)
    with pytest.raises(
        InputError, match=r"splits.json: fold\d names subjects that the dataset does not have: s00"
    ):
        check_splits(splits, COHORT[2:], tmp_path)
    with pytest.raises(InputError, match="fold0 names subjects that are not preprocessed"):
        select_cases("fold0", COHORT[2:], splits)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"folds": []}, "expected a list of folds"),
        ([{"train": [], "val": []}], "fold0: expected"),
        ([{"training": ["a", 3], "validation": ["b"]}], "training: expected a list of subject names"),
        ([{"training": ["a"], "validation": []}], "validation: names no subject"),
        ([{"training": ["a", "b"], "validation": ["b"]}], "in training and in validation: b"),
    ],
)
def test_an_edited_file_that_is_wrong_is_refused(tmp_path, content, expected):
    (tmp_path / "splits.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as raised:
        read_splits(tmp_path)
    assert expected in str(raised.value) and "splits.json" in str(raised.value)


def test_no_file_is_an_error_that_says_what_makes_it(tmp_path):
    with pytest.raises(ArtefactError, match="run utseg_plan_and_preprocess first"):
        read_splits(tmp_path)


def test_nnunets_folds_of_cases_become_folds_of_subjects(tmp_path):
    cases = make_cases([("A", "", 2)] * 3)
    file = tmp_path / "splits_final.json"
    ids = [case.case_id for case in cases]
    file.write_text(json.dumps([{"train": ids[:4], "val": ids[4:]}, {"train": ids[2:], "val": ids[:2]}]))
    assert splits_of_nnunet(file, cases) == [
        {"training": ["s00", "s01"], "validation": ["s02"]},
        {"training": ["s01", "s02"], "validation": ["s00"]},
    ]


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ({}, "expected a list of folds"),
        ([["s00_0"]], r'fold0: expected \{"train"'),
        ([{"train": ["s00_0"]}], r'fold0: expected \{"train"'),
        ([{"train": ["s00_0"], "val": ["s09_0"]}], "fold0 names cases that the dataset does not have: s09_0"),
        (
            [{"train": ["s00_0", "s01_0"], "val": ["s01_1"]}],
            "in training and in validation: s01; move it away",
        ),
        ([{"train": ["s00_0"], "val": []}], "validation: names no subject"),
    ],
    ids=str,
)
def test_wrong_folds_of_nnunet_are_refused(tmp_path, folds, message):
    file = tmp_path / "splits_final.json"
    file.write_text(json.dumps(folds))
    with pytest.raises(InputError, match=message):
        splits_of_nnunet(file, make_cases([("A", "", 2)] * 3))
