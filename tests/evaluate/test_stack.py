"""Per-slice and regional scores: against slices and slabs scored alone, and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from utseg.cardiac.structures import find_structures
from utseg.cardiac.thirds import short_axis_regions
from utseg.evaluate.metrics import Definition, evaluate_pair
from utseg.evaluate.stack import evaluate_stack

LABELS = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}
SPACING = (8.0, 1.5, 1.25)


def stack(slices=9, first=1, flip=False):
    """A left ventricle of concentric discs that narrow towards the apex, an RV beside the upper half; some empty slices around."""
    label = np.zeros((slices + first + 1, 40, 48), np.uint8)
    y, x = np.mgrid[:40, :48]
    for i in range(slices):
        radius = 12 - 8 * i / max(slices - 1, 1)
        away = np.hypot(y - 20, x - 16)
        if i < slices / 2:
            label[first + i][np.hypot(y - 20, x - 36) <= 8] = 3
        label[first + i][away <= radius] = 2
        label[first + i][away <= radius - 3] = 1
    return label[::-1].copy() if flip else label


def moved(label, y=2, x=-1):
    return np.roll(label, (y, x), (1, 2))


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 3)), st.data())
def test_each_slice_as_if_it_were_alone(reference, data):
    prediction = data.draw(hnp.arrays(np.uint8, reference.shape, elements=st.integers(0, 3)))
    scores = evaluate_stack(prediction, reference, SPACING, LABELS)
    for name, value in LABELS.items():
        if not value:
            continue
        rows = {row["slice"]: row for row in scores.slices[name]}
        assert set(rows) == set(np.flatnonzero(((prediction == value) | (reference == value)).any((1, 2))))
        for z, row in rows.items():
            outline = evaluate_pair(prediction[z : z + 1], reference[z : z + 1], SPACING, {name: value})[name]
            assert row["status"] == outline["status"]
            for metric in ("dice", "jaccard", "precision", "recall"):
                assert row[metric] == pytest.approx(outline[metric], nan_ok=True)


def test_slice_distances_by_hand():
    reference, prediction = np.zeros((3, 12, 12), int), np.zeros((3, 12, 12), int)
    reference[0, 2:6, 2:6] = prediction[0, 2:6, 4:8] = 1  # two pixels along x
    reference[1, 2:6, 2:6] = prediction[1, 2:6, 2:6] = 1
    reference[2, 3, 3] = 1  # missed
    scores = evaluate_stack(prediction, reference, SPACING, {"LV": 1})
    moved_by_two, same, missed = scores.slices["LV"]
    assert moved_by_two["hd_mm"] == moved_by_two["hd95_mm"] == 2 * 1.25 and moved_by_two["dice"] == 0.5
    assert (same["dice"], same["hd95_mm"], same["surface_dice"]) == (1, 0, 1)
    assert missed["status"] == "prediction_empty" and missed["dice"] == 0 and math.isnan(missed["hd95_mm"])
    assert missed["reference_mm2"] == pytest.approx(1.5 * 1.25) and missed["prediction_mm2"] == 0
    volume = scores.volume["LV"]
    assert volume["slice_dice"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert volume["slice_hd95_mm"] == pytest.approx(2.5 / 2)
    assert (volume["slices_both"], volume["slices_missed"], volume["slices_extra"]) == (2, 1, 0)


def test_the_volume_is_that_of_evaluate_pair():
    reference = stack()
    prediction = moved(reference)
    for definition in (Definition(), Definition("area", "directed", 1.0)):
        whole = evaluate_stack(prediction, reference, SPACING, LABELS, definition).volume
        pair = evaluate_pair(
            prediction,
            reference,
            SPACING,
            LABELS,
            surface=definition.surface,
            percentile=definition.percentile,
            tolerance_mm=definition.tolerance_mm,
        )
        assert {name: {key: whole[name][key] for key in pair[name]} for name in pair} == pair


@pytest.mark.parametrize(
    ("slices", "parts"), [(9, (3, 3, 3)), (10, (3, 4, 3)), (8, (3, 2, 3)), (3, (1, 1, 1)), (4, (1, 2, 1))]
)
@pytest.mark.parametrize("flip", [False, True])
def test_thirds_from_the_base_whichever_end_it_is(slices, parts, flip):
    label = stack(slices, flip=flip)
    regions = short_axis_regions(label, SPACING, LABELS)
    assert regions.basal_first is not flip
    assert tuple(np.bincount(regions.of_slice_Z, minlength=4)[:3]) == parts
    order = regions.of_slice_Z if not flip else regions.of_slice_Z[::-1]
    inside = order[order != 3]
    assert (np.diff(inside) >= 0).all() and (order[[0, -1]] == 3).all()
    # seen from the other end the stack has the same regions
    other = short_axis_regions(label[::-1], SPACING, LABELS)
    assert np.array_equal(other.of_slice_Z[::-1], regions.of_slice_Z)


def test_no_regions_where_there_is_no_short_axis_stack():
    label = stack()
    assert short_axis_regions(label, (1.5, 1.5, 1.25), LABELS) is None  # not a stack of thick slices
    assert short_axis_regions(label, SPACING, {"anterior": 1, "posterior": 2}) is None
    assert short_axis_regions(np.where(label == 3, 3, 0), SPACING, LABELS) is None
    assert short_axis_regions(stack(2), SPACING, LABELS) is None
    tube = np.zeros((6, 20, 20), int)
    tube[1:5, 5:12, 5:12] = 1
    assert short_axis_regions(tube, SPACING, LABELS) is None
    assert evaluate_stack(tube, tube, SPACING, LABELS).regions["LV"] == []
    assert evaluate_stack(tube, tube, SPACING, LABELS).slices["LV"][0]["region"] == ""


@pytest.mark.parametrize("surface", ["voxels", "area"])
def test_regions_share_the_voxels_and_the_surface_among_them(surface):
    reference = stack(10)
    prediction = moved(reference)
    prediction[0] = prediction[1]  # beyond the base
    prediction[-3:] = 0  # the apex missed
    scores = evaluate_stack(prediction, reference, SPACING, LABELS, Definition(surface))
    for name, rows in scores.regions.items():
        assert sum(row["reference_ml"] for row in rows) == pytest.approx(scores.volume[name]["reference_ml"])
        assert sum(row["prediction_ml"] for row in rows) == pytest.approx(
            scores.volume[name]["prediction_ml"]
        )
        assert max(row["hd_mm"] for row in rows if row["status"] == "ok") <= scores.volume[name]["hd_mm"]
        by_name = {row["region"]: row for row in rows}
        assert by_name["outside"]["status"] == "reference_empty" and by_name["basal"]["status"] == "ok"
    ventricle = {row["region"]: row for row in scores.regions["LV"]}
    assert ventricle["apical"]["recall"] < ventricle["mid"]["recall"]
    assert [ventricle[region]["slices"] for region in ("basal", "mid", "apical")] == [3, 4, 3]


def test_a_shift_within_the_plane_is_the_same_in_all_regions():
    reference = stack(9)
    prediction = moved(reference, y=0, x=1)
    for surface in ("voxels", "area"):
        for row in evaluate_stack(prediction, reference, SPACING, LABELS, Definition(surface)).regions["LV"]:
            assert row["hd_mm"] == pytest.approx(1.25)


def test_names_of_structures():
    assert find_structures({"lv cavity": 3, "Myocardium": 2, "RVC": 1}).names == {
        "LV": "lv cavity",
        "MYO": "Myocardium",
        "RV": "RVC",
    }
    assert find_structures(("anterior", "posterior")).names == {}
    assert find_structures(("LV", "LVC", "MYO")).names == {"MYO": "MYO"}  # two claim the cavity
