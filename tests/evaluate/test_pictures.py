"""Overlay pictures: whole PNGs that carry title and Dice, colours that stay with a label's value."""

import numpy as np
import pytest
from PIL import Image

from utseg.evaluate.pictures import largest_slice, overlay_picture
from utseg.figures.outlines import label_colour

LABELS = {"background": 0, "LV": 1, "MYO": 2}


def _write(path, reference, prediction, shape=(40, 60)):
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    overlay_picture(
        image, reference, prediction, (2.0, 1.5), LABELS, {"LV": 0.9123, "MYO": None}, "Vendor A", path
    )
    with Image.open(path) as picture:
        picture.load()
        return picture.text["Title"], np.asarray(picture.convert("RGB"))


def test_title_and_dice_are_in_the_picture(tmp_path):
    reference = np.zeros((40, 60), np.uint8)
    reference[10:30, 20:40] = 2
    reference[15:25, 25:35] = 1
    title, pixels = _write(tmp_path / "a.png", reference, np.roll(reference, 2, axis=0))
    assert title == "Vendor A; prediction · Dice of the volume: LV 0.912  MYO –"
    for value in (1, 2):
        colour = [int(label_colour(value)[start : start + 2], 16) for start in (1, 3, 5)]
        assert (np.abs(pixels.astype(int) - colour).sum(axis=-1) < 30).any()
    assert min(pixels.shape[:2]) > 100


@pytest.mark.parametrize("shape", [(40, 60), (3, 200), (1, 1)])
def test_nothing_labelled_still_gives_a_picture(tmp_path, shape):
    empty = np.zeros(shape, np.uint8)
    title, _ = _write(tmp_path / "a.png", empty, empty, shape)
    assert title.startswith("Vendor A")


def test_the_largest_slice_has_most_labelled_pixels():
    label = np.zeros((5, 8, 8), np.uint8)
    assert largest_slice(label) == 2
    label[3, :2] = 1
    label[4, :1] = 3
    assert largest_slice(label) == 3
