"""Labels of two origins: which match, which are refused, and that a mask survives the way there and back."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utseg.errors import UsageError
from utseg.label_map import inside, structures
from utseg.labels import (
    LabelMismatch,
    checked_labels,
    class_numbers,
    decide,
    match_labels,
    members,
    same_numbering,
    to_classes,
    to_values,
)

NAMES = ("LV", "MYO", "RV", "scar", "no-reflow")
MNMS = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}
ACDC = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}


def match(ours, theirs):
    return match_labels(ours, theirs, we="here", they="there")


@st.composite
def numberings(draw):
    """Two numberings of the same names, gaps between the values, and a mask in the second."""
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    values = st.lists(st.integers(1, 255), min_size=len(names), max_size=len(names), unique=True)
    ours, theirs = (dict(zip(("background", *names), (0, *draw(values)), strict=True)) for _ in range(2))
    voxels = draw(st.lists(st.sampled_from([*theirs.values()]), min_size=1, max_size=30))
    return ours, theirs, np.array(voxels, np.uint8)


@settings(deadline=None)
@given(numberings())
def test_there_and_back_is_the_same_mask_and_every_voxel_keeps_its_name(case):
    ours, theirs, mask = case
    translated = match(ours, theirs).translate(mask)
    by_value = [{value: name for name, value in labels.items()} for labels in (ours, theirs)]
    assert [by_value[0][value] for value in translated] == [by_value[1][value] for value in mask]
    np.testing.assert_array_equal(match(theirs, ours).translate(translated), mask)


@settings(deadline=None)
@given(st.permutations(["heart", "left", "LV"]), st.data())
def test_the_order_in_which_regions_are_named_means_nothing(names, data):
    """Channels, classes and what is painted are those of the regions' values; each region of the mask is where its own channel says so."""
    regions = {"background": 0, "heart": (5, 2, 7), "left": (2, 7), "LV": (7,)}
    named = {name: regions[name] for name in ("background", *names)}
    assert [*structures(named)] == ["heart", "left", "LV"]
    np.testing.assert_array_equal(members(named), members(regions))
    classes = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=20))
    values = to_values(np.array(classes, np.uint8), named)
    probabilities = members(named)[:, to_classes(values, named)].astype(np.float32)
    decided = decide(probabilities, named)
    np.testing.assert_array_equal(to_values(decided, named), values)
    for name, own in zip(structures(named), probabilities[1:], strict=True):
        np.testing.assert_array_equal(inside(decided, class_numbers(named)[name]), own > 0.5)


@settings(deadline=None)
@given(numberings())
def test_channels_in_our_order_are_those_of_the_same_names(case):
    ours, theirs, _ = case
    channels = [name for name, _ in sorted(theirs.items(), key=lambda item: item[1])]
    ordered = [channels[channel] for channel in match(ours, theirs).channel_order()]
    assert ordered == [name for name, _ in sorted(ours.items(), key=lambda item: item[1])]


@pytest.mark.parametrize(
    ("theirs", "names"),
    [
        (ACDC, ("LV", "MYO", "RV")),
        ({"bg": 0, "lv": 1, "Myo": 2, "rv": 3}, ("lv", "Myo", "rv")),
        (
            {"LV cavity": 3, "myocardium": 2, "right ventricle": 1},
            ("LV cavity", "myocardium", "right ventricle"),
        ),
    ],
)
def test_names_match_by_letters_and_as_cardiac_structures(theirs, names):
    matching = match(MNMS, theirs)
    assert tuple(matching.names.items()) == tuple(zip(("LV", "MYO", "RV"), names, strict=True))
    assert all(f"= {name} {theirs[name]}" in matching.in_words() for name in names)


@pytest.mark.parametrize(
    ("theirs", "lacking"),
    [
        ({"background": 0, "LV": 1, "MYO": 2}, "RV"),
        ({"background": 0, "LV": 1, "MYO": 2, "RV": 3, "scar": 4}, "scar"),
        ({"background": 0, "LV": 1, "MYO": 2, "scar": 3}, "RV, scar"),
        ({"LV": 1, "myo": 2, "lvm": 3}, "RV, lvm"),
    ],
)
def test_a_label_without_a_counterpart_is_refused_in_a_line(theirs, lacking):
    with pytest.raises(LabelMismatch, match=f"no counterpart for {lacking}; ") as caught:
        match(MNMS, theirs)
    assert "LV 1, MYO 2, RV 3 in here" in str(caught.value) and "\n" not in str(caught.value)


def test_two_names_of_one_structure_match_none():
    with pytest.raises(LabelMismatch, match="no counterpart for MYO, myocardium, lvm; "):
        match({"LV": 1, "MYO": 2}, {"LV": 1, "myocardium": 2, "lvm": 3})


def test_background_may_be_called_otherwise():
    assert same_numbering(MNMS, {"bg": 0, "LV": 1, "MYO": 2, "RV": 3})
    assert not same_numbering(MNMS, ACDC)


@settings(deadline=None)
@given(numberings())
def test_classes_are_the_places_of_sorted_values_and_come_back(case):
    _, labels, mask = case
    classes = to_classes(mask, labels)
    np.testing.assert_array_equal(classes, np.searchsorted(sorted(labels.values()), mask))
    np.testing.assert_array_equal(to_values(classes, labels), mask)


def test_values_with_a_gap_match_themselves_in_their_order():
    labels = {"background": 0, "LV": 1, "RV": 3}
    assert match_labels(labels, labels, we="a", they="b").channel_order() == [0, 1, 2]


def test_labels_from_python_are_taken_as_they_are():
    given = {"background": 0, "LV": np.int64(1), "MYO": True + 1}
    assert checked_labels(given) == {"background": 0, "LV": 1, "MYO": 2}
    regions = {"heart": (1, 2), "LV": (1,)}
    assert checked_labels(regions) == regions


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"LV": 1, "MYO": 2, "RV": 2}, "a value is there twice"),
        ({"LV": "1"}, "expected names with whole numbers"),
        ({"LV": 1.0}, "expected names with whole numbers"),
        ({"LV": ()}, "LV: expected whole numbers from 0 to 255, found ()"),
        ({"LV": 1, "RV": -1}, "RV: expected whole numbers from 0 to 255, found -1"),
        ({"LV": 256}, "LV: expected whole numbers from 0 to 255, found 256"),
        ([1, 2], "expected names with whole numbers"),
    ],
)
def test_labels_from_python_that_cannot_be_are_refused_in_a_line(labels, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        checked_labels(labels)
