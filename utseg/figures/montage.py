"""Slices in a grid with the outlines of their labels, a legend, a scale bar in mm: of a stack, or of one slice's reference and prediction.

Pillow alone draws it, so that a worker process makes one in well under a second. Its number of pixels is bounded, whatever the volume's
size. Slices lie as in the file: rows from top to bottom, columns from left to right.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.Image import Image as Picture
from PIL.ImageFont import load_default
from PIL.PngImagePlugin import PngInfo

from utseg.figures.colours import grey_values, label_colours
from utseg.figures.outlines import contours, drawing_order
from utseg.figures.windows import bar_length_mm, shown_slices, window_around
from utseg.label_map import Labels, inside

MARGIN_MM = 45.0
PIXELS = 1_500_000
LARGEST_SIDE = 4096
MAGNIFICATION = 3.0  # pixels of the picture for one of the image, at most
ASPECT = 4 / 3
FINER = 2  # everything is drawn so many times larger, then shrunk: Pillow's lines are not smooth
HEADER = 30
GAP = 4
FONT = 13
LINE = 1.25
BACKGROUND = "#101010"
FOREGROUND = "#F0F0F0"


@dataclass(frozen=True)
class CellGrid:
    """`columns` cells a row, each `width` × `height` pixels."""

    columns: int
    rows: int
    width: int
    height: int


def stack_montage(
    image_ZYX: NDArray[np.float32],
    label_ZYX: NDArray[np.uint8],
    spacing_zyx_mm: tuple[float, float, float],
    labels: Labels,
    title: str,
) -> Picture:
    """The slices of a volume, each with its labels; a tall stack is thinned out evenly."""
    slices = shown_slices(np.any(label_ZYX > 0, axis=(1, 2)))
    captions = [f"{z + 1}/{len(label_ZYX)}" for z in slices]
    return montage(image_ZYX[slices], label_ZYX[slices], captions, spacing_zyx_mm[1:], labels, title)


def comparison_montage(
    image_YX: NDArray[np.float32],
    reference_YX: NDArray[np.uint8],
    prediction_YX: NDArray[np.uint8],
    spacing_yx_mm: tuple[float, float],
    labels: Labels,
    title: str,
    scores: str = "",
    magnification: float = MAGNIFICATION,
) -> Picture:
    """One slice three times: the image, with its reference, with the prediction, below which its scores stand."""
    label_NYX = np.stack([np.zeros_like(reference_YX), reference_YX, prediction_YX])
    captions = ["image", "reference", f"prediction {scores}".strip()]
    image_NYX = np.stack([image_YX] * 3)
    return montage(image_NYX, label_NYX, captions, spacing_yx_mm, labels, title, 3, magnification)


def montage(
    image_NYX: NDArray[np.float32],
    label_NYX: NDArray[np.uint8],
    captions: Sequence[str],
    spacing_yx_mm: tuple[float, float],
    labels: Labels,
    title: str,
    columns: int | None = None,
    magnification: float = MAGNIFICATION,
) -> Picture:
    """The labelled part of all slices with some margin, or whole slices where nothing is labelled; `columns` None fills a screen."""
    rows, width = window_around(np.any(label_NYX > 0, axis=0), spacing_yx_mm, MARGIN_MM)
    grey_NYX = grey_values(image_NYX[:, rows, width])
    size_mm = grey_NYX.shape[1] * spacing_yx_mm[0], grey_NYX.shape[2] * spacing_yx_mm[1]
    grid = cell_grid(len(captions), size_mm, min(spacing_yx_mm) / magnification, columns)
    header = _header(title, labels, grid.columns * (grid.width + GAP) - GAP)
    sheet = Image.new("RGB", (header.width, HEADER + grid.rows * (grid.height + GAP) - GAP), BACKGROUND)
    sheet.paste(header, (0, 0))
    for number, caption in enumerate(captions):
        cell = _cell(grey_NYX[number], label_NYX[number, rows, width], labels, grid, caption)
        if number == 0:
            bar_mm = bar_length_mm(size_mm[1])
            _draw_bar(cell, bar_mm, bar_mm / size_mm[1] * cell.width)
        row, column = divmod(number, grid.columns)
        sheet.paste(cell, (column * (grid.width + GAP), HEADER + row * (grid.height + GAP)))
    return sheet


def png(picture: Picture, texts: Mapping[str, str]) -> bytes:
    """The bytes of a PNG with texts in its metadata."""
    info = PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def cell_grid(
    count: int, size_yx_mm: tuple[float, float], least_mm: float, columns: int | None = None
) -> CellGrid:
    """Cells for so many slices of that size: about as wide as a screen, no more than PIXELS together, of at least `least_mm` a pixel."""

    def aspect(columns: int) -> float:
        return columns * size_yx_mm[1] / (math.ceil(count / columns) * size_yx_mm[0])

    columns = columns or min(range(1, count + 1), key=lambda columns: abs(math.log(aspect(columns) / ASPECT)))
    rows = math.ceil(count / columns)
    width_mm, height_mm = columns * size_yx_mm[1], rows * size_yx_mm[0]
    per_mm = min(
        math.sqrt(PIXELS / (width_mm * height_mm)), LARGEST_SIDE / max(width_mm, height_mm), 1 / least_mm
    )
    return CellGrid(columns, rows, *(max(1, round(size * per_mm)) for size in size_yx_mm[::-1]))


def _cell(
    grey_YX: NDArray[np.uint8],
    label_YX: NDArray[np.uint8],
    labels: Labels,
    grid: CellGrid,
    caption: str,
) -> Picture:
    fine = grid.width * FINER, grid.height * FINER
    picture = Image.fromarray(grey_YX).resize(fine, Image.Resampling.BICUBIC).convert("RGB")
    pen = ImageDraw.Draw(picture)
    scale_yx = np.array(fine[::-1]) / grey_YX.shape
    colours = {labels[name]: colour for name, colour in label_colours(labels).items()}
    values = list(colours)
    for value in (values[index] for index in drawing_order(label_YX, values)):
        for outline_N2 in contours(inside(label_YX, value)):
            points = [(x, y) for y, x in (outline_N2 * scale_yx).tolist()]
            pen.line(points, colours[value], width=round(LINE * FINER), joint="curve")
    picture = picture.reduce(FINER)
    _write(ImageDraw.Draw(picture), (4, 2), caption)
    return picture


def _draw_bar(picture: Picture, length_mm: int, pixels: float) -> None:
    """A scale bar at the bottom left, with its length."""
    pen = ImageDraw.Draw(picture)
    x, y = max(4, round(0.04 * picture.width)), picture.height - 8
    pen.rectangle((x, y, x + round(pixels) - 1, y + 2), FOREGROUND)
    _write(pen, (x, y - FONT - 5), f"{length_mm} mm")


def _write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str) -> None:
    """Text that is legible on bright tissue, too."""
    pen.text(at, text, FOREGROUND, load_default(FONT), stroke_width=1, stroke_fill=BACKGROUND)


def _header(title: str, labels: Labels, width: int) -> Picture:
    """The title and, at the right, the labels' names in their colours. Wider than asked for where the text is."""
    font = load_default(FONT)
    colours = label_colours(labels)
    widths = {name: math.ceil(font.getlength(name)) + 34 for name in colours}
    least = math.ceil(font.getlength(title)) + 20 + sum(widths.values())
    picture = Image.new("RGB", (max(width, least), HEADER), BACKGROUND)
    pen = ImageDraw.Draw(picture)
    pen.text((6, 7), title, FOREGROUND, font)
    x = picture.width - sum(widths.values())
    for name, colour in colours.items():
        pen.rectangle((x, 9, x + 12, 21), colour)
        pen.text((x + 18, 7), name, FOREGROUND, font)
        x += widths[name]
    return picture
