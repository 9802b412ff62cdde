"""Metrics against a brute-force float64 oracle, analytic shapes, and properties that hold for all masks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from utseg.errors import InputError, SettingError
from utseg.evaluate import evaluate_pair

LABELS = {"background": 0, "LV": 1, "MYO": 2}
SPACING = (8.0, 1.5, 1.25)
NAN = math.nan
RATIOS = ("dice", "jaccard", "surface_dice")
DISTANCES = ("hd95_mm", "hd_mm", "assd_mm", "masd_mm")
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
    both = np.r_[forth, back]
    return {
        "hd95_mm": np.percentile(both, 95),
        "hd_mm": both.max(),
        "assd_mm": both.mean(),
        "masd_mm": (forth.mean() + back.mean()) / 2,
        "surface_dice": (both <= 2).mean(),
    }


@settings(max_examples=60, deadline=None)
@given(masks, st.data(), spacings)
def test_agrees_with_brute_force(reference, data, spacing):
    prediction = data.draw(hnp.arrays(np.uint8, reference.shape, elements=st.integers(0, 2)))
    scores = evaluate_pair(prediction, reference, spacing, LABELS, tolerance_mm=2)
    for name in ("LV", "MYO"):
        p, r = prediction == LABELS[name], reference == LABELS[name]
        shared = (p & r).sum()
        if p.any() and r.any():
            expected = brute_force(p, r, spacing) | {
                "dice": 2 * shared / (p.sum() + r.sum()),
                "jaccard": shared / (p | r).sum(),
                "precision": shared / p.sum(),
                "recall": shared / r.sum(),
            }
            for metric, value in expected.items():
                assert scores[name][metric] == pytest.approx(value), metric


@settings(max_examples=40, deadline=None)
@given(masks, st.data(), st.sampled_from(["voxels", "area"]), st.sampled_from(["pooled", "directed"]))
def test_symmetric_and_scales_with_spacing(reference, data, surface, percentile):
    prediction = data.draw(hnp.arrays(np.uint8, reference.shape, elements=st.integers(0, 2)))
    kind = {"surface": surface, "percentile": percentile}
    one = evaluate_pair(prediction, reference, SPACING, LABELS, **kind, tolerance_mm=2)
    other = evaluate_pair(reference, prediction, SPACING, LABELS, **kind, tolerance_mm=2)
    double = evaluate_pair(
        prediction, reference, tuple(2 * s for s in SPACING), LABELS, **kind, tolerance_mm=4
    )
    for name in one:
        assert one[name]["precision"] == pytest.approx(other[name]["recall"], nan_ok=True)
        assert one[name]["difference_ml"] == -other[name]["difference_ml"]
        for metric in (*RATIOS, *DISTANCES):
            assert one[name][metric] == pytest.approx(other[name][metric], nan_ok=True), metric
        for metric in DISTANCES:
            assert 2 * one[name][metric] == pytest.approx(double[name][metric], nan_ok=True), metric
        for metric in RATIOS:
            assert one[name][metric] == pytest.approx(double[name][metric], nan_ok=True), metric
        assert double[name]["reference_ml"] == pytest.approx(8 * one[name]["reference_ml"])


@settings(max_examples=40, deadline=None)
@given(masks, st.data())
def test_order_among_the_distances_and_ratios(reference, data):
    prediction = data.draw(hnp.arrays(np.uint8, reference.shape, elements=st.integers(0, 2)))
    pooled = evaluate_pair(prediction, reference, SPACING, LABELS)
    directed = evaluate_pair(prediction, reference, SPACING, LABELS, percentile="directed")
    for name, scores in pooled.items():
        if scores["status"] == "ok":
            assert 0 <= scores["assd_mm"] <= scores["hd_mm"] and scores["masd_mm"] <= scores["hd_mm"]
            assert (
                max(scores["hd95_mm"], directed[name]["hd95_mm"])
                <= scores["hd_mm"]
                == directed[name]["hd_mm"]
            )
            assert scores["jaccard"] == pytest.approx(scores["dice"] / (2 - scores["dice"]))
            assert 0 <= scores["surface_dice"] <= 1


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=3, max_size=3), st.sampled_from(["voxels", "area"])
)
def test_triangle_of_shifts(offsets, surface):
    """The maximum Hausdorff distance is a metric: between shifted copies of a shape it obeys the triangle inequality, and is never more
    than the shift."""
    shape = np.random.default_rng(0).random((3, 4, 4)) < 0.6
    copies = []
    for z, y, x in offsets:
        mask = np.zeros((6, 7, 7), np.uint8)
        mask[z : z + 3, y : y + 4, x : x + 4] = shape
        copies.append(mask)
    away = {}
    for i, j in ((0, 1), (1, 2), (0, 2)):
        away[i, j] = evaluate_pair(copies[i], copies[j], SPACING, {"LV": 1}, surface=surface)["LV"]["hd_mm"]
        shift = np.linalg.norm((np.array(offsets[i]) - offsets[j]) * SPACING)
        assert away[i, j] <= shift + 1e-9
    assert away[0, 2] <= away[0, 1] + away[1, 2] + 1e-9


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
    assert scores["assd_mm"] == pytest.approx(5 / 7)
    assert scores["masd_mm"] == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert scores["hd95_mm"] == pytest.approx(2) and scores["hd_mm"] == 2
    assert (scores["jaccard"], scores["precision"], scores["recall"]) == pytest.approx((2 / 5, 2 / 3, 1 / 2))
    assert scores["difference_ml"] == pytest.approx(-0.001)
    near = evaluate_pair(prediction, reference, (1, 1, 1), LABELS, tolerance_mm=1)["LV"]
    assert near["surface_dice"] == pytest.approx(5 / 7) and scores["surface_dice"] == 1
    assert (scores["reference_ml"], scores["prediction_ml"]) == (0.004, 0.003)


@pytest.mark.parametrize("surface", ["voxels", "area"])
def test_identical_masks_are_perfect(surface):
    mask = np.random.default_rng(0).integers(0, 3, (3, 20, 20))
    for scores in evaluate_pair(mask, mask, SPACING, LABELS, surface=surface).values():
        assert [scores[metric] for metric in RATIOS] == [1, 1, 1]
        assert (scores["precision"], scores["recall"], scores["difference_ml"]) == (1, 1, 0)
        assert [scores[metric] for metric in DISTANCES] == [0, 0, 0, 0] and scores["status"] == "ok"


@pytest.mark.parametrize(
    ("predicted", "referenced", "ratio", "precision", "recall", "status"),
    [
        (0, 0, NAN, NAN, NAN, "both_empty"),
        (0, 1, 0, NAN, 0, "prediction_empty"),
        (1, 0, 0, 0, NAN, "reference_empty"),
    ],
)
def test_empty_structures_are_defined_and_named(predicted, referenced, ratio, precision, recall, status):
    shape = (2, 4, 4)
    prediction, reference = np.full(shape, predicted), np.full(shape, referenced)
    scores = evaluate_pair(prediction, reference, SPACING, {"LV": 1})["LV"]
    for metric, expected in (*((m, ratio) for m in RATIOS), ("precision", precision), ("recall", recall)):
        assert scores[metric] == pytest.approx(expected, nan_ok=True), metric
    assert all(math.isnan(scores[metric]) for metric in DISTANCES)
    assert scores["status"] == status
    assert scores["difference_ml"] == pytest.approx((predicted - referenced) * 32 * 15 / 1000)


def test_other_shapes_and_settings_are_refused():
    with pytest.raises(InputError, match=r"\(2, 3, 3\) and \(2, 3, 4\)"):
        evaluate_pair(np.zeros((2, 3, 3)), np.zeros((2, 3, 4)), SPACING, LABELS)
    halves = np.full((2, 3, 3), 0.5)
    for pair, side in (
        ((halves, np.ones((2, 3, 3))), "prediction"),
        ((np.ones((2, 3, 3)), halves), "reference"),
    ):
        with pytest.raises(InputError, match=f"{side}: has values that are no whole numbers"):
            evaluate_pair(*pair, SPACING, LABELS)
    with pytest.raises(InputError, match="three positive"):
        evaluate_pair(np.zeros((2, 3, 3)), np.zeros((2, 3, 3)), (1, 0, 1), LABELS)
    with pytest.raises(SettingError, match=r"surface='mesh'.*voxels, area"):
        evaluate_pair(np.zeros((2, 3, 3)), np.zeros((2, 3, 3)), SPACING, LABELS, surface="mesh")
    with pytest.raises(SettingError, match="tolerance_mm=-1"):
        evaluate_pair(np.zeros((2, 3, 3)), np.zeros((2, 3, 3)), SPACING, LABELS, tolerance_mm=-1)


def ball(radius_mm, spacing, centre=(0.0, 0.0, 0.0), half=24.0):
    """Voxels whose centres are in a ball, in a box of ±half mm around the origin."""
    steps = [np.arange(-round(half / s), round(half / s) + 1) * s for s in spacing]
    grid = np.meshgrid(*steps, indexing="ij")
    return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius_mm**2


@pytest.mark.parametrize("surface", ["voxels", "area"])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.8, 0.9)])
def test_concentric_balls_are_apart_by_the_difference_of_radii(surface, spacing):
    large, small = ball(20, spacing), ball(15, spacing)
    scores = evaluate_pair(small, large, spacing, {"ball": 1}, surface=surface, tolerance_mm=2)["ball"]
    voxel = np.linalg.norm(spacing)
    for metric in DISTANCES:
        assert scores[metric] == pytest.approx(5, abs=voxel / 2 if metric != "hd_mm" else voxel)
    assert scores["dice"] == pytest.approx(2 * 15**3 / (15**3 + 20**3), rel=0.02)
    assert scores["reference_ml"] == pytest.approx(4 / 3 * np.pi * 20**3 / 1000, rel=0.02)
    assert scores["surface_dice"] == 0
    wide = evaluate_pair(small, large, spacing, {"ball": 1}, surface=surface, tolerance_mm=5 + voxel)["ball"]
    assert wide["surface_dice"] == 1


def test_a_larger_box_around_a_box():
    """Grown by k voxels along x only: the faces are k steps apart, the corners too; half of each surface need not move."""
    reference, prediction = np.zeros((9, 20, 30), np.uint8), np.zeros((9, 20, 30), np.uint8)
    reference[2:7, 5:15, 8:20] = 1
    prediction[2:7, 5:15, 8:24] = 1
    for surface in ("voxels", "area"):
        scores = evaluate_pair(prediction, reference, SPACING, {"box": 1}, surface=surface)["box"]
        assert scores["hd_mm"] == pytest.approx(4 * SPACING[2])
        assert (scores["precision"], scores["recall"]) == pytest.approx((12 / 16, 1))
