"""One case's stack of slices for the page: a WebP of all slices side by side, cropped to the heart, and the labels' outlines as SVG paths.

Slices lie as in the file: rows from top to bottom, columns from left to right. Pixels of the WebP may be coarser than the file's where the
crop is large, so that a case keeps to its budget; outlines are in the file's own pixels. Nothing is scored here but the Dice of single
slices, for the caption.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utseg.errors import InputError
from utseg.figures.colours import grey_values
from utseg.figures.outlines import drawing_order, outline_paths
from utseg.figures.sprite import sprite
from utseg.figures.windows import bar_length_mm, largest_slice, shown_slices, window_around
from utseg.label_map import Labels, inside
from utseg.labels import ignored, match_labels
from utseg.rawdata.gate import read_first_channel, read_label
from utseg.report.case_files import CaseFiles

MARGIN_MM = 14.0
FIGURE_MARGIN_MM = 20.0
PIXELS_PER_CASE = 190_000
PIXELS_OF_FIGURE = 60_000
QUALITY = 62
FIGURE_QUALITY = 84
REPRESENTATIVE_AREA = 0.3


@dataclass(frozen=True)
class StackRequest:
    """A case to show. `labels`: names and values, background left out. `figure`: also a larger picture of one slice."""

    files: CaseFiles
    labels: Labels
    figure: bool = False
    pixels: int = PIXELS_PER_CASE

    def __str__(self) -> str:
        return self.files.case_id


@dataclass(frozen=True)
class Stack:
    """What the page shows of a case: JSON values only. `figure`, of one slice, is None where none was asked for."""

    case_id: str
    page: dict[str, Any]
    figure: dict[str, Any] | None


@dataclass(frozen=True)
class CaseArrays:
    """A case's image and masks, all on one grid (Z, Y, X)."""

    image: NDArray[np.float32]
    reference: NDArray[np.uint8]
    predictions: Mapping[str, NDArray[np.uint8]]
    spacing_zyx_mm: tuple[float, float, float]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Where reference or a prediction has a label."""
        masks = self.reference, *self.predictions.values()
        labelled: NDArray[np.bool_] = np.any([mask > 0 for mask in masks], axis=0)
        return labelled


def make_stack(request: StackRequest) -> Stack:
    """Reads the case's files through the gate and draws them. Raises InputError where a file is damaged or does not lie as the image."""
    case, labels = _read(request), request.labels
    slices = shown_slices(np.any(case.labelled, axis=(1, 2)))
    page = _drawn(case, labels, slices, MARGIN_MM, request.pixels, QUALITY)
    figure = None
    if request.figure:
        z = representative_slice(case.reference, list(case.predictions.values()))
        figure = _drawn(case, labels, [z], FIGURE_MARGIN_MM, PIXELS_OF_FIGURE, FIGURE_QUALITY)
    return Stack(request.files.case_id, page, figure)


def _drawn(
    case: CaseArrays,
    labels: Labels,
    slices: list[int],
    margin_mm: float,
    pixels: int,
    quality: int,
) -> dict[str, Any]:
    """The slices as one picture, cropped to what is labelled in them, with the outlines and Dice of each."""
    step = case.spacing_zyx_mm[1:]
    labelled_YX = np.any(case.labelled[slices], axis=0)
    rows, columns = window_around(labelled_YX, step, margin_mm, square=len(slices) == 1)
    grey = grey_values(case.image[slices, rows, columns])
    reference = case.reference[slices, rows, columns]
    masks = {name: mask[slices, rows, columns] for name, mask in case.predictions.items()}
    height, width = (size * mm for size, mm in zip(grey.shape[1:], step, strict=True))
    return {
        "image": sprite(grey, pixels, quality),
        "width": round(width, 2),
        "height": round(height, 2),
        "bar": bar_length_mm(width),
        "mm": [round(mm, 4) for mm in step[::-1]],
        "slices": [z + 1 for z in slices],
        "of": len(case.image),
        "thickness": round(case.spacing_zyx_mm[0], 3),
        "order": drawing_order(case.reference, list(labels.values())),
        "reference": outline_paths(reference, labels),
        "models": {
            name: {
                "paths": outline_paths(mask, labels),
                "dice": [slice_dice(*both, labels) for both in zip(mask, reference, strict=True)],
            }
            for name, mask in masks.items()
        },
    }


def _read(request: StackRequest) -> CaseArrays:
    files = request.files
    image, geometry = read_first_channel(files.image, files.image_frame)

    def read(
        path: Path, numbering: Labels | None, frame: int | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """In the values of the page, and where it is ignored."""
        mask, placed = read_label(path, numbering or {"": 0, **request.labels}, frame)
        if differences := geometry.differences(placed):
            raise InputError(f"{path}: does not lie on the grid of its image: {'; '.join(differences)}")
        if numbering is None:
            return mask, np.zeros(mask.shape, dtype=bool)
        matching = match_labels(request.labels, numbering, we="the report", they=str(path))
        return matching.translate(mask), ignored(mask, numbering)

    reference, hidden = read(files.reference, files.reference_labels, files.reference_frame)
    predictions = {}
    for name, path in files.predictions.items():
        mask, _ = read(path, files.prediction_labels.get(name), None)
        mask[hidden] = 0
        predictions[name] = mask
    return CaseArrays(image, reference, predictions, geometry.spacing_zyx_mm)


def slice_dice(
    prediction_YX: NDArray[np.uint8], reference_YX: NDArray[np.uint8], labels: Labels
) -> list[float | None]:
    """2|P∩R| / (|P|+|R|) of each label in one slice; None where both lack it."""
    pairs = [(inside(prediction_YX, value), inside(reference_YX, value)) for value in labels.values()]
    sizes = [(2 * int((p & r).sum()), int(p.sum()) + int(r.sum())) for p, r in pairs]
    return [round(shared / total, 3) if total else None for shared, total in sizes]


def representative_slice(reference_ZYX: NDArray[np.uint8], predictions: Sequence[NDArray[np.uint8]]) -> int:
    """The slice that looks like the case scores: its Dice over all labels (mean over models) is nearest to the volume's.

    Of slices in which the reference has at least 0.3 of its largest area; the middle slice where the reference has none.
    """
    areas = np.count_nonzero(reference_ZYX, axis=(1, 2))
    if not areas.any() or not predictions:
        return largest_slice(reference_ZYX)
    label_NZYX = np.stack(predictions)
    shared = np.count_nonzero((label_NZYX == reference_ZYX) & (reference_ZYX > 0), axis=(2, 3))
    total = np.count_nonzero(label_NZYX, axis=(2, 3)) + areas
    of_volume = (2 * shared.sum(axis=1) / total.sum(axis=1)).mean()
    of_slices = (2 * shared / np.maximum(total, 1)).mean(axis=0)
    distance = np.where(areas >= REPRESENTATIVE_AREA * areas.max(), np.abs(of_slices - of_volume), np.inf)
    return int(distance.argmin())
