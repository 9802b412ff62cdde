"""A sprite holds each slice in its cell, within its budget of pixels."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from utseg.figures.sprite import sprite


@pytest.mark.parametrize("pixels", [10_000_000, 4000])
def test_a_sprite_holds_each_slice_in_its_cell_within_the_budget(pixels):
    planes = np.stack([np.full((40, 30), value, np.uint8) for value in (10, 80, 160, 240, 30)])
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
