"""One case's stack of slices for the page: a WebP of all slices side by side, cropped to the heart, and the labels' outlines as SVG paths.

Slices lie as in the file: rows from top to bottom, columns from left to right. Pixels of the WebP may be coarser than the file's where the
crop is large, so that a case keeps to its budget; outlines are in the file's own pixels. Nothing is scored here but the Dice of single
slices, for the caption.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utseg.errors import InputError
from utseg.figures.outlines import span
from utseg.figures.paths import outlines, stack_outlines
from utseg.labels import Labels, match_labels
from utseg.report.case_files import Places

MARGIN_MM = 14.0
FIGURE_MARGIN_MM = 20.0
MAX_SLICES = 24
PIXELS_PER_CASE = 190_000
PIXELS_OF_FIGURE = 60_000
QUALITY = 62
FIGURE_QUALITY = 84
GREY_PERCENTILES = (0.5, 99.5)
REPRESENTATIVE_AREA = 0.3


@dataclass(frozen=True)
class StackRequest:
    """A case to show. `labels`: names and values, background left out. `figure`: also a larger picture of one slice."""

    places: Places
    labels: Mapping[str, int]
    figure: bool = False
    pixels: int = PIXELS_PER_CASE


@dataclass(frozen=True)
class Stack:
    """What the page shows of a case: JSON values only. `figure` is None where none was asked for."""

    case_id: str
    page: dict[str, Any]
    figure: dict[str, Any] | None


@dataclass(frozen=True)
class _Read:
    """A case's arrays, all on one grid (Z, Y, X)."""

    image: NDArray[np.float32]
    reference: NDArray[np.uint8]
    predictions: Mapping[str, NDArray[np.uint8]]
    spacing_zyx_mm: tuple[float, float, float]

    @property
    def every(self) -> list[NDArray[np.uint8]]:
        """Reference and predictions."""
        return [self.reference, *self.predictions.values()]


def make_stack(request: StackRequest) -> Stack:
    """Reads the case's files through the gate and draws them. Raises InputError where a file is damaged or does not lie as the image."""
    read, labels = _read(request), request.labels
    labelled = np.any([label > 0 for label in read.every], axis=0)
    slices = shown_slices(labelled)
    rows, columns = crop_window(labelled.any(axis=0), read.spacing_zyx_mm[1:])
    low, high = np.percentile(read.image[:, rows, columns], GREY_PERCENTILES)
    limits = float(low), float(high)
    grey = grey_values(read.image[slices, rows, columns], limits)
    reference = read.reference[slices, rows, columns]
    own = {name: label[slices, rows, columns] for name, label in read.predictions.items()}
    page = {
        "image": sprite(grey, request.pixels, QUALITY),
        "size": [grey.shape[2], grey.shape[1]],
        "mm": [round(step, 4) for step in read.spacing_zyx_mm[:0:-1]],
        "slices": [int(z) + 1 for z in slices],
        "of": len(read.image),
        "thickness": round(read.spacing_zyx_mm[0], 3),
        "order": drawing_order(read.reference, labels),
        "reference": stack_outlines(reference, labels),
        "models": {
            name: {
                "paths": stack_outlines(label, labels),
                "dice": [slice_dice(*both, labels) for both in zip(label, reference, strict=True)],
            }
            for name, label in own.items()
        },
    }
    figure = _figure(read, labels, limits) if request.figure else None
    return Stack(request.places.case_id, page, figure)


def _read(request: StackRequest) -> _Read:
    from utseg.rawdata.gate import read_image, read_label

    places = request.places
    image, geometry = read_image(places.image, places.image_frame)

    def read(path: Path, own: Labels | None, frame: int | None) -> NDArray[np.uint8]:
        """In the values of the page."""
        mask, placed = read_label(path, own or {"": 0, **request.labels}, frame)
        _require_alike(path, geometry.differences(placed))
        if own is None:
            return mask
        return match_labels(request.labels, own, we="the report", they=str(path)).translate(mask)

    reference = read(places.reference, places.reference_labels, places.reference_frame)
    predictions = {
        name: read(path, places.prediction_labels.get(name), None)
        for name, path in places.predictions.items()
    }
    return _Read(image, reference, predictions, geometry.spacing_zyx_mm)


def _figure(read: _Read, labels: Mapping[str, int], limits: tuple[float, float]) -> dict[str, Any]:
    """One slice, closer and finer than in the stack."""
    z = representative_slice(read.reference, list(read.predictions.values()))
    labelled = np.any([label[z] > 0 for label in read.every], axis=0)
    rows, columns = square_window(labelled, read.spacing_zyx_mm[1:])
    grey = grey_values(read.image[z : z + 1, rows, columns], limits)
    return {
        "image": sprite(grey, PIXELS_OF_FIGURE, FIGURE_QUALITY)["data"],
        "size": [grey.shape[2], grey.shape[1]],
        "mm": [round(step, 4) for step in read.spacing_zyx_mm[:0:-1]],
        "slice": z + 1,
        "of": len(read.image),
        "order": drawing_order(read.reference, labels),
        "reference": outlines(read.reference[z, rows, columns], labels),
        "models": {
            name: outlines(label[z, rows, columns], labels) for name, label in read.predictions.items()
        },
    }


def _require_alike(path: Any, differences: Sequence[str]) -> None:
    if differences:
        raise InputError(f"{path}: does not lie on the grid of its image: {'; '.join(differences)}")


def shown_slices(labelled_ZYX: NDArray[np.bool_]) -> NDArray[np.intp]:
    """All slices of a short stack; of a tall one those with labels and one more on either side, evenly thinned out to MAX_SLICES."""
    count = len(labelled_ZYX)
    if count <= MAX_SLICES:
        return np.arange(count)
    there = np.flatnonzero(labelled_ZYX.any(axis=(1, 2)))
    first, last = (max(there[0] - 1, 0), min(there[-1] + 1, count - 1)) if len(there) else (0, count - 1)
    step = math.ceil((last - first + 1) / MAX_SLICES)
    return np.arange(first, last + 1, step)


def crop_window(labelled_YX: NDArray[np.bool_], spacing_yx_mm: tuple[float, float]) -> tuple[slice, slice]:
    """What is labelled in any slice, with a margin, cut to the image; the whole image where nothing is."""
    window = []
    for axis, step in enumerate(spacing_yx_mm):
        places = np.flatnonzero(labelled_YX.any(axis=1 - axis))
        margin = round(MARGIN_MM / step)
        size = labelled_YX.shape[axis]
        first, last = (places[0] - margin, places[-1] + margin + 1) if len(places) else (0, size)
        window.append(slice(int(max(first, 0)), int(min(last, size))))
    return window[0], window[1]


def square_window(labelled_YX: NDArray[np.bool_], spacing_yx_mm: tuple[float, float]) -> tuple[slice, slice]:
    """A square in mm around what is labelled, moved or cut where the image ends; the whole image where nothing is labelled."""
    places = np.argwhere(labelled_YX)
    if not len(places):
        return slice(None), slice(None)
    low, high = places.min(axis=0), places.max(axis=0) + 1
    side_mm = ((high - low) * spacing_yx_mm).max() + 2 * FIGURE_MARGIN_MM
    window = []
    for axis, step in enumerate(spacing_yx_mm):
        size = labelled_YX.shape[axis]
        side = min(round(side_mm / step), size)
        first = min(max(round((low[axis] + high[axis] - side) / 2), 0), size - side)
        window.append(slice(first, first + side))
    return window[0], window[1]


def drawing_order(reference_ZYX: NDArray[np.uint8], labels: Mapping[str, int]) -> list[int]:
    """The labels' places in the order of drawing: what spans more comes first, so that a cavity's outline lies over that of its wall."""
    spans = [span((reference_ZYX == value).any(axis=0)) for value in labels.values()]
    return sorted(range(len(spans)), key=lambda place: -spans[place])


def grey_values(image: NDArray[np.float32], limits: tuple[float, float]) -> NDArray[np.float32]:
    """Intensities between the limits as 0 … 255."""
    low, high = limits
    grey: NDArray[np.float32] = np.clip((image - low) / max(high - low, 1e-6), 0, 1) * np.float32(255)
    return grey


def sprite(grey_ZYX: NDArray[np.floating[Any]], pixels: int, quality: int) -> dict[str, Any]:
    """Slices in a grid as one WebP: {"data": base64, "columns", "cell": [width, height]}. Shrunk where they have more than `pixels`."""
    from PIL import Image

    count, height, width = grey_ZYX.shape
    factor = min(1.0, math.sqrt(pixels / (count * height * width)))
    cell = max(1, round(width * factor)), max(1, round(height * factor))
    columns = min(count, math.ceil(math.sqrt(count * cell[1] / cell[0])))
    sheet = Image.new("L", (columns * cell[0], math.ceil(count / columns) * cell[1]))
    for number, plane in enumerate(grey_ZYX.astype(np.uint8)):
        picture = Image.fromarray(plane)
        if factor < 1:
            picture = picture.resize(cell, Image.Resampling.BOX if factor < 0.5 else Image.Resampling.LANCZOS)
        sheet.paste(picture, (number % columns * cell[0], number // columns * cell[1]))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=quality, method=4)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"data": data, "columns": columns, "cell": list(cell), "sheet": list(sheet.size)}


def slice_dice(
    prediction_YX: NDArray[np.uint8], reference_YX: NDArray[np.uint8], labels: Mapping[str, int]
) -> list[float | None]:
    """2|P∩R| / (|P|+|R|) of each label in one slice; None where both lack it."""
    found: list[float | None] = []
    for value in labels.values():
        p, r = prediction_YX == value, reference_YX == value
        total = int(p.sum()) + int(r.sum())
        found.append(round(2 * int((p & r).sum()) / total, 3) if total else None)
    return found


def representative_slice(reference_ZYX: NDArray[np.uint8], predictions: Sequence[NDArray[np.uint8]]) -> int:
    """The slice that looks like the case scores: its Dice over all labels (mean over models) is nearest to the volume's.

    Of slices in which the reference has at least 0.3 of its largest area; the middle slice where the reference has none.
    """
    areas = np.count_nonzero(reference_ZYX, axis=(1, 2))
    if not areas.any() or not predictions:
        return int(areas.argmax()) if areas.any() else len(reference_ZYX) // 2
    shared = np.zeros((len(predictions), len(reference_ZYX)))
    total = np.zeros_like(shared)
    for row, label_ZYX in enumerate(predictions):
        shared[row] = np.count_nonzero((label_ZYX == reference_ZYX) & (reference_ZYX > 0), axis=(1, 2))
        total[row] = np.count_nonzero(label_ZYX, axis=(1, 2)) + areas
    of_volume = (2 * shared.sum(axis=1) / total.sum(axis=1)).mean()
    of_slices = (2 * shared / np.maximum(total, 1)).mean(axis=0)
    distance = np.where(areas >= REPRESENTATIVE_AREA * areas.max(), np.abs(of_slices - of_volume), np.inf)
    return int(distance.argmin())
