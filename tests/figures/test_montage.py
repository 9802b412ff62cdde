"""Montages: bounded, in the labels' colours and in mm, of a stack and of one slice's reference and prediction."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from utseg.figures.colours import COLOURS, label_colours
from utseg.figures.montage import (
    GAP,
    HEADER,
    LARGEST_SIDE,
    PIXELS,
    cell_grid,
    comparison_montage,
    png,
    stack_montage,
)

LABELS = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}


def draw(label_ZYX, spacing=(8.0, 1.5, 1.5), image_ZYX=None, labels=LABELS, title="case"):
    if image_ZYX is None:
        image_ZYX = np.random.default_rng(0).random(label_ZYX.shape, dtype=np.float32)
    return np.asarray(stack_montage(image_ZYX, label_ZYX, spacing, labels, title)).astype(int)


def rgb(colour):
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]


def near(pixels, colour, within=60):
    """Where a picture has about this colour."""
    return np.abs(pixels - rgb(colour)).sum(axis=-1) < within


def disc(shape=(4, 80, 80), radius=20):
    y, x = np.mgrid[: shape[1], : shape[2]]
    distance = np.hypot(y - shape[1] / 2 + 0.5, x - shape[2] / 2 + 0.5)
    label = np.zeros(shape, np.uint8)
    label[:, distance < radius] = 2
    label[:, distance < radius / 2] = 1
    return label


def test_outlines_are_in_the_labels_colours():
    pixels = draw(disc(), image_ZYX=np.tile(np.linspace(0, 0.2, 80, dtype=np.float32), (4, 80, 1)))
    body = pixels[HEADER:]
    assert near(body, COLOURS[0]).sum() > 100
    assert near(body, COLOURS[1]).sum() > 100
    assert not near(body, COLOURS[2], within=30).any()
    assert near(pixels[:HEADER], COLOURS[2]).sum() >= 12 * 12  # the legend names every label


def test_what_is_measured_on_the_picture_is_in_mm():
    """The bar and the circle's diameter have one scale, in both directions, whatever the pixels' shape."""
    dark = np.zeros((1, 120, 60), np.float32)
    dark[0, 0, 0] = 1e-3
    y, x = np.mgrid[:120, :60]
    radius_mm = 30.0
    label = (np.hypot((y - 59.5) * 1.0, (x - 29.5) * 2.0) < radius_mm).astype(np.uint8)[np.newaxis]
    pixels = draw(label, (8.0, 1.0, 2.0), dark, {"LV": 1})
    body = pixels[HEADER:]
    rows, columns = np.nonzero(near(body, COLOURS[0], within=150))
    white = near(body[-9:], "#F0F0F0", within=20)
    per_mm = white.sum(axis=1).max() / 50
    assert np.ptp(rows) / per_mm == pytest.approx(2 * radius_mm, abs=2.5)
    assert np.ptp(columns) / per_mm == pytest.approx(2 * radius_mm, abs=2.5)


@given(st.integers(1, 24), st.floats(1, 3000), st.floats(1, 3000), st.floats(0.1, 5))
def test_a_picture_is_bounded(count, height_mm, width_mm, step_mm):
    grid = cell_grid(count, (height_mm, width_mm), step_mm / 3)
    assert grid.columns * grid.rows >= count
    assert (grid.rows - 1) * grid.columns < count
    assert grid.columns * grid.rows * (grid.width - 0.5) * (grid.height - 0.5) <= PIXELS * 1.01
    assert max(grid.columns * (grid.width - 0.5), grid.rows * (grid.height - 0.5)) <= LARGEST_SIDE


@settings(max_examples=6, deadline=None)
@given(
    st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.floats(0.5, 10), st.floats(0.3, 4), st.floats(0.3, 4)),
    st.integers(0, 3),
)
def test_any_volume_gives_a_picture(shape, spacing, most):
    label = np.random.default_rng(1).integers(0, most + 1, shape).astype(np.uint8)
    pixels = draw(label, spacing)
    assert pixels.shape[0] >= HEADER
    assert pixels.shape[0] * pixels.shape[1] < 3 * PIXELS


def test_the_layout_is_a_header_and_a_grid():
    pixels = draw(disc((6, 40, 40)))
    grid = cell_grid(6, (60.0, 60.0), 0.5)
    assert (grid.columns, grid.rows) == (3, 2)
    assert pixels.shape[0] == HEADER + 2 * grid.height + GAP


def test_a_structure_has_its_colour_however_a_dataset_numbers_it():
    mnms = label_colours(LABELS)
    assert mnms == dict(zip(("LV", "MYO", "RV"), COLOURS, strict=False))
    assert label_colours({"background": 0, "RV": 1, "MYO": 2, "LV": 3}) == mnms
    assert label_colours({"right ventricle": 4, "scar": 9})["right ventricle"] == mnms["RV"]


def test_other_labels_take_the_remaining_colours_by_value():
    assert label_colours({"scar": 9, "fat": 2, "RV": 1}) == {
        "scar": COLOURS[1],
        "fat": COLOURS[0],
        "RV": COLOURS[2],
    }
    many = label_colours({f"label {value}": value for value in range(1, 10)})
    assert list(many.values()) == [*COLOURS, *COLOURS[:2]] and len(set(COLOURS)) == len(COLOURS)


def test_texts_are_in_the_file():
    data = png(
        stack_montage(np.zeros((2, 9, 9), np.float32), disc((2, 9, 9), 3), (8, 1, 1), LABELS, ""),
        {"key": "µ"},
    )
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert picture.text["key"] == "µ"


def test_reference_and_prediction_stand_beside_the_image():
    label = disc()[0]
    dark = np.zeros(label.shape, np.float32)
    picture = comparison_montage(dark, label, np.zeros_like(label), (1.5, 1.5), LABELS, "case")
    image, reference, prediction = np.array_split(np.asarray(picture).astype(int)[HEADER + 20 :], 3, axis=1)
    for value in (1, 2):
        drawn = [near(part, COLOURS[value - 1]).sum() for part in (image, reference, prediction)]
        assert drawn[1] > 50 and drawn[0] == drawn[2] == 0


@pytest.mark.parametrize("shape", [(40, 60), (3, 200), (1, 1)])
def test_a_slice_without_labels_is_shown_whole(shape):
    empty = np.zeros(shape, np.uint8)
    picture = comparison_montage(np.ones(shape, np.float32), empty, empty, (2.0, 1.5), LABELS, "case")
    assert picture.height > HEADER
