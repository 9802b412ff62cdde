"""Reads MetaImage (.mha) and NRRD (.nrrd) through SimpleITK, after checking what can be checked without it.

SimpleITK fills up what a cut-off file lacks, so the length of the data is held against the header first, and compressed data is
decompressed once for its checksum. Raw data has no checksum: a flipped bit in it cannot be noticed. Header and data must be one file.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utseg.errors import InputError
from utseg.rawdata.content import LARGEST_RATIO, dicom_refusal, is_dicom, unpacked, wrong_size
from utseg.rawdata.geometry import Geometry, affine_of_itk, affine_problem
from utseg.rawdata.nifti import LARGEST_VOXELS, ONE_NUMBER, ImageFrame, frame_index

LONGEST_HEADER = 2**16
SPEAKER = re.compile(r"^ITK ERROR: \w+\(0x[0-9a-f]+\): ")  # an address, another one each time
REAL_TYPE = re.compile(r"(\d+)-bit (?:(?:un)?signed integer|float)")


def read_volume(path: Path, frame: int | None, *, as_channels: bool = False) -> ImageFrame:
    """Reads one frame, (Z, Y, X), or with `as_channels` all volumes of the file, (C, Z, Y, X). Raises InputError.

    `frame` None is for files of one frame.
    """
    size, geometry = _information(path)
    index = 0 if as_channels else frame_index(path, frame, size[3] if len(size) > 3 else 1)
    import SimpleITK

    with itk_errors(path):
        values = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    values = values.reshape(-1, *values.shape[-3:])
    return ImageFrame(geometry.from_file(values if as_channels else values[index]), geometry)


def frame_count(path: Path) -> int:
    """Frames of a 4-D file, 1 for 3-D."""
    size, _ = _information(path)
    return size[3] if len(size) > 3 else 1


def read_geometry(path: Path) -> Geometry:
    """How a file lies, by its header."""
    return _information(path)[1]


@contextmanager
def itk_errors(path: Path) -> Iterator[None]:
    """SimpleITK's many-lined errors as one line, and its warnings off the terminal."""
    import SimpleITK

    shown = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    except RuntimeError as error:
        reason = SPEAKER.sub("", str(error).strip().splitlines()[-1].strip())
        raise InputError(f"{path}: could not be read ({reason})") from None
    finally:
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(shown)


def _information(path: Path) -> tuple[tuple[int, ...], Geometry]:
    """Size (x, y, z[, t]) and geometry from the header, checked; nothing is allocated."""
    import SimpleITK

    _require_magic(path)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("MetaImageIO" if path.suffix == ".mha" else "NrrdImageIO")
    with itk_errors(path):
        reader.ReadImageInformation()
    size = tuple(int(length) for length in reader.GetSize())
    if len(size) not in (3, 4) or min(size) < 1:
        raise InputError(f"{path}: dimensions {size}; expected a 3-D image, or a 4-D cine")
    kind = SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())
    real = REAL_TYPE.fullmatch(kind)
    if reader.GetNumberOfComponents() != 1 or real is None:
        raise InputError(
            f"{path}: {kind} voxels with {reader.GetNumberOfComponents()} components; {ONE_NUMBER}"
        )
    if math.prod(size[:3]) > LARGEST_VOXELS:
        raise InputError(
            f"{path}: {' × '.join(map(str, size[:3]))} voxels in the header; expected at most {LARGEST_VOXELS:,}"
        )
    _check_payload(path, math.prod(size) * int(real[1]) // 8)
    matrix = affine_of_itk(reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())
    if problem := affine_problem(matrix):
        raise InputError(f"{path}: {problem}")
    return size, Geometry.of_file((size[0], size[1], size[2]), matrix)


def _require_magic(path: Path) -> None:
    try:
        with path.open("rb") as handle:
            begin = handle.read(64)
    except OSError as error:
        raise InputError(f"{path}: could not be read ({error.strerror or error})") from None
    if not begin:
        raise InputError(f"{path}: the file is empty; copy or export it again")
    if is_dicom(path):
        raise dicom_refusal(path)
    expected = b"NRRD" if path.suffix == ".nrrd" else b"ObjectType"
    if not begin.startswith(expected) and not (path.suffix == ".mha" and b"=" in begin.split(b"\n", 1)[0]):
        raise InputError(f"{path}: not a {path.suffix} file: it begins with {begin[:8]!r}")


def _check_payload(path: Path, expected: int) -> None:
    """Holds the data that follows the header against the `expected` bytes. Raises InputError where it is cut off, damaged or elsewhere."""
    with path.open("rb") as handle:
        start, compressed, stated = _data_start(path, handle.read(LONGEST_HEADER))
        found = path.stat().st_size - start
        if (
            compressed and path.suffix == ".mha" and stated != str(found)
        ):  # ITK leaves voxels unset then, and says nothing
            raise InputError(
                f"{path}: CompressedDataSize is {stated or 'not given'}, and {found:,} bytes follow the header; copy or export it again"
            )
        if compressed and expected > found * LARGEST_RATIO:
            raise wrong_size(path, expected, f"at most {found * LARGEST_RATIO:,}")
        if compressed:
            handle.seek(start)
            found = 0
            for chunk in unpacked(path, handle, joined=path.suffix == ".nrrd"):
                found += len(chunk)
                if found > expected:
                    raise wrong_size(path, expected, "more")
    if found != expected:
        raise wrong_size(path, expected, f"{found:,}")


def _data_start(path: Path, begin: bytes) -> tuple[int, bool, str | None]:
    """Where the data begins, whether it is compressed, and how many compressed bytes a .mha says that it has."""
    nrrd = path.suffix == ".nrrd"
    text, marker = begin, -1
    if nrrd:
        ends = [(text.find(blank), len(blank)) for blank in (b"\n\n", b"\r\n\r\n") if blank in text]
        marker, length = min(ends, default=(-1, 0))
    else:
        key = text.find(b"ElementDataFile")
        marker, length = (text.find(b"\n", key), 1) if key >= 0 else (-1, 0)
    if marker < 0:
        raise InputError(f"{path}: the header has no end; the file is damaged or not a {path.suffix} file")
    fields = {}
    for line in text[:marker].decode("latin-1").splitlines():
        name, colon, value = line.partition(":" if nrrd else "=")
        if colon:
            fields[name.strip().lower().replace(" ", "")] = value.strip().lower()
    if ("datafile" in fields) if nrrd else (fields.get("elementdatafile") != "local"):
        raise InputError(f"{path}: its data is in another file; save header and data as one file")
    encoding = fields.get("encoding", "raw")
    if nrrd and encoding not in ("raw", "gzip", "gz"):
        raise InputError(f"{path}: encoding {encoding!r}; expected raw or gzip")
    compressed = encoding != "raw" if nrrd else fields.get("compresseddata") == "true"
    return marker + length, compressed, fields.get("compresseddatasize")
