"""One case onto the planned in-plane grid, normalised; and its inverse: class probabilities back onto the case's own grid.

Scans that lie in no way of the training scans are turned first (`rawdata/ways.py`). Then only in-plane spacing enters: both grids cover
the same field of view, edge on edge. Resampling is linear and separable, hence one small matrix for each axis, applied by BLAS.
Axes: C channels, K classes, Z slices, Y rows, X columns. L and M are input and output pixels of one axis.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from utseg.errors import InputError
from utseg.label_map import LabelValue
from utseg.labels import decide, to_classes
from utseg.planning.plan import ChannelNormalisation, Normalisation, Preprocessing
from utseg.rawdata.channels import LARGEST_BYTE, require_bytes
from utseg.rawdata.ways import AS_IT_LIES, Arrangement, arrange
from utseg.settings import AnyValues, Settings

if TYPE_CHECKING:
    from utseg.rawdata.gate import LoadedCase

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]
Size = tuple[int, int]
Voxel = TypeVar("Voxel", bound=np.generic)
Number = TypeVar("Number", int, float)
SAME_SPACING = 1e-3  # relative: the tolerance at which two files of one scan count as alike
SIDES = 4, 8192
# A deviation below this share of the largest value is what resampling in float32 makes of a constant image.
CONSTANT_BELOW = 1e-5
ANTI_ALIAS = 0.4
MOST_REMEMBERED = 64 << 20


class CaseProperties(Settings):
    """What is needed to bring results back. Sizes in voxels; `geometry` is the native one, as `Geometry.to_json` gives it.

    `arrangement`: how slices were turned before anything else. `orientation_doubt`: why the network may have seen them the wrong way round,
    "" where there is no reason to think so, None where nothing is known of the training scans.
    """

    native_size_zyx: tuple[int, int, int]
    size_zyx: tuple[int, int, int]
    arrangement: Arrangement = AS_IT_LIES
    orientation_doubt: str | None = None
    normalisation: tuple[Normalisation, ...]
    geometry: AnyValues


@dataclass(frozen=True)
class PreprocessedCase:
    """`image_CZYX` float32, normalised as planned; `label_ZYX` uint8, in classes (`to_classes`), None where there is no label."""

    image_CZYX: Floats
    label_ZYX: Labels | None
    properties: CaseProperties


def preprocess_case(loaded: "LoadedCase", wanted: Preprocessing) -> PreprocessedCase:
    """Resamples in-plane, then normalises each channel of the volume as the plan says.

    A channel without variance becomes all zeros where it is its own measure. Raises InputError where the spacing leads to a grid that no
    scan has, and where a channel of bytes (rgb_to_0_1) holds others.
    """
    placement = arrange(loaded.geometry.way, wanted.ways)
    turned = placement.arrangement
    native = loaded.geometry.size_zyx
    step_yx_mm = turned_sizes(loaded.geometry.spacing_zyx_mm[1:], turned)
    size = target_size(turned_sizes(native[1:], turned), step_yx_mm, wanted.spacing_yx_mm)
    if max(size) > SIDES[1] or min(size) < min(SIDES[0], *native[1:]):
        spacing = " × ".join(f"{value:g}" for value in loaded.geometry.spacing_zyx_mm[1:])
        target = " × ".join(f"{value:g}" for value in wanted.spacing_yx_mm)
        raise InputError(
            f"case {loaded.case.case_id}: slices of {native[1]} × {native[2]} pixels at {spacing} mm would become {size[0]} × {size[1]} "
            f"at the planned {target} mm, expected {SIDES[0]} to {SIDES[1]} a side; check the spacing in the file's header"
        )
    inside_ZYX = None
    if "z-score-nonzero" in wanted.normalisation:
        inside_ZYX = resample_label(turn_slices(find_inside(loaded.image_CZYX), turned), size) > 0
    channels, normalisations = [], []
    for number, (image_ZYX, way) in enumerate(zip(loaded.image_CZYX, wanted.normalisation, strict=True)):
        if way == "rgb_to_0_1":
            require_bytes(image_ZYX, loaded.case.case_id, number)
        resampled_ZYX = resample_image(turn_slices(image_ZYX, turned), size)
        values, normalisation = _normalise(resampled_ZYX, way, wanted.clip_percentiles, inside_ZYX)
        channels.append(values)
        normalisations.append(normalisation)
    image_CZYX = channels[0][np.newaxis] if len(channels) == 1 else np.stack(channels)
    label_ZYX = None
    if loaded.label_ZYX is not None:
        classes_ZYX = to_classes(loaded.label_ZYX, wanted.labels)
        label_ZYX = resample_label(turn_slices(classes_ZYX, turned), size)
    properties = CaseProperties(
        native_size_zyx=native,
        size_zyx=(native[0], *size),
        arrangement=turned,
        orientation_doubt=placement.doubt if wanted.ways else None,
        normalisation=tuple(normalisations),
        geometry=loaded.geometry.to_json(),
    )
    return PreprocessedCase(image_CZYX, label_ZYX, properties)


def restore_labels(
    probabilities_KZYX: Floats,
    properties: CaseProperties,
    labels: Mapping[str, LabelValue] = MappingProxyType({}),
) -> Labels:
    """The inverse: the classes, (Z, Y, X) uint8, on the native grid, as `decide` finds them. One slice at a time in memory."""
    _require_size(probabilities_KZYX, properties)
    size = turned_sizes(properties.native_size_zyx[1:], properties.arrangement)
    mask_ZYX = np.empty(properties.native_size_zyx, dtype=np.uint8)
    for z in range(mask_ZYX.shape[0]):
        turned_YX = decide(_interpolate(probabilities_KZYX[:, z], size), labels)
        mask_ZYX[z] = turn_slices_back(turned_YX, properties.arrangement)
    return mask_ZYX


def restore_probabilities(probabilities_KZYX: Floats, properties: CaseProperties) -> Floats:
    """Class probabilities on the native grid, (K, Z, Y, X) float32, linearly interpolated in-plane. Sums over classes stay as they were."""
    _require_size(probabilities_KZYX, properties)
    size = turned_sizes(properties.native_size_zyx[1:], properties.arrangement)
    restored = np.empty((probabilities_KZYX.shape[0], *properties.native_size_zyx), dtype=np.float32)
    for z in range(restored.shape[1]):
        turned_KYX = _interpolate(probabilities_KZYX[:, z], size)
        restored[:, z] = turn_slices_back(turned_KYX, properties.arrangement)
    return restored


def turn_slices(values: NDArray[Voxel], arrangement: Arrangement) -> NDArray[Voxel]:
    """Slices, (…, Y, X), in another arrangement. A view where nothing is turned, else contiguous."""
    if arrangement == AS_IT_LIES:
        return values
    if arrangement.swap:
        values = values.swapaxes(-1, -2)
    return np.ascontiguousarray(_flipped(values, arrangement))


def turn_slices_back(values: NDArray[Voxel], arrangement: Arrangement) -> NDArray[Voxel]:
    """The inverse of `turn_slices`. A view."""
    values = _flipped(values, arrangement)
    return values.swapaxes(-1, -2) if arrangement.swap else values


def turned_sizes(pair_yx: tuple[Number, Number], arrangement: Arrangement) -> tuple[Number, Number]:
    """Sizes or spacings of slices, (y, x), once they are turned, or turned back."""
    y, x = pair_yx
    return (x, y) if arrangement.swap else (y, x)


def _flipped(values: NDArray[Voxel], arrangement: Arrangement) -> NDArray[Voxel]:
    return values[..., :: -1 if arrangement.flip_y else 1, :: -1 if arrangement.flip_x else 1]


def target_size(size_yx: Size, spacing_yx_mm: tuple[float, float], target_yx_mm: tuple[float, float]) -> Size:
    """Rows and columns of the same field of view at another spacing, at least 1; unchanged along an axis that has the spacing already."""
    height, width = (
        length if abs(spacing / target - 1) <= SAME_SPACING else max(1, round(length * spacing / target))
        for length, spacing, target in zip(size_yx, spacing_yx_mm, target_yx_mm, strict=True)
    )
    return height, width


def resample_image(image_ZYX: Floats, size_yx: Size) -> Floats:
    """Cubic B-spline interpolation, edges on edges; a Gaussian before it where pixels become larger. The same values for the same size."""
    rows, columns = (_cubic_weights(old, new) for old, new in zip(image_ZYX.shape[1:], size_yx, strict=True))
    return _apply(image_ZYX, rows, columns)


def resample_label(label_ZYX: Labels, size_yx: Size) -> Labels:
    """The label whose indicator, interpolated linearly, is largest; ties go to the lower label. Contours stay truer than with nearest.

    Only the box around what is labelled is computed; background's share is what the others leave.
    """
    if label_ZYX.shape[1:] == size_yx:
        return label_ZYX
    resampled = np.zeros((label_ZYX.shape[0], *size_yx), dtype=np.uint8)
    labelled_YX = np.asarray(label_ZYX.any(0))
    if not labelled_YX.any():
        return resampled
    (y, my), rows_ML = _part(np.flatnonzero(labelled_YX.any(1)), label_ZYX.shape[1], size_yx[0])
    (x, mx), columns_ML = _part(np.flatnonzero(labelled_YX.any(0)), label_ZYX.shape[2], size_yx[1])
    box_ZYX = label_ZYX[:, y, x]
    present = np.flatnonzero(np.bincount(box_ZYX.ravel())).astype(np.uint8)
    present = present[present > 0]
    for z, box_YX in enumerate(box_ZYX):
        indicators_KYX = (box_YX == present[:, np.newaxis, np.newaxis]).astype(np.float32)
        shares_KYX = _apply(indicators_KYX, rows_ML, columns_ML)
        background_YX = 1 - shares_KYX.sum(0)
        resampled[z, my, mx] = np.where(background_YX >= shares_KYX.max(0), 0, present[shares_KYX.argmax(0)])
    return resampled


def _part(held: NDArray[np.intp], old: int, new: int) -> tuple[tuple[slice, slice], Floats]:
    """Along one axis, from the first to the last pixel that is held: input range, output range that it reaches, weights between them."""
    weights_ML = _linear_weights(old, new)
    if weights_ML is None:
        weights_ML = np.eye(old, dtype=np.float32)
    source = slice(int(held[0]), int(held[-1]) + 1)
    reached = np.flatnonzero(weights_ML[:, source].any(1))
    if reached.size == 0:
        return (source, slice(0, 0)), weights_ML[:0, source]
    target = slice(int(reached[0]), int(reached[-1]) + 1)
    return (source, target), weights_ML[target, source]


def find_inside(image_CZYX: Floats) -> Labels:
    """(Z, Y, X), 1 where some channel is not 0, and in holes of that in each slice."""
    from scipy.ndimage import binary_fill_holes

    return np.stack([binary_fill_holes(slice_YX) for slice_YX in (image_CZYX != 0).any(0)]).astype(np.uint8)


def _normalise(
    image_ZYX: Floats,
    way: ChannelNormalisation,
    percentiles: tuple[float, float],
    inside_ZYX: NDArray[np.bool_] | None,
) -> tuple[Floats, Normalisation]:
    """inside_ZYX: the voxels that "z-score-nonzero" is of, needed for that only."""
    if way == "z-score-nonzero" and inside_ZYX is not None and inside_ZYX.any():
        values_ZYX = np.zeros_like(image_ZYX)
        values_ZYX[inside_ZYX], done = _normalise(image_ZYX[inside_ZYX], "z-score", percentiles, None)
        return values_ZYX, done
    done = way if isinstance(way, Normalisation) else _found(image_ZYX, way, percentiles)
    return (_applied(image_ZYX, done) if done.sd else np.zeros_like(image_ZYX)), done


def _found(image: Floats, way: str, percentiles: tuple[float, float]) -> Normalisation:
    """What a volume itself says that is done to it."""
    lower, upper = float(image.min()), float(image.max())
    if way == "noNorm":
        return Normalisation(lower=lower, upper=upper, mean=0, sd=1)
    if way == "rgb_to_0_1":
        return Normalisation(lower=lower, upper=upper, mean=0, sd=LARGEST_BYTE)
    if way == "rescale_to_0_1":
        mean, sd = lower, upper - lower
    else:
        lower, upper = (float(value) for value in np.percentile(image, percentiles))
        values = np.clip(image, np.float32(lower), np.float32(upper))
        mean, sd = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    if sd <= CONSTANT_BELOW * max(abs(lower), abs(upper)):
        sd = 0
    return Normalisation(lower=lower, upper=upper, mean=mean, sd=sd)


def _applied(image: Floats, normalisation: Normalisation) -> Floats:
    values = np.clip(image, np.float32(normalisation.lower), np.float32(normalisation.upper))
    values -= np.float32(normalisation.mean)
    values /= np.float32(normalisation.sd)
    return values


def _require_size(probabilities_KZYX: Floats, properties: CaseProperties) -> None:
    if probabilities_KZYX.shape[1:] != properties.size_zyx:
        raise ValueError(
            f"probabilities of size {probabilities_KZYX.shape[1:]}, expected {properties.size_zyx}"
        )


def _interpolate(values_NYX: Floats, size_yx: Size) -> Floats:
    rows, columns = (
        _linear_weights(old, new) for old, new in zip(values_NYX.shape[1:], size_yx, strict=True)
    )
    return _apply(values_NYX, rows, columns)


def _apply(values_NYX: Floats, rows_ML: Floats | None, columns_ML: Floats | None) -> Floats:
    if rows_ML is not None:
        values_NYX = np.matmul(rows_ML, values_NYX)
    if columns_ML is not None:
        values_NYX = np.matmul(values_NYX, columns_ML.T)
    return values_NYX


def _positions(old: int, new: int) -> NDArray[np.float64]:
    """Centres of `new` pixels that share the edges of `old` pixels, in units of the old; not beyond the outermost centres."""
    return np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)


def _remembered(make: Callable[[int, int], Floats]) -> Callable[[int, int], Floats | None]:
    """Keeps the last weights that were made, of MOST_REMEMBERED bytes together or one that is larger. None is the identity."""
    kept: dict[Size, Floats] = {}

    def weights(old: int, new: int) -> Floats | None:
        if old == new:
            return None
        found_ML = kept.pop((old, new), None)
        kept[old, new] = found_ML = make(old, new) if found_ML is None else found_ML
        for earlier in list(kept)[:-1]:
            if sum(each.nbytes for each in list(kept.values())) <= MOST_REMEMBERED:
                break
            kept.pop(earlier, None)
        return found_ML

    return weights


@_remembered
def _linear_weights(old: int, new: int) -> Floats:
    """(new, old) weights of linear interpolation."""
    distance = np.abs(_positions(old, new)[:, np.newaxis] - np.arange(old))
    return np.asarray(np.maximum(0, 1 - distance), dtype=np.float32)


@_remembered
def _cubic_weights(old: int, new: int) -> Floats:
    """(new, old) weights of the interpolating cubic B-spline, mirrored at the outermost centres.

    Where pixels grow by a factor f > 1, a Gaussian of .4·√(f² − 1) old pixels goes before it: the width at which real slices came
    nearest to their band-limited version.
    """
    nodes_LL = _spline_basis(np.arange(old), old)
    weights_ML = np.linalg.solve(nodes_LL.T, _spline_basis(_positions(old, new), old).T).T
    if new < old:
        deviation = ANTI_ALIAS * np.sqrt((old / new) ** 2 - 1)
        gaussian_LL = np.exp(-0.5 * ((np.arange(old)[:, np.newaxis] - np.arange(old)) / deviation) ** 2)
        weights_ML = weights_ML @ (gaussian_LL / gaussian_LL.sum(1, keepdims=True))
    return np.asarray(weights_ML, dtype=np.float32)


def _spline_basis(positions_M: NDArray[Any], length: int) -> NDArray[np.float64]:
    """(M, length): the cubic B-spline of each pixel at each position; those of the first pixels outside are mirrored in."""
    distance = np.abs(positions_M[:, np.newaxis] - np.arange(-1, length + 1))
    inner, outer = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance) ** 3 / 6
    values = np.where(distance < 1, inner, np.where(distance < 2, outer, 0.0))
    basis_ML = values[:, 1:-1].copy()
    basis_ML[:, min(1, length - 1)] += values[:, 0]
    basis_ML[:, max(length - 2, 0)] += values[:, -1]
    return np.asarray(basis_ML)
