"""Rules on masks against a plain flood fill, and what holds for all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pydantic import ValidationError

from utseg.errors import SettingError
from utseg.postprocess import (
    FillHoles,
    KeepLargest,
    KeepLargestOfLabel,
    Postprocessing,
    RemoveIslands,
    in_words,
    postprocess,
)
from utseg.settings import validate

LABELS = {"background": 0, "LV": 1, "scar": 5}
label_values = st.sampled_from([0, 0, 0, 1, 5])
masks = array_shapes(min_dims=3, max_dims=3, max_side=7).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=label_values)
)
rules = st.one_of(
    st.just(KeepLargest()),
    st.builds(KeepLargestOfLabel, label=st.sampled_from(["LV", "scar"])),
    st.builds(RemoveIslands, label=st.sampled_from(["LV", "scar"]), share=st.floats(0.01, 1)),
    st.builds(FillHoles, label=st.sampled_from(["LV", "scar"])),
)


def neighbours(voxel, shape, steps):
    for step in steps:
        near = tuple(a + b for a, b in zip(voxel, step, strict=True))
        if all(0 <= a < size for a, size in zip(near, shape, strict=True)):
            yield near


ALL_AROUND = [(z, y, x) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1) if (z, y, x) != (0, 0, 0)]
IN_PLANE_EDGES = [(0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)]


def flood(own, steps):
    """Components as sets of voxels, in the order of their first voxels."""
    left, found = {tuple(map(int, voxel)) for voxel in np.argwhere(own)}, []
    for start in map(tuple, np.argwhere(own).tolist()):
        if start not in left:
            continue
        left.remove(start)
        component, todo = {start}, [start]
        while todo:
            for near in neighbours(todo.pop(), own.shape, steps):
                if near in left:
                    left.remove(near)
                    component.add(near)
                    todo.append(near)
        found.append(component)
    return found


def as_mask(components, like):
    out = np.zeros(like.shape, bool)
    for voxel in (voxel for component in components for voxel in component):
        out[voxel] = True
    return out


@settings(deadline=None)
@given(masks)
def test_the_largest_of_everything_is_that_of_a_flood_fill(mask):
    components = flood(mask > 0, ALL_AROUND)
    kept = as_mask(
        sorted(components, key=len, reverse=True)[:1], mask
    )  # sorting is stable: the first of a size
    np.testing.assert_array_equal(KeepLargest().apply(mask, LABELS), np.where(kept, mask, 0))


@settings(deadline=None)
@given(masks, st.sampled_from([1, 5]))
def test_the_largest_of_a_label_leaves_the_others_alone(mask, value):
    components = flood(mask == value, ALL_AROUND)
    kept = as_mask(sorted(components, key=len, reverse=True)[:1], mask)
    np.testing.assert_array_equal(
        KeepLargestOfLabel(label="own").apply(mask, {"own": value}),
        np.where((mask == value) & ~kept, 0, mask),
    )


@settings(deadline=None)
@given(masks, st.sampled_from([1, 5]), st.floats(0.01, 1))
def test_islands_are_small_against_the_largest(mask, value, share):
    components = flood(mask == value, ALL_AROUND)
    largest = max(map(len, components), default=0)
    small = as_mask([component for component in components if len(component) < share * largest], mask)
    np.testing.assert_array_equal(
        RemoveIslands(label="own", share=share).apply(mask, {"own": value}), np.where(small, 0, mask)
    )


@settings(deadline=None)
@given(masks, st.sampled_from([1, 5]))
def test_a_hole_cannot_reach_the_border_of_its_slice(mask, value):
    open_air = np.zeros(mask.shape, bool)
    _, height, width = mask.shape
    for component in flood(mask != value, IN_PLANE_EDGES):
        if any(y in (0, height - 1) or x in (0, width - 1) for _, y, x in component):
            open_air |= as_mask([component], mask)
    expected = np.where((mask == 0) & ~open_air, value, mask)
    np.testing.assert_array_equal(FillHoles(label="own").apply(mask, {"own": value}), expected)


def test_a_gap_within_a_ring_is_filled_and_what_it_holds_stays():
    mask = np.zeros((2, 9, 9), np.uint8)
    mask[0, 1:8, 1:8] = 2
    mask[0, 2:7, 2:7] = 0
    mask[0, 4, 4] = 1
    filled = FillHoles(label="own").apply(mask, {"own": 2})
    assert (filled[0, 2:7, 2:7] == 2).sum() == 24
    assert filled[0, 4, 4] == 1
    np.testing.assert_array_equal(filled[1], 0)


def test_corners_connect_across_slices():
    mask = np.zeros((2, 4, 4), np.uint8)
    mask[0, :2, :2] = 1
    mask[1, 2, 2] = 1
    np.testing.assert_array_equal(KeepLargest().apply(mask, LABELS), mask)
    mask[1, 2, 2], mask[1, 3, 3] = 0, 1
    assert KeepLargest().apply(mask, LABELS)[1].sum() == 0


@settings(max_examples=100, deadline=None)
@given(masks, st.lists(rules, max_size=4).map(tuple))
def test_what_holds_for_all_rules(mask, chosen):
    before = mask.copy()
    setting = Postprocessing(rules=chosen)
    after = postprocess(mask, setting, LABELS)
    np.testing.assert_array_equal(mask, before)
    assert after.dtype == np.uint8 and after.shape == mask.shape
    assert set(np.unique(after)) - {0} <= set(np.unique(mask)) - {0}
    np.testing.assert_array_equal(postprocess(np.zeros_like(mask), setting, LABELS), 0)
    assert Postprocessing.model_validate_json(setting.model_dump_json()) == setting
    for rule in chosen:
        alone = Postprocessing(rules=(rule,))
        once = postprocess(mask, alone, LABELS)
        kept = (mask > 0) & (once > 0)
        np.testing.assert_array_equal(once[kept], mask[kept])
        np.testing.assert_array_equal(postprocess(once, alone, LABELS), once)
        assert in_words(rule)


def test_memory_order_does_not_matter():
    mask = np.asfortranarray(
        np.random.default_rng(0).choice([0, 1, 5], (5, 20, 21), p=[0.8, 0.1, 0.1]).astype(np.uint8)
    )
    np.testing.assert_array_equal(
        KeepLargest().apply(mask, LABELS), KeepLargest().apply(np.ascontiguousarray(mask), LABELS)
    )


def test_a_wrong_setting_is_one_line():
    with pytest.raises(
        SettingError, match="keep_largest_of_label names the label 'RV'; labels there: LV, scar"
    ):
        postprocess(
            np.zeros((1, 2, 2), np.uint8), Postprocessing(rules=(KeepLargestOfLabel(label="RV"),)), LABELS
        )
    with pytest.raises(SettingError, match=r"best\.json: .*rules"):
        validate(Postprocessing, {"rules": [{"rule": "polish"}]}, "best.json")
    with pytest.raises(ValidationError):
        RemoveIslands(label="LV", share=0)
