"""A heart as it should be passes; each thing that is done to it fails the check that is for it, and only that."""

import nibabel
import numpy as np
import pytest
from hearts import LABELS, SPACING, heart
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from utseg.cardiac.plausibility import AnatomyLimits, check_anatomy


def failed(mask: np.ndarray, labels=LABELS, spacing=SPACING, limits=None) -> set[tuple[str, str]]:
    return {
        (check.name, check.label)
        for check in check_anatomy(mask, spacing, labels, limits)
        if not check.passed
    }


def test_a_heart_as_it_should_be_passes_all_checks():
    checks = check_anatomy(heart(), SPACING, LABELS)
    assert not failed(heart())
    assert len(checks) == 2 + 3 * 3
    values = {(check.name, check.label): check.value for check in checks}
    assert values["enclosed", "LV"] == 1
    assert values["volume_ml", "RV"] == pytest.approx((heart() == 3).sum() * 8 * 1.5**2 / 1000, abs=1e-3)


def with_bite(mask):
    """A quarter of the ring is gone."""
    mask[:, 40:, 50:][mask[:, 40:, 50:] == 2] = 0


def with_short_circuit(mask):
    """RV instead of the septum: it touches the cavity."""
    mask[:, :, :40][mask[:, :, :40] == 2] = 3


def with_island(mask):
    mask[5, 2:20, 60:88] = 3


def with_gap(mask):
    mask[4][mask[4] == 3] = 0


def without_rv(mask):
    mask[mask == 3] = 0


def tiny(mask):
    mask[:] = 0
    mask[5, 40:44, 40:44] = 2
    mask[5, 41:43, 41:43] = 1
    mask[5, 40:44, 30:34] = 3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (with_bite, {("enclosed", "LV")}),
        (with_short_circuit, {("enclosed", "LV"), ("apart", "LV")}),
        (with_island, {("one_component", "RV")}),
        (with_gap, {("gaps", "RV"), ("one_component", "RV")}),
        (without_rv, {("volume_ml", "RV")}),
        (tiny, {("volume_ml", name) for name in ("LV", "MYO", "RV")}),
    ],
)
def test_each_fault_is_found_and_named(change, expected):
    mask = heart()
    change(mask)
    before = mask.copy()
    assert failed(mask) == expected
    np.testing.assert_array_equal(mask, before)
    for check in check_anatomy(mask, SPACING, LABELS):
        assert check.label in check.words
        assert "expected" in check.words


def test_the_ring_may_be_open_at_the_base_but_not_in_the_middle():
    base, middle = heart(), heart()
    base[1:3][base[1:3] == 2] = 0
    middle[5:6][middle[5:6] == 2] = 0
    assert not failed(base) & {("enclosed", "LV")}
    assert ("enclosed", "LV") in failed(middle)


def test_other_numbers_and_names_of_the_labels_are_understood():
    other = {"background": 0, "rv": 1, "Myocardium": 2, "left ventricle": 3}
    turned = np.array([0, 3, 2, 1], np.uint8)[heart()]
    assert not failed(turned, other)
    turned[turned == 2] = 0
    assert {label for _, label in failed(turned, other)} == {"left ventricle", "Myocardium"}


def test_labels_that_are_no_heart_have_no_checks():
    assert check_anatomy(heart(), SPACING, {"background": 0, "anterior": 1, "posterior": 2}) == ()


def test_limits_are_settings():
    assert failed(heart(), limits=AnatomyLimits(lv_ml=(0, 1))) == {("volume_ml", "LV")}


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.uint8,
        st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
        elements=st.integers(0, 3),
    ),
)
def test_any_mask_is_judged_the_same_upside_down_and_turned(mask):
    def values(array):
        return {
            (check.name, check.label): (check.value, check.passed)
            for check in check_anatomy(array, SPACING, LABELS)
        }

    found = values(mask)
    for other in (mask[::-1], mask[:, ::-1], mask[:, :, ::-1], mask.transpose(0, 2, 1), np.pad(mask, 2)):
        assert values(np.ascontiguousarray(other)) == found
    for (name, _), (value, _) in found.items():
        assert value >= 0
        assert value <= 1 or name in ("volume_ml", "gaps")


def test_expert_contours_pass(shared):
    paths = sorted((shared / "data/raw/ACDC/labelsTr").glob("*.nii.gz"))[::4]
    assert len(paths) > 20
    for path in paths:
        image = nibabel.load(path)
        spacing = tuple(float(step) for step in image.header.get_zooms()[::-1])
        assert not failed(np.asarray(image.dataobj).T.astype(np.uint8), spacing=spacing), path.name
