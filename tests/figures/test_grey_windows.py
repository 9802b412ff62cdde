"""Pictures show what is labelled: slices from end to end, a square around it, a bar that fits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from utseg.figures.windows import MOST_SLICES, bar_length_mm, largest_slice, shown_slices, window_around

MARGIN_MM = 20.0
masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@given(st.lists(st.booleans(), min_size=1, max_size=90))
def test_tall_stacks_are_thinned_out_evenly_from_one_end_of_what_is_labelled_to_the_other(labelled):
    found = shown_slices(np.array(labelled))
    assert len(found) <= MOST_SLICES
    assert found == sorted(set(found))
    assert found[0] >= 0 and found[-1] < len(labelled)
    if len(labelled) <= MOST_SLICES:
        assert found == list(range(len(labelled)))
    elif any(labelled):
        first, last = labelled.index(True), len(labelled) - 1 - labelled[::-1].index(True)
        assert found[0] <= first and last <= found[-1]
        assert max(np.diff(found), default=1) - min(np.diff(found), default=1) <= 1


@given(masks, st.floats(0.3, 40), st.floats(0.3, 40), st.booleans())
def test_a_window_keeps_all_that_is_labelled_with_its_margin(mask, dy, dx, square):
    rows, columns = window_around(mask, (dy, dx), MARGIN_MM, square=square)
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


def test_the_largest_slice_has_most_labelled_pixels():
    label = np.zeros((5, 8, 8), np.uint8)
    assert largest_slice(label) == 2
    label[3, :2] = 1
    label[4, :1] = 3
    assert largest_slice(label) == 3


@pytest.mark.parametrize(("width", "bar"), [(300, 50), (60, 20), (8.5, 5), (2, 1)])
def test_the_scale_bar_fits(width, bar):
    assert bar_length_mm(width) == bar
