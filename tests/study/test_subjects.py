"""Who trains, validates and is tested: nobody twice, everybody somewhere, for any cohort."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_studies import cohort, cohorts, make_dataset

from utseg.errors import InputError
from utseg.study.definition import parse_definition
from utseg.study.record import Subjects
from utseg.study.subjects import check_disjoint, held_out_cases, stratified_order, training_sets

BY = "vendor"


def sets_of(dataset, text, held=()):
    definition = parse_definition(f'name = "x"\n[train]\n{text}', "x")
    return training_sets(definition, dataset, held, "x")[0]


def names(cases):
    return {case.subject for case in cases}


@given(cohorts(), st.integers(0, 1))
@settings(max_examples=25, deadline=None)
def test_each_value_makes_a_set_and_together_is_their_union(dataset, fold):
    sets = sets_of(dataset, f'each = "vendor"\ntogether = true\nfolds = [{fold}]')
    vendors = sorted({case.groups["vendor"] for case in dataset.training_cases()})
    alone = [one for one in sets if "," not in one.name]
    assert [one.name for one in alone] == [f"vendor={vendor}" for vendor in vendors]
    for one, vendor in zip(alone, vendors, strict=True):
        assert {case.groups["vendor"] for case in one.cases} == {vendor}
    if len(vendors) > 1:
        assert names(sets[-1].cases) == set().union(*(names(one.cases) for one in alone))
        assert len(sets) == len(vendors) + 1
    for one in sets:
        assert set(one.training).isdisjoint(one.validation) and one.training and one.validation
        assert {*one.training, *one.validation} == names(one.cases)
        assert {case.partition for case in one.cases} == {"training"}


@pytest.mark.parametrize("train", ['each = "vendor"\ntogether = true', 'leave_out = "vendor"'])
def test_who_may_be_of_any_vendor_is_in_no_set_that_is_made_by_it_and_is_named(train):
    unknown = make_dataset("MnM", [*((vendor, "training") for vendor in "AAABBB"), ("", "training")])
    (left,) = {case.subject for case in unknown.cases if "vendor" not in case.groups}
    definition = parse_definition(f'name = "x"\n[train]\n{train}', "x")
    sets, remarks = training_sets(definition, unknown, (), "x")
    assert sets and all(left not in names(one.cases) for one in sets)
    assert remarks == [f"subjects without vendor are in no training set that is made by it: {left}"]


@given(cohorts())
@settings(max_examples=25, deadline=None)
def test_leaving_one_out_trains_on_all_others_and_nobody_else(dataset):
    vendors = {case.groups["vendor"] for case in dataset.training_cases()}
    if len(vendors) < 2:
        with pytest.raises(InputError, match="nobody is left"):
            sets_of(dataset, 'leave_out = "vendor"')
        return
    for one in sets_of(dataset, 'leave_out = "vendor"'):
        left = one.name.removeprefix("vendor!=")
        assert {case.groups["vendor"] for case in one.cases} == vendors - {left}
        assert set(one.left_out).isdisjoint(names(one.cases))
        assert {*one.left_out, *names(one.cases)} == names(dataset.training_cases())


@given(cohorts(least_training=8), st.lists(st.integers(2, 12), min_size=1, max_size=4, unique=True))
@settings(max_examples=25, deadline=None)
def test_a_learning_curve_is_nested_and_stratified(dataset, sizes):
    sets = sets_of(dataset, f"subjects = {sizes}")
    there = len(names(dataset.training_cases()))
    assert [len(names(one.cases)) for one in sets] == [*sorted(size for size in sizes if size < there), there]
    for small, large in pairwise(sets):
        assert names(small.cases) < names(large.cases)
    whole = Counter(case.groups["vendor"] for case in dataset.training_cases())
    for one in sets:
        found = Counter(case.groups["vendor"] for case in one.cases)
        share = len(one.cases) / len(sets[-1].cases)
        for (
            vendor,
            count,
        ) in whole.items():  # strata are vendors and pathologies: each is off by less than one subject
            assert abs(found[vendor] - share * count) <= 2 * 3 * 2


@given(cohorts(testing=False), st.floats(0.05, 0.5))
@settings(max_examples=25, deadline=None)
def test_without_a_testing_partition_a_share_of_every_vendor_is_set_aside(dataset, share):
    held = held_out_cases(dataset, BY, share, "x")
    assert names(held) == names(held_out_cases(dataset, BY, share, "x"))
    of_vendor = {case.subject: case.groups["vendor"] for case in dataset.training_cases()}
    taken, there = Counter(of_vendor[subject] for subject in names(held)), Counter(of_vendor.values())
    for vendor, count in there.items():
        assert taken[vendor] == (max(1, round(share * count)) if count > 1 else 0)
    one = sets_of(dataset, "", names(held))[0]
    assert names(one.cases).isdisjoint(names(held))
    assert names(one.cases) | names(held) == set(of_vendor)


def test_a_testing_partition_is_used_whole_and_its_unlabelled_cases_are_not():
    subjects = [("A", "training")] * 4 + [("C", "testing"), ("D", "validation"), ("C", "testing", False)]
    dataset = make_dataset("MnM", subjects)
    assert names(held_out_cases(dataset, BY, 0.2, "x")) == {"MnM004", "MnM005"}


def test_a_subject_in_two_partitions_is_refused():
    dataset = cohort("AAAA", "B")
    twin = next(case for case in dataset.cases if case.subject == "MnM000")
    cases = (*dataset.cases, type(twin)(**{**vars(twin), "case_id": "twin", "partition": "testing"}))
    with pytest.raises(InputError, match="MnM000"):
        held_out_cases(type(dataset)(**{**vars(dataset), "cases": cases}), BY, 0.2, "x")


@pytest.mark.parametrize(
    ("training", "text", "words"),
    [
        ("AAAA", 'selections = ["vendor=C"]', "train.selections.0: vendor: no case has C"),
        ("AAAA", 'selections = ["fold0"]', "train.folds"),
        (
            "AAAA",
            'each = "centre"',
            "train.each: no labelled case has a 'centre'; columns there are: .*vendor",
        ),
        ("AAAA", 'leave_out = "vendor"', "train.leave_out: .* one vendor only"),
        ("AAAB", 'each = "vendor"', "vendor=B: only subject MnM003 is left"),
        ("AAAA", "folds = [7]", "train.folds: all has 4 folds, 0 … 3; found 7"),
        ("", "", "no labelled subject of MnM is left"),
    ],
)
def test_an_impossible_selection_names_its_key(training, text, words):
    with pytest.raises(InputError, match=words) as error:
        sets_of(cohort(training, "ABCD"), text)
    assert str(error.value).startswith("x: train")


def test_a_planted_overlap_is_refused_whichever_sides_it_is_on():
    sides = {"training": ("a", "b"), "validation": ("c",), "testing": ("d",)}
    make = lambda **sides: Subjects(  # noqa: E731
        training=sides["training"], validation=sides["validation"], testing={"MnM": sides["testing"]}
    )
    check_disjoint(make(**sides), "MnM", "x")
    for one, other in (("training", "validation"), ("training", "testing"), ("validation", "testing")):
        planted = sides | {other: (*sides[other], sides[one][0])}
        with pytest.raises(InputError, match=f"in {one} and in {other}: {sides[one][0]}"):
            check_disjoint(make(**planted), "MnM", "x")
    for empty in sides:
        with pytest.raises(InputError, match=f"no subject is left for {empty}"):
            check_disjoint(make(**(sides | {empty: ()})), "MnM", "x")


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_every_beginning_of_the_order_has_the_strata_in_proportion(strata, seed):
    dataset = cohort("".join(strata).upper(), "A")
    cases = dataset.training_cases()
    order = stratified_order(cases, lambda case: (case.groups["vendor"],), seed)
    assert sorted(order) == sorted(names(cases))
    vendor = {case.subject: case.groups["vendor"] for case in cases}
    whole = Counter(vendor.values())
    for length in range(1, len(order) + 1):
        found = Counter(vendor[subject] for subject in order[:length])
        for value, count in whole.items():
            assert abs(found[value] - count * length / len(order)) <= 1 + len(whole) / 2
