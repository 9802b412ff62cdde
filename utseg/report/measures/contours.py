"""One cine for its page: a WebP of all slices of all frames, cropped to the heart, and the labels' outlines as SVG paths.

Slices lie as in the file. Pixels of the WebP may be coarser than the file's, so that a cine keeps to its budget; outlines are in the
file's own pixels. Where there is no image the outlines stand alone. Nothing is measured here.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utseg.case import Case
from utseg.errors import InputError, UtsegError
from utseg.figures.colours import grey_values, label_colours
from utseg.figures.outlines import drawing_order, outline_paths
from utseg.figures.sprite import sprite
from utseg.figures.windows import bar_length_mm, shown_slices, window_around
from utseg.label_map import Labels, LabelValue
from utseg.measure.record import CineMeasures
from utseg.rawdata.gate import read_case, read_first_channel, read_label, read_label_cine
from utseg.rawdata.geometry import Geometry

MARGIN_MM = 16.0
PIXELS_PER_CINE = 4_500_000
QUALITY = 75
NO_IMAGE = "no image behind the outlines: nothing says where it is; name it with --images"


@dataclass(frozen=True)
class CineRequest:
    """A cine to draw. `labels`: how the masks number them."""

    measures: CineMeasures
    masks: Path
    labels: Labels

    def __str__(self) -> str:
        return self.measures.cine


@dataclass(frozen=True)
class CineContours:
    """What the page shows of a cine: JSON values only. `lacks`: why there is no image, or empty.

    The paths and the cells of the WebP stand frame by frame, in each frame slice by slice.
    """

    cine: str
    page: dict[str, Any]
    lacks: str = ""


def draw_contours(request: CineRequest) -> CineContours:
    """Reads the cine's mask and image through the gate and draws them. Raises InputError where the mask cannot be read."""
    measures, labels = request.measures, drawn_labels(request.labels)
    label_TZYX, geometry = _read_masks(request)
    image_TZYX, lacks = _read_images(measures, geometry)
    slices = shown_slices(np.any(label_TZYX > 0, axis=(0, 2, 3)))
    step = geometry.spacing_zyx_mm[1:]
    labelled_YX = np.any(label_TZYX[:, slices], axis=(0, 1))
    rows, columns = window_around(labelled_YX, step, MARGIN_MM, square=False)
    label_NYX = label_TZYX[:, slices, rows, columns].reshape(-1, *labelled_YX[rows, columns].shape)
    height, width = (size * mm for size, mm in zip(label_NYX.shape[1:], step, strict=True))
    image = None
    if image_TZYX is not None:
        grey_NYX = grey_values(image_TZYX[:, slices, rows, columns]).reshape(label_NYX.shape)
        image = sprite(grey_NYX, PIXELS_PER_CINE, QUALITY)
    page = {
        "image": image,
        "width": round(width, 2),
        "height": round(height, 2),
        "bar": bar_length_mm(width),
        "mm": [round(mm, 4) for mm in step[::-1]],
        "slices": [z + 1 for z in slices],
        "of": label_TZYX.shape[1],
        "order": drawing_order(label_NYX, list(labels.values())),
        "paths": outline_paths(label_NYX, labels),
    }
    return CineContours(measures.cine, page, lacks)


def named_only(error: UtsegError, *folders: Path) -> str:
    """What is wrong, in one line, with the names of files in these folders only: a page may be given away, and paths tell of people."""
    words = "; ".join(error.lines())
    for folder in folders:
        words = words.replace(f"{folder}{os.sep}", "")
    return words


def drawn_labels(labels: Labels) -> dict[str, LabelValue]:
    """Those that have a colour: background and `ignore` are left out."""
    return {name: labels[name] for name in label_colours(labels)}


def _read_masks(request: CineRequest) -> tuple[NDArray[np.uint8], Geometry]:
    """All frames, (T, Z, Y, X)."""
    measures, labels = request.measures, {"": 0, **request.labels}
    if not measures.files:
        return read_label_cine(request.masks / measures.mask, labels)
    read = [read_label(request.masks / file.mask, labels) for file in measures.files]
    return np.stack([label for label, _ in read]), _one_geometry(geometry for _, geometry in read)


def _read_images(measures: CineMeasures, geometry: Geometry) -> tuple[NDArray[np.float32] | None, str]:
    """All frames, (T, Z, Y, X), on the grid of the masks; or None and why."""
    if measures.image is None and not any(file.image for file in measures.files):
        return None, NO_IMAGE
    try:
        if measures.image is not None:
            path = Path(measures.image)
            cine = read_case(Case(measures.cine, measures.subject, (path,), channels=measures.frames), {})
            image, placed = cine.image_CZYX, cine.geometry
        else:
            read = [read_first_channel(Path(str(file.image)), file.image_frame) for file in measures.files]
            image, placed = np.stack([frame for frame, _ in read]), _one_geometry(found for _, found in read)
        if differences := geometry.differences(placed):
            raise InputError(f"the masks do not lie on its grid: {'; '.join(differences)}")
    except UtsegError as error:
        folders = {
            Path(image).parent
            for image in (measures.image, *(file.image for file in measures.files))
            if image
        }
        return None, f"no image behind the outlines: {named_only(error, *folders)}"
    return image, ""


def _one_geometry(geometries: Iterable[Geometry]) -> Geometry:
    first, *others = geometries
    for other in others:
        if differences := first.differences(other):
            raise InputError(f"its frames do not lie on one grid: {'; '.join(differences)}")
    return first
