"""Draws a volume and its labels as one picture: the slices in a grid, outlines in the labels' colours, a legend, a scale bar in mm.

Pillow alone draws it, so that a worker process makes one in well under a second. Its number of pixels is bounded, whatever the volume's
size. Slices lie as in the file: rows from top to bottom, columns from left to right. No file is read or written here.
"""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from utseg.figures.outlines import (
    GREY_PERCENTILES,
    bar_length_mm,
    label_colour,
    label_contours,
    window_around,
)

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageFont import FreeTypeFont, ImageFont

MOST_SLICES = 24
PIXELS = 1_500_000
LARGEST_SIDE = 4096
MAGNIFICATION = 3.0
"""Pixels of the picture for one of the image, at most."""
ASPECT = 4 / 3
FINER = 2
"""Everything is drawn so many times larger, then shrunk: Pillow's lines are not smooth."""
HEADER = 30
GAP = 4
FONT = 13
LINE = 1.25
BACKGROUND = "#101010"
FOREGROUND = "#F0F0F0"


@dataclass(frozen=True)
class Grid:
    """`columns` cells a row, each `width` × `height` pixels."""

    columns: int
    rows: int
    width: int
    height: int


def montage(
    image_ZYX: NDArray[np.float32],
    label_ZYX: NDArray[np.uint8],
    spacing_zyx_mm: tuple[float, float, float],
    labels: Mapping[str, int],
    title: str,
    texts: Mapping[str, str],
) -> bytes:
    """The bytes of a PNG. `texts` go into its metadata.

    Shows the labelled part of the slices with some margin, whole slices where nothing is labelled. A tall stack is thinned out evenly.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    labelled_ZYX = label_ZYX > 0
    slices = shown_slices(np.any(labelled_ZYX, axis=(1, 2)))
    rows, columns = window_around(np.any(labelled_ZYX, axis=0), spacing_zyx_mm[1:])
    shown = image_ZYX[slices, rows, columns]
    low, high = np.percentile(shown, GREY_PERCENTILES)
    grey = (np.clip((shown - low) / max(float(high - low), 1e-6), 0, 1) * 255).astype(np.uint8)
    size_mm = grey.shape[1] * spacing_zyx_mm[1], grey.shape[2] * spacing_zyx_mm[2]
    grid = grid_of(len(slices), size_mm, min(spacing_zyx_mm[1:]))
    header = _header(title, labels, grid.columns * (grid.width + GAP) - GAP)
    height = HEADER + grid.rows * (grid.height + GAP) - GAP
    sheet = Image.new("RGB", (header.width, height), BACKGROUND)
    sheet.paste(header, (0, 0))
    for number, z in enumerate(slices):
        caption = f"{z + 1}/{len(label_ZYX)}"
        cell = _cell(grey[number], label_ZYX[z, rows, columns], labels, grid, caption)
        if number == 0:
            bar_mm = bar_length_mm(size_mm[1])
            _draw_bar(cell, bar_mm, bar_mm / size_mm[1] * cell.width)
        row, column = divmod(number, grid.columns)
        sheet.paste(cell, (column * (grid.width + GAP), HEADER + row * (grid.height + GAP)))
    info = PngInfo()
    for key, text in {"Title": title, **texts}.items():
        info.add_itxt(key, text)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def shown_slices(labelled_Z: NDArray[np.bool_]) -> list[int]:
    """All slices of a short stack; of a tall one MOST_SLICES from one before the first with a label to one after the last, evenly."""
    count = len(labelled_Z)
    if count <= MOST_SLICES:
        return list(range(count))
    there = np.flatnonzero(labelled_Z)
    first, last = (max(there[0] - 1, 0), min(there[-1] + 1, count - 1)) if len(there) else (0, count - 1)
    number = min(MOST_SLICES, last - first + 1)
    return [int(z) for z in np.linspace(first, last, number).round()]


def grid_of(count: int, size_yx_mm: tuple[float, float], smallest_step_mm: float) -> Grid:
    """Cells for so many slices of that size: together about as wide as a screen and no more than PIXELS, unmagnified beyond what helps."""

    def aspect(columns: int) -> float:
        return columns * size_yx_mm[1] / (math.ceil(count / columns) * size_yx_mm[0])

    columns = min(range(1, count + 1), key=lambda columns: abs(math.log(aspect(columns) / ASPECT)))
    rows = math.ceil(count / columns)
    width_mm, height_mm = columns * size_yx_mm[1], rows * size_yx_mm[0]
    per_mm = min(
        math.sqrt(PIXELS / (width_mm * height_mm)),
        LARGEST_SIDE / max(width_mm, height_mm),
        MAGNIFICATION / smallest_step_mm,
    )
    return Grid(columns, rows, *(max(1, round(size * per_mm)) for size in size_yx_mm[::-1]))


def _cell(
    grey_YX: NDArray[np.uint8],
    label_YX: NDArray[np.uint8],
    labels: Mapping[str, int],
    grid: Grid,
    caption: str,
) -> "Picture":
    from PIL import Image, ImageDraw

    fine = grid.width * FINER, grid.height * FINER
    picture = Image.fromarray(grey_YX).resize(fine, Image.Resampling.BICUBIC).convert("RGB")
    pen = ImageDraw.Draw(picture)
    scale_yx = np.array(fine[::-1]) / grey_YX.shape
    for value, outlines in label_contours(label_YX, labels):
        for outline_N2 in outlines:
            points = [(x, y) for y, x in (outline_N2 * scale_yx).tolist()]
            pen.line(points, label_colour(value), width=round(LINE * FINER), joint="curve")
    picture = picture.reduce(FINER)
    ImageDraw.Draw(picture).text((4, 2), caption, FOREGROUND, _font())
    return picture


def _draw_bar(picture: "Picture", length_mm: float, pixels: float) -> None:
    """A scale bar at the bottom left, with its length."""
    from PIL import ImageDraw

    pen = ImageDraw.Draw(picture)
    x, y = max(4, round(0.04 * picture.width)), picture.height - 8
    pen.rectangle((x, y, x + round(pixels) - 1, y + 2), FOREGROUND)
    pen.text((x, y - FONT - 5), f"{length_mm:.0f} mm", FOREGROUND, _font())


def _header(title: str, labels: Mapping[str, int], width: int) -> "Picture":
    """The title and, at the right, the labels' names in their colours. Wider than asked for where the text is."""
    from PIL import Image, ImageDraw

    font = _font()
    names = {name: label_colour(value) for name, value in labels.items() if value > 0}
    widths = {name: math.ceil(font.getlength(name)) + 34 for name in names}
    picture = Image.new(
        "RGB", (max(width, math.ceil(font.getlength(title)) + 20 + sum(widths.values())), HEADER), BACKGROUND
    )
    pen = ImageDraw.Draw(picture)
    pen.text((6, 7), title, FOREGROUND, font)
    x = picture.width - sum(widths.values())
    for name, colour in names.items():
        pen.rectangle((x, 9, x + 12, 21), colour)
        pen.text((x + 18, 7), name, FOREGROUND, font)
        x += widths[name]
    return picture


def _font() -> "FreeTypeFont | ImageFont":
    from PIL.ImageFont import load_default

    return load_default(FONT)
