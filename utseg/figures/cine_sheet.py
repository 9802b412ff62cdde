"""One picture of a cine: slices at ED and ES with outlines, the volumes over the cycle, and figures in words. Pillow alone draws it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.Image import Image as Picture
from PIL.ImageFont import load_default

from utseg.figures.axes import number_text, scale
from utseg.figures.colours import STRUCTURE_COLOURS
from utseg.figures.montage import BACKGROUND, FINER, FONT, FOREGROUND, montage
from utseg.label_map import Labels, inside_any, structures

Volumes = Mapping[str, Sequence[float | None]]
"""Of a structure by its role ("LV", "MYO", "RV"): ml, one a frame; None where it is not known."""
SLICES = 3
MAGNIFICATION = 2.0
GAP = 12
HEIGHT = 300
WORDS_WIDTH = 300
LEFT, TOP, BOTTOM = 48, 30, 40
ROW = 17
GRID = "#404040"
LINE = 2


@dataclass(frozen=True)
class Shown:
    """A frame that the picture shows: its name, as "ED", and which it is, counted from 0."""

    name: str
    time: int
    image_ZYX: NDArray[np.float32]
    label_ZYX: NDArray[np.uint8]


def cine_sheet(
    frames: Sequence[Shown],
    spacing_yx_mm: tuple[float, float],
    labels: Labels,
    volumes: Volumes,
    words: Sequence[str],
    title: str,
) -> NDArray[np.uint8]:
    """The picture (H, W, 3): a row of slices for each frame; below, volumes over the cycle and, beside them, the lines of `words`."""
    slices = _some_slices(np.stack([frame.label_ZYX for frame in frames]), labels)
    images = np.concatenate([frame.image_ZYX[slices] for frame in frames])
    shown = np.concatenate([frame.label_ZYX[slices] for frame in frames])
    captions = [f"{each.name}, frame {each.time + 1}, slice {z + 1}" for each in frames for z in slices]
    top = montage(images, shown, captions, spacing_yx_mm, labels, title, len(slices), MAGNIFICATION)
    below = max(HEIGHT, TOP + ROW * (len(words) + 1))
    sheet = Image.new("RGB", (max(top.width, 2 * WORDS_WIDTH), top.height + below), BACKGROUND)
    sheet.paste(top, (0, 0))
    sheet.paste(_curves(volumes, frames, sheet.width - WORDS_WIDTH), (0, top.height))
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(words):
        corner = sheet.width - WORDS_WIDTH + GAP, top.height + TOP + number * ROW
        pen.text(corner, line, FOREGROUND, load_default(FONT))
    return np.asarray(sheet)


def _some_slices(label_NZYX: NDArray[np.uint8], labels: Labels) -> list[int]:
    """One of each third of the labelled slices; the middle slice where nothing is labelled."""
    labelled = np.flatnonzero(inside_any(label_NZYX, structures(labels).values()).any(axis=(0, 2, 3)))
    if not len(labelled):
        return [label_NZYX.shape[1] // 2]
    places = (np.arange(SLICES) + 0.5) / SLICES * len(labelled)
    return sorted({int(labelled[int(place)]) for place in places})


def _curves(volumes: Volumes, frames: Sequence[Shown], width: int) -> Picture:
    """Volumes in ml over the frames, and where the shown frames are."""
    picture = Image.new("RGB", (width * FINER, HEIGHT * FINER), BACKGROUND)
    pen, font = ImageDraw.Draw(picture), load_default(FONT * FINER)
    count = max((len(curve) for curve in volumes.values()), default=1)
    known = [value for curve in volumes.values() for value in curve if value is not None]
    x = scale(1, max(count, 2), LEFT, width - 16, whole=True)
    y = scale(0, max([*known, 1.0]), HEIGHT - BOTTOM, TOP)

    def draw(points: Sequence[tuple[float, float]], colour: str, thick: int = 1) -> None:
        pen.line([(a * FINER, b * FINER) for a, b in points], colour, thick * FINER, joint="curve")

    def write(a: float, b: float, text: str, colour: str = FOREGROUND, anchor: str = "mm") -> None:
        pen.text((a * FINER, b * FINER), text, colour, font, anchor=anchor)

    for tick in y.ticks:
        draw([(LEFT, y(tick)), (width - 16, y(tick))], GRID)
        write(LEFT - 6, y(tick), number_text(tick), anchor="rm")
    for tick in x.ticks:
        write(x(tick), HEIGHT - BOTTOM + 12, number_text(tick))
    write((LEFT + width) / 2, HEIGHT - 10, "frame")
    write(16, TOP - 14, "ml")
    for frame in frames:
        at = x(frame.time + 1)
        draw([(at, TOP), (at, HEIGHT - BOTTOM)], FOREGROUND)
        write(at, TOP - 14, frame.name)
    for role, curve in volumes.items():
        points = [None if value is None else (x(time + 1), y(value)) for time, value in enumerate(curve)]
        for first, second in pairwise(points):
            if first and second:
                draw([first, second], STRUCTURE_COLOURS[role], LINE)
    return picture.reduce(FINER)
