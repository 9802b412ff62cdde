"""Decodes NIfTI-1 and NIfTI-2 files (.nii, .nii.gz): the header is checked before anything is allocated, the content against it.

nibabel reads the header, because SimpleITK refuses directions that real scans have and returns damaged gzip files without a word.
Not read here: ANALYZE and .hdr/.img pairs, RGB and complex voxels, vectors. Values are returned as stored, scaled where the header says so.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utseg.errors import InputError
from utseg.notices import Notice
from utseg.rawdata.content import GZIP_MAGIC, Content, GzipContent, PlainContent, dicom_refusal, kind_of
from utseg.rawdata.geometry import SPACING_RANGE_MM, Geometry, Matrix, affine_problem

HEAD_BYTES = 540  # NIfTI-2's header, the longer one
LARGEST_VOXELS = 2**30  # of one frame: 1024³
DISAGREEMENT_MM = 0.1  # between two positions of one corner that a header gives
SAME_LENGTH = 1e-3  # relative, of two spacings that a header gives
ONE_NUMBER = (
    "expected one real number a voxel: export an image in grey values, a segmentation as one label map "
    "(in 3D Slicer: Segmentations, Export to files, NIfTI)"
)
VOXEL_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
REFUSED_TYPES = {
    1: "1-bit",
    32: "complex",
    128: "RGB colour",
    1536: "128-bit float",
    1792: "complex",
    2048: "complex",
    2304: "RGBA colour",
}


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
    """One frame: `values` ZYX of any real dtype, and what the user should know about the file."""

    values: NDArray[Any]
    geometry: Geometry
    warnings: tuple[Notice, ...] = ()


def read_header(path: Path) -> Header:
    """Reads and checks the header alone. Raises InputError."""
    with _opened(path) as content:
        return _checked_header(path, content)


def read_volume(path: Path, frame: int | None) -> ImageFrame:
    """Reads one frame and checks the whole file. `frame` None is for files of one frame. Raises InputError."""
    with _opened(path) as content:
        header = _checked_header(path, content)
        index = frame_index(path, frame, header.frames)
        data = content.part(
            header.offset + index * header.frame_bytes, header.frame_bytes, header.total_bytes
        )
    values = header.geometry.from_file(
        np.frombuffer(data, header.dtype).reshape(header.geometry.file_size_xyz[::-1])
    )
    return ImageFrame(_scaled(values, header.scale), header.geometry, header.warnings)


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


def first_nonzero_frame(path: Path, start: int = 0) -> int | None:
    """The first frame, from `start` on, with a stored byte that is not zero; reads no further. A damaged file raises InputError."""
    with _opened(path) as content:
        header = _checked_header(path, content)
        position = content.first_nonzero(header.offset + start * header.frame_bytes)
    return None if position is None else (position - header.offset) // header.frame_bytes


@contextmanager
def _opened(path: Path) -> Iterator[Content]:
    compressed = path.name.endswith(".gz")
    try:
        with path.open("rb") as handle:
            begin = handle.peek(256)[:256]
            if not begin:
                raise InputError(f"{path}: the file is empty; copy or export it again")
            if compressed and not begin.startswith(GZIP_MAGIC):
                raise _not_nifti(path, begin, "gzip-compressed NIfTI")
            yield GzipContent(path, handle) if compressed else PlainContent(path, handle)
    except OSError as error:
        raise InputError(f"{path}: could not be read ({error.strerror or error})") from None


def _not_nifti(path: Path, begin: bytes, expected: str) -> InputError:
    if begin[128:132] == b"DICM":
        return dicom_refusal(path)
    known = kind_of(begin)
    if known is None and len(begin) >= 4 and _header_class(begin) is not None:
        known = "NIfTI without compression; rename it to .nii"
    return InputError(
        f"{path}: not {expected}: it begins like {known or repr(begin[:8])}; export it as NIfTI"
    )


def _header_class(begin: bytes) -> tuple[type[Any], str] | None:
    """nibabel's class and the byte order, by the header's first field; None where it is not NIfTI."""
    nifti1, nifti2 = header_classes()
    for order in "<>":
        size = int(np.frombuffer(begin[:4], order + "i4")[0])
        if size in (348, 540):
            return (nifti1 if size == 348 else nifti2), order
    return None


@cache
def header_classes() -> tuple[type[Any], type[Any]]:
    """nibabel's NIfTI-1 and NIfTI-2 headers, imported at first use."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    return Nifti1Header, Nifti2Header


def parse_header(data: bytes) -> Any:
    """nibabel's header object from the bytes of `Geometry.header`, unchecked."""
    found = _header_class(data)
    assert found is not None, "a Geometry's header is NIfTI or empty"
    header_class, order = found
    return header_class(data, endianness=order, check=False)


def _checked_header(path: Path, content: Content) -> Header:
    begin = content.head(HEAD_BYTES)
    found = _header_class(begin) if len(begin) >= 4 else None
    if found is None:
        raise _not_nifti(path, begin, "NIfTI")
    header_class, order = found
    length = header_class.template_dtype.itemsize
    if len(begin) < length:
        raise InputError(
            f"{path}: ends within its header ({len(begin)} of {length} bytes); copy or export it again"
        )
    header = header_class(begin[:length], endianness=order, check=False)
    magic = bytes(header["magic"])[:3].rstrip(b"\0")
    if magic not in (b"n+1", b"n+2"):
        raise InputError(
            f"{path}: not single-file NIfTI (magic {magic!r}); convert ANALYZE or .hdr/.img pairs to .nii.gz"
        )
    size_xyz, frames = _size(path, header)
    dtype = _voxel_type(path, header)
    geometry, warnings = _geometry(path, header, size_xyz)
    checked = Header(
        geometry, dtype, frames, _offset(path, header, length), _scale(path, header), tuple(warnings)
    )
    if checked.total_bytes > content.most:
        raise InputError(
            f"{path}: the header calls for {checked.total_bytes:,} bytes ({' × '.join(map(str, size_xyz))} voxels, frames: {frames}), "
            f"the file can hold {content.most:,} at most; it is cut off or its header is damaged: copy or export it again"
        )
    return checked


def _size(path: Path, header: Any) -> tuple[tuple[int, int, int], int]:
    """Size (x, y, z) and number of frames. Refuses what is not 3-D or a series of 3-D frames, and absurd sizes."""
    count = int(header["dim"][0])
    dims = [int(number) for number in header["dim"][1:8]]
    if not 1 <= count <= 7:
        raise InputError(
            f"{path}: the header says {count} dimensions; it is damaged: copy or export the file again"
        )
    if count < 3:
        raise InputError(
            f"{path}: {count}-D where a 3-D image is expected; a single slice needs a third dimension of 1"
        )
    dims = dims[:count]
    if min(dims) < 1:
        raise InputError(f"{path}: dimensions {dims} in the header; expected numbers of at least 1")
    if math.prod(dims[4:]) > 1:
        raise InputError(
            f"{path}: {count}-D ({' × '.join(map(str, dims))}) where a 3-D image is expected, or a 4-D cine; {ONE_NUMBER}"
        )
    x, y, z = dims[:3]
    if x * y * z > LARGEST_VOXELS:
        raise InputError(
            f"{path}: {x} × {y} × {z} voxels in the header; expected at most {LARGEST_VOXELS:,}: the header is damaged, or the image "
            "has to be cropped"
        )
    return (x, y, z), dims[3] if count > 3 else 1


def _voxel_type(path: Path, header: Any) -> np.dtype[Any]:
    code = int(header["datatype"])
    if code not in VOXEL_TYPES:
        what = REFUSED_TYPES.get(code, f"unknown (code {code})")
        raise InputError(f"{path}: voxels of type {what}; {ONE_NUMBER}")
    dtype: np.dtype[Any] = np.dtype(str(header.endianness) + VOXEL_TYPES[code])
    if int(header["bitpix"]) != dtype.itemsize * 8:
        raise InputError(
            f"{path}: the header says {int(header['bitpix'])} bits a voxel, but its type has {dtype.itemsize * 8}; it is damaged"
        )
    return dtype


def _offset(path: Path, header: Any, length: int) -> int:
    offset = float(header["vox_offset"])
    if not (math.isfinite(offset) and offset >= length and offset == int(offset)):
        raise InputError(
            f"{path}: voxels begin at byte {offset:g} according to the header; expected {length + 4} or more"
        )
    return int(offset)


def _scale(path: Path, header: Any) -> tuple[float, float] | None:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        return None  # the format's way to say that values are not scaled
    if not math.isfinite(intercept):
        raise InputError(f"{path}: the intercept of the values (scl_inter) is {intercept}; expected a number")
    return None if (slope, intercept) == (1.0, 0.0) else (slope, intercept)


def _scaled(values: NDArray[Any], scale: tuple[float, float] | None) -> NDArray[Any]:
    if scale is None:
        return values
    slope, intercept = scale
    if values.dtype.itemsize < 4:
        return values.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return values.astype(np.float64) * slope + intercept


def _geometry(path: Path, header: Any, size_xyz: tuple[int, int, int]) -> tuple[Geometry, list[Notice]]:
    """Size and affine. Directions and origin in nibabel's order: sform if its code is set, else qform, else spacing alone.

    Spacing is `pixdim`, as ITK reads it: all of ACDC has sforms of unit lengths. Contradictions warn.
    """
    unit = int(header["xyzt_units"]) & 7
    if unit in (1, 3):
        raise InputError(
            f"{path}: spacing in {'metres' if unit == 1 else 'micrometres'}; expected mm: convert the header"
        )
    spacing = np.array(header["pixdim"][1:4], dtype=np.float64)
    low, high = SPACING_RANGE_MM
    usable = bool(((spacing >= low) & (spacing <= high)).all())  # not where it is NaN
    sform, qform = _sform(header), _qform(header) if usable else None
    warnings = []
    if (
        sform is not None
        and (problem := affine_problem(sform))
        and _is_degenerate(sform)
        and qform is not None
    ):
        warnings.append(Notice("the sform cannot be used; the qform is used", str(path), problem))
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
    if not usable:
        header["pixdim"][1:4] = np.linalg.norm(matrix[:3, :3], axis=0)
        detail = (
            f"{_spacing_text(spacing)} in the header, {_spacing_text(header['pixdim'][1:4])} mm in the sform"
        )
        warnings.append(
            Notice("spacing (x, y, z) cannot be used and is taken from its sform", str(path), detail)
        )
    elif sform is not None:
        matrix, contradictions = _with_spacing(path, sform, spacing)
        warnings += contradictions
        warnings += _disagreement(path, matrix, qform, size_xyz)
    return Geometry.of_file(size_xyz, matrix, header.binaryblock), warnings


def _with_spacing(path: Path, sform: Matrix, spacing: Matrix) -> tuple[Matrix, list[Notice]]:
    """The sform with the lengths of `pixdim`; as it is where it has them."""
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    if np.allclose(lengths, spacing, rtol=SAME_LENGTH, atol=0):
        return sform, []
    matrix = sform.copy()
    matrix[:3, :3] *= spacing / lengths
    if np.allclose(lengths, 1, rtol=SAME_LENGTH, atol=0):
        kind = "spacing (x, y, z) is taken from pixdim, as the sform has unit lengths"
        return matrix, [Notice(kind, str(path), f"{_spacing_text(spacing)} mm")]
    kind = "spacing (x, y, z) in pixdim contradicts the sform's; pixdim is used, as ITK does: check it"
    return matrix, [
        Notice(kind, str(path), f"{_spacing_text(spacing)} mm against {_spacing_text(lengths)} mm")
    ]


def _is_degenerate(matrix: Matrix) -> bool:
    return not np.isfinite(matrix).all() or bool((np.linalg.norm(matrix[:3, :3], axis=0) == 0).any())


def _spacing_text(spacing: Any) -> str:
    return ", ".join(f"{float(length):.5g}" for length in spacing)


def _sform(header: Any) -> Matrix | None:
    return np.asarray(header.get_sform(), dtype=np.float64) if int(header["sform_code"]) > 0 else None


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


def _disagreement(
    path: Path, matrix: Matrix, qform: Matrix | None, size_xyz: tuple[int, int, int]
) -> list[Notice]:
    if qform is None:
        return []
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (np.array(size_xyz) - 1)
    shift = corners @ (matrix - qform)[:3, :3].T + (matrix - qform)[:3, 3]
    distance = float(np.linalg.norm(shift, axis=1).max()) if np.isfinite(shift).all() else math.inf
    if distance <= DISAGREEMENT_MM:
        return []
    return [Notice("the sform is used; the qform differs", str(path), f"by up to {distance:.3g} mm")]
