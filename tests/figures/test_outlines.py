"""Outlines are closed, in the file's own pixels, follow their masks, are drawn in order, and are short as paths."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.draw import polygon2mask

from utseg.figures.outlines import contours, drawing_order, outline_paths, simplified

masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def enclosed_area(outline_N2):
    """Signed area of a polygon by the shoelace formula."""
    y, x = outline_N2.T
    return np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2


def test_outlines_lie_in_the_file_s_own_pixels():
    mask = np.zeros((7, 9), bool)
    mask[2:5, 3:8] = True
    (outline_N2,) = contours(mask)
    np.testing.assert_array_equal(outline_N2[0], outline_N2[-1])
    np.testing.assert_allclose(outline_N2.min(axis=0), (2, 3))
    np.testing.assert_allclose(outline_N2.max(axis=0), (5, 8))
    assert abs(enclosed_area(outline_N2)) == pytest.approx(3 * 5 - 4 * 1 / 8)  # corners cut at half a pixel


@given(masks)
def test_outlines_are_closed_and_within_the_image(mask):
    found = contours(mask)
    assert bool(found) == bool(mask.any())
    for outline_N2 in found:
        np.testing.assert_array_equal(outline_N2[0], outline_N2[-1])
        assert outline_N2.min() >= 0
        assert (outline_N2.max(axis=0) <= mask.shape).all()


def points_of(path: str) -> list[np.ndarray]:
    """The closed outlines of a path: arrays of (x, y) in pixels."""
    found = []
    for part in path.split("z")[:-1]:
        start, steps = part.removeprefix("M").split("l")
        numbers = [int(word) for word in re.findall(r"-?\d+", f"{start} {steps}")]
        found.append(np.cumsum(np.array(numbers).reshape(-1, 2), axis=0) / 10)
    return found


def path_of(mask: np.ndarray) -> str:
    return outline_paths(mask[np.newaxis].astype(np.uint8), {"label": 1})[0][0]


def filled(path: str, shape: tuple[int, int]) -> np.ndarray:
    """The mask that the path encloses, holes left out."""
    mask = np.zeros(shape, bool)
    for points in points_of(path):
        mask ^= polygon2mask(shape, points[:, ::-1] - 0.5)
    return mask


def disc(radius, centre=(20.0, 22.0), shape=(40, 44)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(y - centre[0], x - centre[1]) <= radius


@given(st.integers(1, 17), st.floats(17, 22), st.floats(19, 24))
def test_an_outline_encloses_its_mask_to_within_half_a_pixel(radius, y, x):
    mask = disc(radius, (y, x))
    if not mask.any():
        return
    found = filled(path_of(mask), mask.shape)
    edge = mask ^ np.roll(mask, 1, 0) | mask ^ np.roll(mask, -1, 0) | mask ^ np.roll(mask, 1, 1)
    edge |= mask ^ np.roll(mask, -1, 1)
    assert not (found ^ mask)[~edge].any()
    assert abs(int(found.sum()) - int(mask.sum())) <= 0.5 * edge.sum()


def test_a_ring_has_two_outlines_and_a_single_pixel_its_diamond():
    assert len(points_of(path_of(disc(12) & ~disc(6)))) == 2
    single = np.zeros((5, 5), bool)
    single[1, 3] = True
    (diamond,) = points_of(path_of(single))
    assert sorted(map(tuple, diamond)) == [(3.0, 1.5), (3.5, 1.0), (3.5, 2.0), (4.0, 1.5)]


def test_an_outline_of_the_whole_slice_is_closed_at_its_border():
    (points,) = points_of(path_of(np.ones((30, 20), bool)))
    assert points.min() == pytest.approx(0, abs=0.5) and points.max(axis=0) == pytest.approx(
        [20, 30], abs=0.5
    )


def test_labels_that_a_slice_has_not_have_an_empty_path():
    label = np.zeros((8, 8), np.uint8)
    label[2:5, 2:5] = 2
    (found,) = outline_paths(label[np.newaxis], {"LV": 1, "MYO": 2})
    assert found[0] == "" and found[1].startswith("M") and len(found[1]) < 80


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=3, max_size=40, unique=True))
def test_simplified_points_are_some_of_all_and_leave_none_farther_than_the_tolerance(points):
    every = np.array(points, float)
    kept, other = simplified([every, every[::-1] + 100.0], 0.5)
    assert len(other) >= 2
    places = [int(np.flatnonzero((every == point).all(axis=1))[0]) for point in kept]
    assert places == sorted(places) and places[0] == 0
    ring = [*places, len(every)]
    for first, last in itertools.pairwise(ring):
        a, b = every[first], every[last % len(every)]
        for point in every[first:last]:
            along = np.clip(np.dot(point - a, b - a) / max(np.dot(b - a, b - a), 1e-12), 0, 1)
            assert np.linalg.norm(point - a - along * (b - a)) <= 0.5 + 1e-9


def test_a_cavity_is_drawn_after_its_wall_whatever_their_values():
    y, x = np.mgrid[:40, :40]
    radius = np.hypot(y - 20, x - 20)
    label = np.where(radius < 6, 3, np.where(radius < 12, 2, 0)).astype(np.uint8)[None]
    assert drawing_order(label, [1, 2, 3]) == [1, 2, 0]
