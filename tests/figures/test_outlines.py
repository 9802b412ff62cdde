"""What pictures share: colours, outlines in the right place, windows that keep what is labelled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from utseg.figures.outlines import (
    LABEL_COLOURS,
    MARGIN_MM,
    contours,
    label_colour,
    label_contours,
    window_around,
)

masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def test_each_value_has_its_colour():
    assert label_colour(1) == LABEL_COLOURS[0]
    assert label_colour(len(LABEL_COLOURS) + 1) == LABEL_COLOURS[0]
    assert len(set(LABEL_COLOURS)) == len(LABEL_COLOURS)


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


def test_a_cavity_is_drawn_after_its_wall():
    label = np.zeros((20, 20), np.uint8)
    label[4:16, 4:16] = 2
    label[7:13, 7:13] = 1
    drawn = list(label_contours(label, {"background": 0, "LV": 1, "MYO": 2, "RV": 3}))
    assert [value for value, _ in drawn] == [2, 1]
    assert [len(outlines) for _, outlines in drawn] == [2, 1]


@given(masks, st.floats(0.3, 40), st.floats(0.3, 40))
def test_a_window_keeps_all_that_is_labelled_with_its_margin(mask, dy, dx):
    rows, columns = window_around(mask, (dy, dx))
    cut = mask[rows, columns]
    assert cut.size
    assert cut.sum() == mask.sum()
    if mask.any():
        y, x = np.argwhere(mask)[0]
        near = np.argwhere(np.ones_like(mask))
        close = near[(np.abs((near - (y, x)) * (dy, dx)) <= MARGIN_MM - max(dy, dx)).all(axis=1)]
        inside = np.zeros_like(mask)
        inside[rows, columns] = True
        assert inside[tuple(close.T)].all()
