"""The picture of a cine: slices of the shown frames, curves in the colours of their structures, whatever is missing."""

import numpy as np
import pytest
from PIL import ImageColor

from utseg.figures.cine_sheet import HEIGHT, Shown, cine_sheet
from utseg.figures.colours import STRUCTURE_COLOURS

LABELS = {"background": 0, "LV": 1, "RV": 2}


def sheet(label_ZYX: np.ndarray, volumes: dict, words: list[str]) -> np.ndarray:
    image = np.random.default_rng(0).random(label_ZYX.shape, dtype=np.float32)
    frames = [Shown("ED", 0, image, label_ZYX), Shown("ES", 4, image, label_ZYX)]
    return cine_sheet(frames, (1.5, 1.5), LABELS, volumes, words, "S001")


@pytest.mark.parametrize("slices", [1, 7])
def test_curves_are_drawn_in_the_colours_of_their_structures(slices: int) -> None:
    label = np.zeros((slices, 40, 40), np.uint8)
    label[:, 10:20, 10:20] = 1
    picture = sheet(label, {"LV": [90.0, 70, None, 50, 45, 80], "MYO": [None] * 6}, ["LV EDV  90 ml"])
    assert picture.dtype == np.uint8 and picture.ndim == 3
    below = picture[-HEIGHT:].reshape(-1, 3)
    assert (below == ImageColor.getrgb(STRUCTURE_COLOURS["LV"])).all(axis=1).any()
    for role in ("MYO", "RV"):
        assert not (below == ImageColor.getrgb(STRUCTURE_COLOURS[role])).all(axis=1).any()


def test_it_grows_with_its_words_and_stands_without_labels_or_volumes() -> None:
    nothing = np.zeros((3, 30, 30), np.uint8)
    assert len(sheet(nothing, {}, ["line"] * 40)) > len(sheet(nothing, {}, []))
