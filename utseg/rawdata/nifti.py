"""Reads NIfTI-1 and NIfTI-2 (.nii, .nii.gz): the header is checked before anything is allocated, the content against it.

nibabel reads the header, because SimpleITK refuses directions that real scans have and returns damaged gzip files without a word.
Not read here: ANALYZE and .hdr/.img pairs, RGB and complex voxels, vectors.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header, data_type_codes
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from utseg.errors import InputError
from utseg.notices import Notice
from utseg.rawdata.content import GZIP_MAGIC, Content, dicom_refusal, kind_of
from utseg.rawdata.geometry import SPACING_RANGE_MM, Geometry, Matrix, affine_problem

LARGEST_VOXELS = 2**30  # of one frame: 1024³
DISAGREEMENT_MM = 0.1  # between two positions of one corner that a header gives
TIME_UNITS_MS = {8: 1000.0, 16: 1.0, 24: 0.001}  # by the code in xyzt_units: s, ms, µs
FRAME_MS = (2.0, 250.0)  # of cines: 1,000 frames a heart beat, to 8 of a slow one
SAME_LENGTH = 1e-3  # relative, of two spacings that a header gives
ONE_NUMBER = (
    "expected one real number a voxel: export an image in grey values, a segmentation as one label map "
    "(in 3D Slicer: Segmentations, Export to files, NIfTI)"
)


@dataclass(frozen=True)
class Header:
    """What a checked header says. `scale` is (slope, intercept), None where values are used as stored."""

    geometry: Geometry
    dtype: np.dtype[Any]
    frames: int
    offset: int
    scale: tuple[float, float] | None
    warnings: tuple[Notice, ...]

    @property
    def frame_bytes(self) -> int:
        return math.prod(self.geometry.size_zyx) * self.dtype.itemsize

    @property
    def total_bytes(self) -> int:
        return self.offset + self.frames * self.frame_bytes


@dataclass(frozen=True)
class ImageFrame:
    """One frame: `values` (Z, Y, X) of any real dtype, and what the user should know about the file. Of a file of channels (C, Z, Y, X)."""

    values: NDArray[Any]
    geometry: Geometry
    warnings: tuple[Notice, ...] = ()


def read_header(path: Path) -> Header:
    """Reads and checks the header alone. Raises InputError."""
    with _opened(path) as content:
        return _checked_header(path, content)


def is_series(header: bytes) -> bool:
    """Whether a header as `Geometry` holds it is of a 4-D file, though it may have one frame."""
    return bool(header) and int(parse_header(header)["dim"][0]) > 3


def frame_ms(header: bytes) -> float | None:
    """The time from frame to frame by a header as `Geometry` holds it, ms; None where it says no unit, or what no cine has."""
    if not header:
        return None
    fields = parse_header(header)
    unit = TIME_UNITS_MS.get(int(fields["xyzt_units"]) & 56)
    found = 0.0 if unit is None else float(fields["pixdim"][4]) * unit
    return found if FRAME_MS[0] <= found <= FRAME_MS[1] else None


def read_volume(path: Path, frame: int | None, *, as_channels: bool = False) -> ImageFrame:
    """Reads one frame and checks the whole file. `frame` None is for files of one frame. Raises InputError.

    as_channels: reads all volumes of the file, as (C, Z, Y, X).
    """
    with _opened(path) as content:
        header = _checked_header(path, content)
        first = 0 if as_channels else frame_index(path, frame, header.frames)
        count = header.frames if as_channels else 1
        start = header.offset + first * header.frame_bytes
        data = content.part(start, count * header.frame_bytes, header.total_bytes)
    return _image_frame(header, data, count if as_channels else None)


def read_on(path: Path, frame: int) -> ImageFrame:
    """Reads one frame of a cine on from the frame that this thread read last: what a file's frames cost is one decompression.

    Only what is read is checked, so the file should have been checked whole, as `read_volume` does. Raises InputError.
    """
    try:
        stamp = path.stat()
        opened = partial(_reading, path, stamp.st_mtime_ns, stamp.st_size, threading.get_ident())
        found = opened().frame(frame)
        if found is None:  # it lies before
            _reading.cache_clear()
            found = opened().frame(frame)
    except InputError:
        _reading.cache_clear()  # it may be amid a frame
        raise
    except OSError as error:
        _reading.cache_clear()
        raise _unreadable(path, error) from None
    assert found is not None, "a file that was just opened is at its start"
    return found


class _Reading:
    """A file that stays open between its frames."""

    def __init__(self, path: Path) -> None:
        self._path, self._stack = path, ExitStack()
        self._content = self._stack.enter_context(_opened(path))
        self._header = _checked_header(path, self._content)

    def frame(self, frame: int) -> ImageFrame | None:
        """None for a frame before the last one."""
        header = self._header
        start = header.offset + frame_index(self._path, frame, header.frames) * header.frame_bytes
        data = self._content.part_ahead(start, header.frame_bytes, header.total_bytes)
        return None if data is None else _image_frame(header, data, None)

    def __del__(self) -> None:
        self._stack.close()


@lru_cache(maxsize=4)
def _reading(path: Path, modified_ns: int, size: int, thread: int) -> _Reading:
    """A file that is being read by this thread; the next one, or a changed one, takes its place. Channels are files of their own."""
    return _Reading(path)


def _image_frame(header: Header, data: bytearray, channels: int | None) -> ImageFrame:
    """The voxels of one volume, or of so many `channels`, as their header says."""
    size_zyx = header.geometry.file_size_xyz[::-1]
    stored = np.frombuffer(data, header.dtype).reshape(
        size_zyx if channels is None else (channels, *size_zyx)
    )
    values: NDArray[Any] = header.geometry.from_file(stored)
    if header.scale is not None:
        slope, intercept = header.scale
        if values.dtype.itemsize < 4:
            values = values.astype(np.float32) * np.float32(slope) + np.float32(intercept)
        else:
            values = values.astype(np.float64) * slope + intercept
    return ImageFrame(values, header.geometry, header.warnings)


def read_bytes(path: Path, total: int) -> bytearray:
    """The (decompressed) content of a file that must hold `total` bytes. Raises InputError where it does not, or is damaged."""
    with _opened(path) as content:
        return content.part(0, total, total)


def frame_index(path: Path, frame: int | None, frames: int) -> int:
    """Which frame to take. Raises InputError where a file of several has none named, or the named one is not there."""
    if frame is None and frames > 1:
        raise InputError(
            f"{path}: is 4-D with {frames} frames where a 3-D image is expected; split it into one file a frame"
        )
    if frame is not None and not 0 <= frame < frames:
        there = f"{frames} frames (0 to {frames - 1})" if frames > 1 else "one frame (0)"
        raise InputError(
            f"{path}: frame {frame} is asked for, the file has {there}; check ED and ES in the CSV, counted from 0"
        )
    return frame or 0


def labelled_frames(path: Path) -> Iterator[int]:
    """The frames with a stored byte that is not zero, in order; reads no further than it is asked. A damaged file raises InputError."""
    with _opened(path) as content:
        header, last = _checked_header(path, content), -1
        size = header.frame_bytes
        for position, chunk in content.chunks():
            skipped = max(0, header.offset - position)
            voxels, start = np.frombuffer(chunk, np.uint8)[skipped:], position + skipped - header.offset
            for frame in range(start // size, -(-(start + len(voxels)) // size)):
                if frame > last and voxels[max(0, frame * size - start) : (frame + 1) * size - start].any():
                    yield frame
                    last = frame


@contextmanager
def _opened(path: Path) -> Iterator[Content]:
    try:
        with path.open("rb") as handle:
            begin = handle.peek(256)[:256]
            if not begin:
                raise InputError(f"{path}: the file is empty; copy or export it again")
            if path.name.endswith(".gz") and not begin.startswith(GZIP_MAGIC):
                raise _not_nifti(path, begin, "gzip-compressed NIfTI")
            yield Content(path, handle)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: could not be read ({error.strerror or error})")


def _not_nifti(path: Path, begin: bytes, expected: str) -> InputError:
    if begin[128:132] == b"DICM":
        return dicom_refusal(path)
    known = kind_of(begin)
    if known is None and _header_class(begin) is not None:
        known = "NIfTI without compression; rename it to .nii"
    return InputError(f"{path}: not {expected}: begins like {known or repr(begin[:8])}; export it as NIfTI")


def _header_class(begin: bytes) -> tuple[type[Any], str] | None:
    """nibabel's class and the byte order, by the header's first field; None where it is not NIfTI."""
    sizes = {348: Nifti1Header, 540: Nifti2Header}
    for order, name in (("<", "little"), (">", "big")):
        size = int.from_bytes(begin[:4], name)  # type: ignore[arg-type]
        if size in sizes:
            return sizes[size], order
    return None


def parse_header(data: bytes) -> Any:
    """nibabel's header object from the bytes of `Geometry.header`, unchecked."""
    found = _header_class(data)
    assert found is not None, "a Geometry's header is NIfTI or empty"
    return found[0](data, endianness=found[1], check=False)


def _checked_header(path: Path, content: Content) -> Header:
    begin = content.head(Nifti2Header.template_dtype.itemsize)
    found = _header_class(begin)
    if found is None:
        raise _not_nifti(path, begin, "NIfTI")
    length = found[0].template_dtype.itemsize
    if len(begin) < length:
        raise InputError(f"{path}: ends within its header ({len(begin)} of {length} bytes); copy it again")
    header = parse_header(begin[:length])
    magic = bytes(header["magic"])[:3].rstrip(b"\0")
    if magic not in (b"n+1", b"n+2"):
        raise InputError(f"{path}: not single-file NIfTI (magic {magic!r}); convert it to .nii.gz")
    size_xyz, frames = _size(path, header)
    dtype = _voxel_type(path, header)
    offset = float(header["vox_offset"])
    if not (offset >= length and offset == offset // 1):  # neither is NaN
        raise InputError(
            f"{path}: voxels begin at byte {offset:g}, expected {length + 4} or more: a damaged header"
        )
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError:
        raise InputError(
            f"{path}: the intercept of the values (scl_inter) is {header['scl_inter']}; expected a number"
        ) from None
    scale = None if slope is None or (slope, intercept) == (1, 0) else (slope, intercept)
    geometry, warnings = _geometry(path, header, size_xyz)
    checked = Header(geometry, dtype, frames, int(offset), scale, tuple(warnings))
    if checked.total_bytes > content.most:
        raise InputError(
            f"{path}: the header calls for {checked.total_bytes:,} bytes ({' × '.join(map(str, size_xyz))} voxels, frames: {frames}), "
            f"the file can hold {content.most:,} at most; it is cut off or its header is damaged: copy or export it again"
        )
    return checked


def _size(path: Path, header: Any) -> tuple[tuple[int, int, int], int]:
    """Size (x, y, z) and number of frames. Refuses what is not 3-D or a series of 3-D frames, and absurd sizes."""
    count = int(header["dim"][0])
    dims = [int(number) for number in header["dim"][1 : count + 1]]
    shape = " × ".join(map(str, dims))
    if not 1 <= count <= 7:
        raise InputError(f"{path}: {count} dimensions in the header; it is damaged: copy the file again")
    if count < 3:
        raise InputError(
            f"{path}: {count}-D where a 3-D image is expected; give a slice a third dimension of 1"
        )
    if min(dims) < 1:
        raise InputError(f"{path}: dimensions {shape} in the header; expected numbers of at least 1")
    if math.prod(dims[4:]) > 1:
        raise InputError(f"{path}: {count}-D ({shape}), expected a 3-D image or a 4-D cine; {ONE_NUMBER}")
    x, y, z, frames, *_ = [*dims, 1]
    if x * y * z > LARGEST_VOXELS:
        raise InputError(
            f"{path}: {x} × {y} × {z} voxels in the header; expected at most {LARGEST_VOXELS:,}: the header is damaged, or the image "
            "has to be cropped"
        )
    return (x, y, z), frames


def _voxel_type(path: Path, header: Any) -> np.dtype[Any]:
    code, bits = int(header["datatype"]), int(header["bitpix"])
    known = code in data_type_codes and code not in (0, 255)  # "none" and "all", which nibabel knows
    dtype: np.dtype[Any] = header.get_data_dtype() if known else np.dtype("V")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        what = data_type_codes.label[code] if known else f"unknown (code {code})"
        raise InputError(f"{path}: voxels of type {what}; {ONE_NUMBER}")
    if bits != dtype.itemsize * 8:
        raise InputError(
            f"{path}: the header says {bits} bits a voxel, but its type has {dtype.itemsize * 8}; it is damaged"
        )
    return dtype


def _geometry(path: Path, header: Any, size_xyz: tuple[int, int, int]) -> tuple[Geometry, list[Notice]]:
    """Size and affine. Directions and origin in nibabel's order: sform if its code is set, else qform, else spacing alone.

    Spacing is `pixdim`, as ITK reads it: all of ACDC has sforms of unit lengths. Contradictions warn.
    """
    unit = int(header["xyzt_units"]) & 7
    if unit in (1, 3):
        raise InputError(f"{path}: spacing in {'metres' if unit == 1 else 'micrometres'}, expected mm")
    warnings: list[Notice] = []

    def warn(kind: str, detail: str) -> None:
        warnings.append(Notice(kind, str(path), detail))

    spacing = np.array(header["pixdim"][1:4], dtype=np.float64)
    low, high = SPACING_RANGE_MM
    usable = bool(((spacing >= low) & (spacing <= high)).all())  # not where it is NaN
    sform: Matrix | None = header.get_sform().astype(np.float64) if int(header["sform_code"]) > 0 else None
    qform = _qform(header) if usable else None
    useless = sform is not None and not (np.isfinite(sform).all() and sform[:3, :3].any(axis=0).all())
    if sform is not None and useless and qform is not None:
        warn("the sform cannot be used; the qform is used", affine_problem(sform) or "")
        sform = None
    matrix = sform if sform is not None else qform
    if matrix is None:
        if not usable:
            raise InputError(
                f"{path}: spacing (x, y, z) {_spacing_text(spacing)} in the header and no sform to take it from; "
                f"expected {low:g} to {high:g} mm"
            )
        if int(header["qform_code"]) > 0:
            raise InputError(
                f"{path}: the qform's quaternion is not a rotation and there is no sform; the header is damaged"
            )
        matrix = np.asarray(header.get_base_affine(), dtype=np.float64)
    if problem := affine_problem(matrix):
        raise InputError(f"{path}: {problem}")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if not usable:
        header["pixdim"][1:4] = lengths
        detail = (
            f"{_spacing_text(spacing)} in the header, {_spacing_text(header['pixdim'][1:4])} mm in the sform"
        )
        warn("spacing (x, y, z) cannot be used and is taken from its sform", detail)
    elif sform is not None:
        if not np.allclose(lengths, spacing, rtol=SAME_LENGTH, atol=0):
            matrix = sform.copy()
            matrix[:3, :3] *= spacing / lengths
            if np.allclose(lengths, 1, rtol=SAME_LENGTH, atol=0):
                kind = "spacing (x, y, z) is taken from pixdim, as the sform has unit lengths"
                warn(kind, f"{_spacing_text(spacing)} mm")
            else:
                kind = "spacing (x, y, z) in pixdim contradicts the sform's; pixdim is used, as ITK does: check it"
                warn(kind, f"{_spacing_text(spacing)} mm against {_spacing_text(lengths)} mm")
        distance = 0.0 if qform is None else _largest_distance(matrix - qform, size_xyz)
        if distance > DISAGREEMENT_MM:
            warn("the sform is used; the qform differs", f"by up to {distance:.3g} mm")
    return Geometry.of_file(size_xyz, matrix, header.binaryblock), warnings


def _spacing_text(spacing: Any) -> str:
    return ", ".join(f"{float(length):.5g}" for length in spacing)


def _qform(header: Any) -> Matrix | None:
    """The qform's affine; None without code, or where its quaternion is none."""
    if int(header["qform_code"]) <= 0:
        return None
    copied = header.copy()
    if float(copied["pixdim"][0]) not in (-1.0, 1.0):
        copied["pixdim"][0] = 1.0  # the format's rule for 0
    try:
        return np.asarray(copied.get_qform(), dtype=np.float64)
    except ValueError:
        return None


def _largest_distance(difference: Matrix, size_xyz: tuple[int, int, int]) -> float:
    """Between the positions that two affines, given by their difference, have for a corner of the image, mm."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(size_xyz) - 1)
    shift = corners @ difference[:3, :3].T + difference[:3, 3]
    return float(np.linalg.norm(shift, axis=1).max()) if np.isfinite(shift).all() else math.inf
