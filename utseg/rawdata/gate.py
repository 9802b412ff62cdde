"""The gate: the one way to read an image, a label, a case. What passes is whole, finite, and lies where its header says.

Arrays are ZYX: slices lie along Z, whichever axis of the file that is (`geometry.slice_axis_of`), the other two are in the file's order.
Nothing is flipped, resampled or normalised here.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utseg.case import Case
from utseg.errors import CaseErrors, InputError, UnknownValues, listing
from utseg.files import broken_link, require_no_broken_link
from utseg.label_map import Labels, values_of
from utseg.labels import ignored, without_ignored
from utseg.notices import Notice
from utseg.rawdata import itk, nifti, pictures
from utseg.rawdata.cine import frames_text
from utseg.rawdata.content import dicom_refusal, is_dicom
from utseg.rawdata.geometry import Geometry
from utseg.rawdata.names import IMAGE_ENDINGS, ITK_ENDINGS, NIFTI_ENDINGS, is_picture
from utseg.rawdata.nifti import ImageFrame, labelled_frames

VALUES_SHOWN = 6
# Slices of the heart are about as high as wide and have a hundred pixels a side; what is beyond these lies along another axis, or is cut.
SMALLEST_SIDE_PIXELS = 16
LONGEST_SIDE_RATIO = 4.0
LARGEST_OF_FEW_LABELS = 7  # a scan has more grey values than eight, whatever it was scaled to
LARGEST_VALUE = 1e30  # of a voxel; beyond are marks for "no value", which resampling would make infinite
WHOLE_WITHIN = 1e-3  # what scl_slope and scl_inter may leave of a whole number


@dataclass(frozen=True)
class LoadedCase:
    """A case that passed the gate. `image_CZYX` float32, `label_ZYX` uint8 or None, `geometry` that of the images."""

    case: Case
    image_CZYX: NDArray[np.float32]
    label_ZYX: NDArray[np.uint8] | None
    geometry: Geometry
    warnings: tuple[Notice, ...] = ()


def frame_count(path: Path) -> int:
    """Frames of a cine file, 1 for a 3-D one and for a picture. Reads and checks the header only. Raises InputError."""
    _require_known_ending(path)
    if is_picture(path):
        return 1
    return itk.frame_count(path) if path.name.endswith(ITK_ENDINGS) else nifti.read_header(path).frames


def read_geometry(path: Path) -> Geometry:
    """How an image file lies. Of a picture its pixels are read, else the header alone. Raises InputError."""
    _require_known_ending(path)
    if is_picture(path):
        return pictures.read_image(path).geometry
    return itk.read_geometry(path) if path.name.endswith(ITK_ENDINGS) else nifti.read_header(path).geometry


def frames_of(case: Case) -> int:
    """Volumes that stand for a case: the frames of its cine where it names none of them, else 1. Raises InputError."""
    return frame_count(case.images[0]) if case.frame is None and case.channels is None else 1


def read_image(path: Path, frame: int | None = None) -> tuple[NDArray[np.float32], Geometry]:
    """One channel, (Z, Y, X) float32; of a picture in colours the first that shows something. Raises InputError.

    `frame` is needed where the file is 4-D. Only `read_case` gives warnings.
    """
    volume = _read_channels(path, frame)
    image = checked_values(path, volume.values, colours=is_picture(path))
    return image[_same_everywhere(image).index(False)], volume.geometry


def read_first_channel(path: Path, frame: int | None) -> tuple[NDArray[np.float32], Geometry]:
    """What to show of an image file, (Z, Y, X) float32: the frame of a cine; of a file of several channels the first. Raises InputError."""
    return read_image(path, frame or 0)


def read_label(path: Path, labels: Labels, frame: int | None = None) -> tuple[NDArray[np.uint8], Geometry]:
    """A label map, (Z, Y, X) uint8, with no values but those of `labels`. Raises InputError that lists others with their counts."""
    volume = _read_label(path, frame)
    label = _label_values(path, volume, labels)
    _check_labelled(path, frame, label)
    return label, volume.geometry


def read_label_cine(path: Path, labels: Labels) -> tuple[NDArray[np.uint8], Geometry]:
    """All frames of a label map, (T, Z, Y, X) uint8, read once; a 3-D file is one frame. Raises InputError as `read_label`."""
    _require_known_ending(path)
    volume = _read_channels(path, None, as_channels=not is_picture(path))
    return _label_values(path, volume, labels), volume.geometry


def read_case(case: Case, labels: Labels, *, read_on: bool = False) -> LoadedCase:
    """Reads all files of a case. Raises CaseErrors with all its problems, one line each, naming case and file.

    read_on: of a cine whose files were checked when an earlier frame was read; only the frame itself is read and checked (`nifti.read_on`).
    """
    problems: list[str] = []
    warnings: list[Notice] = []
    channels: list[tuple[Path, NDArray[np.float32], Geometry]] = []
    for number, path in enumerate(case.images):
        try:
            if not path.exists():
                raise InputError(_missing_image(case, number))
            volume = _read_channels(path, case.frame, as_channels=case.channels is not None, read_on=read_on)
            warnings += volume.warnings
            if case.channels is None and len(volume.values) > 1:
                raise InputError(f"{path}: {len(volume.values)} channels; {pictures.ONE_CHANNEL}")
            channels.append(
                (path, checked_values(path, volume.values, colours=is_picture(path)), volume.geometry)
            )
            warnings += _label_like(path, channels[-1][1])
        except InputError as error:
            problems.append(str(error))
    for path, _, geometry in channels[1:]:
        problems += _unlike(path, geometry, channels[0][0], channels[0][2])
    if not problems and case.channels not in (None, found := sum(len(values) for _, values, _ in channels)):
        problems.append(_wrong_number(case, found))
    if channels:
        warnings += _narrow_slices(channels[0][0], channels[0][2])
    label = None
    unknown: tuple[str, ...] = ()
    if case.label is not None:
        try:
            volume = _read_label(case.label, case.frame)
            warnings += volume.warnings
            label = _label_values(case.label, volume, labels)
            _check_labelled(case.label, case.frame, label)
            if channels:
                problems += _unlike(case.label, volume.geometry, channels[0][0], channels[0][2])
        except InputError as error:
            problems += error.lines()
            unknown = error.values if isinstance(error, UnknownValues) else ()
        if label is not None and not without_ignored(label, labels).any():
            known = not ignored(label, labels).all()
            warnings.append(
                Notice("holds background only" if known else "is ignored everywhere", str(case.label))
            )
    if problems:
        lines = [f"case {case.case_id}: {problem}" for problem in dict.fromkeys(problems)]
        raise UnknownValues(lines, unknown) if unknown and len(lines) == 1 else CaseErrors(lines)
    images = [values for _, values, _ in channels]
    stacked = images[0] if len(images) == 1 else np.concatenate(images)
    return LoadedCase(case, stacked, label, channels[0][2], tuple(warnings))


def not_an_image(path: Path) -> InputError:
    """The error for a file that is no image by its name."""
    if is_dicom(path):
        return dicom_refusal(path)
    return InputError(f"{path}: not an image by its name; expected one of {', '.join(IMAGE_ENDINGS)}")


def _require_known_ending(path: Path) -> None:
    require_no_broken_link(path)
    if not path.name.endswith(IMAGE_ENDINGS):
        raise not_an_image(path)


def _read_channels(
    path: Path, frame: int | None, *, as_channels: bool = False, read_on: bool = False
) -> ImageFrame:
    """An image file as (C, Z, Y, X): a picture's channels, all volumes of a 4-D file `as_channels`, else one volume."""
    _require_known_ending(path)
    if is_picture(path):
        return pictures.read_image(path)
    if read_on and frame is not None and path.name.endswith(NIFTI_ENDINGS):
        volume = nifti.read_on(path, frame)
    else:
        read = itk.read_volume if path.name.endswith(ITK_ENDINGS) else nifti.read_volume
        volume = read(path, frame, as_channels=as_channels)
    return volume if as_channels else replace(volume, values=volume.values[np.newaxis])


def _read_label(path: Path, frame: int | None) -> ImageFrame:
    """A label file as (Z, Y, X)."""
    _require_known_ending(path)
    if is_picture(path):
        return pictures.read_label(path)
    return itk.read_volume(path, frame) if path.name.endswith(ITK_ENDINGS) else nifti.read_volume(path, frame)


def checked_values(shown: object, values_CZYX: NDArray[Any], *, colours: bool = False) -> NDArray[np.float32]:
    """An image's values, (C, Z, Y, X), as float32. `shown`: what messages call it.

    Raises InputError where they are not finite or too large, or a channel has one value only; of `colours` one channel may.
    """
    with np.errstate(over="ignore"):
        image = np.ascontiguousarray(values_CZYX, dtype=np.float32)
    low, high = image.min(), image.max()  # NaN if any voxel is
    if not (np.isfinite(low) and np.isfinite(high)):
        nan, infinite = int(np.isnan(image).sum()), int(np.isinf(image).sum())
        raise InputError(
            f"{shown}: {nan:,} NaN and {infinite:,} infinite of {image.size:,} voxels; expected finite numbers: export the image again"
        )
    if max(-low, high) > LARGEST_VALUE:
        extreme = _number(high if high > LARGEST_VALUE else low)
        raise InputError(
            f"{shown}: a voxel is {extreme}; expected at most {LARGEST_VALUE:g} either way: export the image again"
        )
    flat = _same_everywhere(image)
    if all(flat) if colours else any(flat):
        value = _number(image[flat.index(True)].min())
        raise InputError(f"{shown}: all voxels have the same value ({value}); the image shows nothing")
    return image


def _same_everywhere(image_CZYX: NDArray[np.float32]) -> list[bool]:
    """Of each channel, whether all its voxels have one value."""
    return [bool(channel.min() == channel.max()) for channel in image_CZYX]


def _label_like(path: Path, image: NDArray[np.float32]) -> list[Notice]:
    """Warns of an image whose values are 0 and a few whole numbers above it."""
    if image.min() != 0 or image.max() > LARGEST_OF_FEW_LABELS or (image != np.rint(image)).any():
        return []
    values = ", ".join(f"{value:g}" for value in np.unique(image))
    return [Notice("looks like a label map, not an image", str(path), f"its values are {values}")]


def _narrow_slices(path: Path, geometry: Geometry) -> list[Notice]:
    """Says which axis was taken as that of the slices, and why, where they are so narrow that it may be another."""
    if is_picture(path):
        return []  # a picture has one order only
    (slices, *pixels), (between, *spacing) = geometry.size_zyx, geometry.spacing_zyx_mm
    shorter, longer = sorted(count * step for count, step in zip(pixels, spacing, strict=True))
    if min(pixels) >= SMALLEST_SIDE_PIXELS and longer <= LONGEST_SIDE_RATIO * shorter:
        return []
    if slices == 1:
        why = "one voxel long"
    else:
        why = "of the largest spacing" if between > max(spacing) else "as no spacing is clearly the largest"
    detail = (
        f"slices along {'xyz'[geometry.slice_axis]}, {why}: {slices} slices, {between:.4g} mm apart, "
        f"of {pixels[0]} × {pixels[1]} pixels of {spacing[0]:.4g} × {spacing[1]:.4g} mm"
    )
    return [Notice("has narrow slices: check the order of the spacings in the header", str(path), detail)]


def _label_values(path: Path, volume: ImageFrame, labels: Labels) -> NDArray[np.uint8]:
    values = volume.values
    known = np.zeros(256, dtype=bool)
    known[[value for each in labels.values() for value in values_of(each)]] = True
    if values.dtype.kind == "f":
        values, stored = np.rint(values), values
        with np.errstate(invalid="ignore"):
            whole = bool((np.abs(stored - values) <= WHOLE_WITHIN).all())  # not where it is NaN
        if not whole:
            values = stored
    else:
        whole = True
    if whole and int(values.min()) >= 0 and int(values.max()) <= 255:
        label = np.ascontiguousarray(values, dtype=np.uint8)
        counts = np.bincount(label.ravel(), minlength=256)
        if not counts[~known].any():
            return label
    known_labels = ", ".join(
        f"{'+'.join(map(str, values_of(value)))} {name}" for name, value in labels.items()
    )
    unknown = _unknown_values(values, known)
    texts = [f"{value} ({count:,} voxels)" for value, count in unknown.items()]
    more = f" and {len(texts) - VALUES_SHOWN} more" if len(texts) > VALUES_SHOWN else ""
    shown = f"{', '.join(texts[:VALUES_SHOWN])}{more}"
    raise UnknownValues(
        [f"{path}: values that are no label: {shown}; known labels: {known_labels}"], [*unknown]
    )


def _check_labelled(path: Path, frame: int | None, label: NDArray[np.uint8]) -> None:
    """Refuses a frame of a cine that holds no label where several others do: at most one of those is the other phase's."""
    if frame is None or label.any() or not path.name.endswith(NIFTI_ENDINGS):
        return
    labelled = list(labelled_frames(path))
    if len(labelled) > 1:
        raise InputError(
            f"{path}: frame {frame} holds no label, {frames_text(labelled)} do; check ED and ES in the CSV, counted from 0"
        )


def _unknown_values(values: NDArray[Any], known: NDArray[np.bool_]) -> dict[str, int]:
    """Which values are not known, and how many voxels have each."""
    found, counts = np.unique(values, return_counts=True)
    with np.errstate(invalid="ignore"):
        nearest = np.rint(found)
        whole = (found >= -WHOLE_WITHIN) & (nearest <= 255) & (np.abs(found - nearest) <= WHOLE_WITHIN)
    known_here = whole.copy()
    known_here[whole] = known[nearest[whole].astype(np.int64)]
    pairs = zip(found[~known_here], counts[~known_here], strict=True)
    return {_number(value): int(count) for value, count in pairs}


def _number(value: Any) -> str:
    """All the digits that tell a value of its type from the next one."""
    return str(value).removesuffix(".0")


def _unlike(path: Path, geometry: Geometry, reference: Path, expected: Geometry) -> list[str]:
    """One line where two files of a case do not lie alike."""
    found = geometry.differences(expected)
    return [f"{path}: does not lie as {reference.name} does: {'; '.join(found)}"] if found else []


def _wrong_number(case: Case, found: int) -> str:
    """That the files of a case hold more or fewer channels together than the dataset has."""
    files = " and ".join(str(path) for path in case.images)
    hold = "holds" if len(case.images) == 1 else "hold"
    expected = f"expected the {case.channels} channels of the dataset"
    if not is_picture(case.images[0]):
        return f"{files}: {hold} {found} volumes; {expected}"
    return f"{files}: {hold} {found} channel{'s' if found > 1 else ''}; {expected}: a picture in RGB, or a grey one for each"


def _missing_image(case: Case, number: int) -> str:
    """Names the missing file, where a link to it leads, or what else of this case is in its folder."""
    path = case.images[number]
    if link := broken_link(path):
        return f"{path}: {link}"
    prefix = path.name.rpartition("_")[0]
    there = sorted(entry.name for entry in path.parent.glob("*")) if path.parent.is_dir() else []
    alike = [name for name in there if name.startswith(prefix + "_")] if prefix else there
    found = listing(alike) if alike else "nothing of this case"
    what = f"channel {number} is missing" if len(case.images) > 1 else "the image is missing"
    return f"{what}: expected {path}; found: {found}"
