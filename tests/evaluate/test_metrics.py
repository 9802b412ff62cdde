"""Metrics against a brute-force float64 oracle, analytic shapes, and properties that hold for all masks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from utseg.errors import InputError
from utseg.evaluate import evaluate_pair
from utseg.evaluate.metrics import surface

LABELS = {"background": 0, "LV": 1, "MYO": 2}
SPACING = (8.0, 1.5, 1.25)
masks = hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 2))
spacings = st.tuples(*[st.floats(0.3, 10)] * 3)


def brute_force(prediction, reference, spacing):
    """Surface by looking at each neighbour of each voxel; all pairwise distances."""

    def border(mask):
        found = []
        for index in np.argwhere(mask):
            neighbours = [
                index + step
                for axis in range(3)
                for step in (np.eye(3, dtype=int)[axis], -np.eye(3, dtype=int)[axis])
            ]
            inside = [bool((n >= 0).all() and (n < mask.shape).all() and mask[tuple(n)]) for n in neighbours]
            if not all(inside):
                found.append(index * np.asarray(spacing))
        return np.array(found)

    a, b = border(prediction), border(reference)
    distances = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    forth, back = distances.min(1), distances.min(0)
    return np.percentile(np.r_[forth, back], 95), (forth.mean() + back.mean()) / 2


@settings(max_examples=60, deadline=None)
@given(masks, st.data(), spacings)
def test_agrees_with_brute_force(reference, data, spacing):
    prediction = data.draw(hnp.arrays(np.uint8, reference.shape, elements=st.integers(0, 2)))
    scores = evaluate_pair(prediction, reference, spacing, LABELS)
    for name in ("LV", "MYO"):
        p, r = prediction == LABELS[name], reference == LABELS[name]
        if p.any() and r.any():
            hd95, assd = brute_force(p, r, spacing)
            assert scores[name]["hd95_mm"] == pytest.approx(hd95)
            assert scores[name]["assd_mm"] == pytest.approx(assd)
            assert scores[name]["dice"] == pytest.approx(2 * (p & r).sum() / (p.sum() + r.sum()))


@settings(max_examples=40, deadline=None)
@given(masks, st.data())
def test_symmetric_and_scales_with_spacing(reference, data):
    prediction = data.draw(hnp.arrays(np.uint8, reference.shape, elements=st.integers(0, 2)))
    one = evaluate_pair(prediction, reference, SPACING, LABELS)
    other = evaluate_pair(reference, prediction, SPACING, LABELS)
    double = evaluate_pair(prediction, reference, tuple(2 * s for s in SPACING), LABELS)
    for name in one:
        assert one[name]["dice"] == pytest.approx(other[name]["dice"], nan_ok=True)
        for metric in ("hd95_mm", "assd_mm"):
            assert one[name][metric] == pytest.approx(other[name][metric], nan_ok=True)
            assert 2 * one[name][metric] == pytest.approx(double[name][metric], nan_ok=True)
        assert double[name]["reference_ml"] == pytest.approx(8 * one[name]["reference_ml"])


@pytest.mark.parametrize(("axis", "voxels"), [(0, 1), (1, 3), (2, 4)])
def test_a_shifted_plate_is_off_by_the_shift_in_mm(axis, voxels):
    shape = [9, 9, 9]
    reference, prediction = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    at = [slice(None)] * 3
    at[axis] = slice(2, 3)
    reference[tuple(at)] = 1
    at[axis] = slice(2 + voxels, 3 + voxels)
    prediction[tuple(at)] = 1
    scores = evaluate_pair(prediction, reference, SPACING, LABELS)["LV"]
    assert scores["hd95_mm"] == pytest.approx(voxels * SPACING[axis])
    assert scores["assd_mm"] == pytest.approx(voxels * SPACING[axis])
    assert scores["dice"] == 0


def test_hand_computed_case():
    # reference: 4 voxels in a row; prediction: the first 2 of them and one voxel two steps below the first. 1 mm spacing.
    reference, prediction = np.zeros((1, 4, 4), int), np.zeros((1, 4, 4), int)
    reference[0, 0, :4] = 1
    prediction[0, 0, :2] = 1
    prediction[0, 2, 0] = 1
    scores = evaluate_pair(prediction, reference, (1, 1, 1), LABELS)["LV"]
    assert scores["dice"] == pytest.approx(4 / 7)
    # forth: 0, 0, 2; back: 0, 0, 1, 2; pooled and sorted: 0 0 0 0 1 2 2, its 95th percentile lies between the last two
    assert scores["assd_mm"] == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert scores["hd95_mm"] == pytest.approx(2)
    assert (scores["reference_ml"], scores["prediction_ml"]) == (0.004, 0.003)


def test_identical_masks_are_perfect():
    mask = np.random.default_rng(0).integers(0, 3, (3, 20, 20))
    for scores in evaluate_pair(mask, mask, SPACING, LABELS).values():
        assert (scores["dice"], scores["hd95_mm"], scores["assd_mm"], scores["status"]) == (1, 0, 0, "ok")


@pytest.mark.parametrize(
    ("predicted", "referenced", "dice", "status"),
    [(0, 0, math.nan, "both_empty"), (0, 1, 0, "prediction_empty"), (1, 0, 0, "reference_empty")],
)
def test_empty_structures_are_defined_and_named(predicted, referenced, dice, status):
    shape = (2, 4, 4)
    scores = evaluate_pair(np.full(shape, predicted), np.full(shape, referenced), SPACING, {"LV": 1})["LV"]
    assert scores["dice"] == pytest.approx(dice, nan_ok=True)
    assert math.isnan(scores["hd95_mm"]) and math.isnan(scores["assd_mm"])
    assert scores["status"] == status


def test_other_shapes_are_refused():
    with pytest.raises(InputError, match=r"\(2, 3, 3\) and \(2, 3, 4\)"):
        evaluate_pair(np.zeros((2, 3, 3)), np.zeros((2, 3, 4)), SPACING, LABELS)


def test_surface_of_a_box_is_its_shell():
    mask = np.zeros((7, 7, 7), bool)
    mask[1:6, 1:6, 1:6] = True
    assert surface(mask).sum() == 5**3 - 3**3
    full = np.ones((4, 4, 4), bool)
    assert surface(full).sum() == 4**3 - 2**3
