"""From arrays to masks by the stages that files go through: the same numbers, and nothing read or written.

Axes: N images, C channels, K classes, Z slices, Y rows, X columns.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utseg.case import Case
from utseg.device import Precision, precision_to_predict_in
from utseg.errors import InputError, number_of
from utseg.inference.views import TestTimeAugmentation
from utseg.postprocess import Postprocessing
from utseg.predict.model import LoadedModel
from utseg.predict.pipeline import device_of, group_by_preprocessing, predictions
from utseg.predict.stages import Array, Outputs, Preprocessed, Volume, preprocess, segment
from utseg.quality import QualitySettings
from utseg.rawdata.channels import are_colours
from utseg.rawdata.gate import LoadedCase, checked_values
from utseg.rawdata.geometry import Geometry, affine_problem, as_affine

NUMBERS = "iuf"


def check_image(image_CZYX: ArrayLike, channels: Sequence[str], shown: str) -> Array:
    """The image as float32. `channels`: what its first axis has to be; `shown`: what messages call it.

    Raises InputError for another number of axes or channels, an axis of length 0, and in a channel for what are no real numbers, for NaN,
    infinity, or one value only; of colours, one channel may have one value only, as in files.
    """
    image = np.asarray(image_CZYX)
    if image.dtype.kind not in NUMBERS:
        raise InputError(
            f"{shown}: its values are of type {image.dtype}; expected real numbers, as float32 or int16"
        )
    if image.ndim != 4 or len(image) != len(channels) or not image.size:
        raise InputError(
            f"{shown}: its shape is {image.shape}; expected (channel, z, y, x), none of them 0, of {_named(channels)}"
        )
    if are_colours(channels):
        return checked_values(shown, image, colours=True)
    named = [shown] if len(channels) == 1 else [f"{shown}, channel {name}" for name in channels]
    return np.concatenate(
        [checked_values(name, channel[np.newaxis]) for name, channel in zip(named, image, strict=True)]
    )


def geometry_of(image_CZYX: Array, spacing_zyx_mm: ArrayLike | None, shown: str) -> Geometry:
    """How an array of that spacing lies: as the training scans do, as far as anybody knows. Raises InputError for other spacings."""
    try:
        spacing = np.asarray(spacing_zyx_mm, dtype=np.float64)
    except (TypeError, ValueError):
        spacing = np.empty(0)
    if spacing.shape != (3,) or not np.isfinite(spacing).all() or (spacing <= 0).any():
        raise InputError(
            f"{shown}: spacing_zyx_mm is {spacing_zyx_mm!r}; expected three numbers above 0: mm between slices, rows, columns"
        )
    return geometry_by(image_CZYX, np.diag([*spacing[::-1], 1.0]), shown)


def geometry_by(image_CZYX: Array, affine: ArrayLike, shown: str) -> Geometry:
    """How an array lies by the affine of its axes x, y, z to RAS mm, as nibabel's. Raises InputError for one that no scan has."""
    try:
        matrix = np.asarray(affine, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != (4, 4):
        raise InputError(
            f"{shown}: the affine is {affine!r}; expected 4 × 4 numbers, voxel (x, y, z) to RAS mm"
        )
    if problem := affine_problem(matrix):
        raise InputError(f"{shown}: {problem}")
    _, z, y, x = image_CZYX.shape
    return Geometry((z, y, x), as_affine(matrix))


def predict_arrays(
    images: Iterable[tuple[str, Array, Geometry]],
    models: Sequence[LoadedModel],
    *,
    tta: TestTimeAugmentation,
    precision: Precision | None = None,
    postprocessing: Postprocessing | None = None,
    probabilities: bool = False,
) -> Iterator[tuple[NDArray[np.uint8], Array | None]]:
    """For each image its mask, uint8 (Z, Y, X) in values of labels, and the probabilities (K, Z, Y, X) float32, or None.

    images: what messages call it, (C, Z, Y, X) float32, and how it lies; one is taken when its turn comes. models: as `ready` makes them.
    The rest as of `predict_cases`. Raises InputError where slices would become larger or smaller than any scan's.
    """
    groups = group_by_preprocessing(models, tta)
    wanted = tuple(group[0].record.plan.preprocessing for group in groups)
    outputs = Outputs(
        Path(),
        probabilities,
        overlays=False,
        entropy=False,
        postprocessing=postprocessing or Postprocessing(),
        quality=QualitySettings(),
    )

    def sources() -> Iterator[Preprocessed]:
        for shown, image_CZYX, geometry in images:
            case = Case(shown, shown, ())
            yield preprocess(Volume(case, None, 1, wanted), LoadedCase(case, image_CZYX, None, geometry))

    for predicted in predictions(
        groups, sources(), tta, precision_to_predict_in(precision, device_of(models)), outputs
    ):
        found = segment(predicted)
        yield found.mask_ZYX, found.native_KZYX if probabilities else None


def _named(channels: Sequence[str]) -> str:
    return f"{number_of(len(channels), 'channel')}: {', '.join(channels)}"
