"""The slices of a stack as one small WebP, for a page that shows one of them at a time."""

import base64
import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def sprite(grey_ZYX: NDArray[np.uint8], pixels: int, quality: int) -> dict[str, Any]:
    """Slices in a grid as one WebP: {"data": base64, "columns", "cell": [width, height]}. Shrunk where they have more than `pixels`."""
    count, height, width = grey_ZYX.shape
    factor = min(1.0, math.sqrt(pixels / (count * height * width)))
    cell = max(1, round(width * factor)), max(1, round(height * factor))
    columns = min(count, math.ceil(math.sqrt(count * cell[1] / cell[0])))
    sheet = Image.new("L", (columns * cell[0], math.ceil(count / columns) * cell[1]))
    for number, plane in enumerate(grey_ZYX):
        picture = Image.fromarray(plane)
        if factor < 1:
            picture = picture.resize(cell, Image.Resampling.BOX if factor < 0.5 else Image.Resampling.LANCZOS)
        sheet.paste(picture, (number % columns * cell[0], number // columns * cell[1]))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=quality, method=4)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"data": data, "columns": columns, "cell": list(cell), "sheet": list(sheet.size)}
