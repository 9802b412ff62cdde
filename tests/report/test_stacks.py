"""Stacks of slices: which slices and which part of them, how large, which slice a figure shows."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rawfiles import make_affine, make_nifti

from utseg.errors import InputError
from utseg.report.case_files import Places
from utseg.report.stacks import (
    MAX_SLICES,
    StackRequest,
    crop_window,
    drawing_order,
    make_stack,
    representative_slice,
    shown_slices,
    slice_dice,
    sprite,
    square_window,
)

LABELS = {"LV": 1, "MYO": 2, "RV": 3}


@given(st.integers(1, 200), st.data())
def test_all_slices_of_a_short_stack_and_the_labelled_ones_of_a_tall_one(count, data):
    first = data.draw(st.integers(0, count - 1))
    last = data.draw(st.integers(first, count - 1))
    labelled = np.zeros((count, 2, 2), bool)
    labelled[first : last + 1] = True
    slices = shown_slices(labelled)
    assert len(slices) <= MAX_SLICES and (np.diff(slices) > 0).all()
    if count <= MAX_SLICES:
        assert len(slices) == count
    else:
        assert slices[0] == max(first - 1, 0) and slices[-1] <= min(last + 1, count - 1)


@given(st.integers(0, 59), st.integers(0, 59), st.integers(0, 49), st.integers(0, 49), st.floats(0.5, 3))
def test_windows_hold_what_is_labelled_and_lie_in_the_image(y0, y1, x0, x1, step):
    labelled = np.zeros((60, 50), bool)
    labelled[min(y0, y1) : max(y0, y1) + 1, min(x0, x1) : max(x0, x1) + 1] = True
    for window in (crop_window(labelled, (step, 1.0)), square_window(labelled, (step, 1.0))):
        assert labelled[window].sum() == labelled.sum()
        for axis, part in enumerate(window):
            assert 0 <= part.start < part.stop <= labelled.shape[axis]


def test_nothing_labelled_shows_the_whole_image():
    empty = np.zeros((6, 5), bool)
    for window in (crop_window(empty, (1, 1)), square_window(empty, (1, 1))):
        assert empty[window].shape == (6, 5)


@pytest.mark.parametrize("pixels", [10_000_000, 4000])
def test_a_sprite_holds_each_slice_in_its_cell_within_the_budget(pixels):
    planes = np.stack([np.full((40, 30), value, float) for value in (10, 80, 160, 240, 30)])
    found = sprite(planes, pixels, 90)
    with Image.open(io.BytesIO(base64.b64decode(found["data"]))) as picture:
        grey = np.asarray(picture.convert("L")).astype(int)
    (width, height), columns = found["cell"], found["columns"]
    assert list(grey.shape[::-1]) == found["sheet"] and width * height * 5 <= max(
        pixels * 1.1, 40 * 30 * 5 * (pixels > 6000)
    )
    for number, value in enumerate((10, 80, 160, 240, 30)):
        y, x = number // columns * height, number % columns * width
        assert abs(grey[y + height // 2, x + width // 2] - value) <= 4


def test_a_cavity_is_drawn_after_its_wall_whatever_their_values():
    y, x = np.mgrid[:40, :40]
    radius = np.hypot(y - 20, x - 20)
    label = np.where(radius < 6, 3, np.where(radius < 12, 2, 0)).astype(np.uint8)[None]
    assert drawing_order(label, {"RV": 1, "MYO": 2, "LV": 3}) == [1, 2, 0]


def test_dice_of_a_slice():
    reference, prediction = np.array([[1, 1, 2, 0]], np.uint8), np.array([[1, 0, 2, 2]], np.uint8)
    assert slice_dice(prediction, reference, LABELS) == [0.667, 0.667, None]


def test_the_slice_shown_is_the_one_that_scores_as_the_case_does():
    reference = np.zeros((4, 10, 10), np.uint8)
    reference[:3, 2:8, 2:8] = 1
    reference[3, 2, 2] = 1
    prediction = reference.copy()
    prediction[0] = 0
    prediction[1, 2:5] = 0
    assert representative_slice(reference, [prediction]) == 1  # Dice 0, 0.67, 1 of slices, 0.67 of the volume
    assert representative_slice(np.zeros((5, 4, 4), np.uint8), [np.zeros((5, 4, 4), np.uint8)]) == 2


def test_files_that_do_not_lie_alike_are_refused(tmp_path):
    label = np.zeros((3, 20, 20), np.uint8)
    label[1, 5:9, 5:9] = 1
    image = make_nifti(tmp_path / "i.nii.gz", np.arange(1200, dtype=np.int16).reshape(3, 20, 20))
    reference = make_nifti(tmp_path / "r.nii.gz", label)
    shifted = make_nifti(tmp_path / "p.nii.gz", label, make_affine(origin=(0, 0, 0)))
    fine = Places("a", image, None, reference, None, {"m": reference})
    stack = make_stack(StackRequest(fine, LABELS, figure=True))
    assert stack.page["models"]["m"]["dice"][1] == [1.0, None, None] and stack.figure["slice"] == 2
    with pytest.raises(InputError, match=r"p\.nii\.gz: does not lie on the grid of its image"):
        make_stack(StackRequest(Places("a", image, None, reference, None, {"m": shifted}), LABELS))
