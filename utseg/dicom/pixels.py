"""Reads the pixels of a stack: pydicom decodes, GDCM (in SimpleITK) what pydicom has no decoder for. Sizes are checked before decoding.

Values are the scanner's: rescale slope and intercept applied, MONOCHROME1 (white is low) turned round, unused high bits cleared.
"""

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from utseg.dicom.planes import Image
from utseg.dicom.reading import PIXEL_DATA, Unreadable, damage_named, read_dataset
from utseg.dicom.stacks import Stack
from utseg.errors import InputError
from utseg.rawdata.itk import itk_errors

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MOST_VOXELS = 2**28  # of a cine
SPARE_BYTES = 2**16
TAGS = frozenset({
    0x00080016, 0x00080018, 0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101,
    0x00280102, 0x00280103, 0x00281052, 0x00281053, 0x52009229, 0x52009230, 0x7FE00001, 0x7FE00002, PIXEL_DATA,
})  # fmt: skip
Scale = tuple[float, float]


class DamagedPixels(InputError):
    """Pixels of a stack that cannot be read. `damaged`: by file what is wrong with it."""

    def __init__(self, damaged: dict[Path, str]) -> None:
        self.damaged = damaged
        super().__init__("; ".join(damaged.values()))

    def __reduce__(self) -> tuple[type["DamagedPixels"], tuple[dict[Path, str]]]:
        return type(self), (self.damaged,)


def read_stack(stack: Stack) -> NDArray[Any]:
    """(T, Z, Y, X) of a stack: int16, uint16 or int32 as stored, float32 where values are rescaled.

    Raises DamagedPixels with all files that cannot be read, and InputError for a stack that is too large.
    """
    shape = stack.size_tzyx
    if np.prod(shape, dtype=np.int64) > MOST_VOXELS:
        raise InputError(
            f"{' × '.join(map(str, shape))} voxels (t, z, y, x); expected at most {MOST_VOXELS:,}"
        )
    wanted: dict[Path, list[tuple[int, int, Image]]] = defaultdict(list)
    for frame in range(shape[0]):
        for place in range(shape[1]):
            image = stack.image(frame, place)
            wanted[image.header.path].append((frame, place, image))
    stored: NDArray[Any] | None = None
    slopes = np.ones(shape[:2]), np.zeros(shape[:2])
    damaged: dict[Path, str] = {}
    for path, places in wanted.items():
        try:
            with damage_named():
                images = _read_images(path, [image.frame.number for *_, image in places], shape[2:])
        except Unreadable as error:
            damaged[path] = str(error)
            continue
        for (frame, place, _), (values, (slope, intercept)) in zip(places, images, strict=True):
            if stored is None:
                stored = np.empty(shape, values.dtype)
            elif stored.dtype != values.dtype:
                stored = stored.astype(np.promote_types(stored.dtype, values.dtype), copy=False)
            stored[frame, place] = values
            slopes[0][frame, place], slopes[1][frame, place] = slope, intercept
    if damaged:
        raise DamagedPixels(damaged)
    assert stored is not None, "a stack has images"
    if (slopes[0] == 1).all() and not slopes[1].any():
        return stored
    scaled = stored.astype(np.float32)
    scaled *= slopes[0].astype(np.float32)[..., None, None]
    scaled += slopes[1].astype(np.float32)[..., None, None]
    return scaled


def _read_images(
    path: Path, numbers: Sequence[int | None], size: tuple[int, ...]
) -> list[tuple[NDArray[Any], Scale]]:
    """The frames of one file with slope and intercept, values as stored."""
    dataset = read_dataset(path, TAGS, pixels=True)
    if dataset is None or "PixelData" not in dataset:
        raise Unreadable("has no pixel data")
    bits, used, high = (int(dataset[name].value) for name in ("BitsAllocated", "BitsStored", "HighBit"))
    signed = bool(dataset.PixelRepresentation)
    if dataset.SamplesPerPixel != 1 or bits not in (8, 16, 32) or not 1 <= used <= high + 1 <= bits:
        raise Unreadable(
            f"{dataset.SamplesPerPixel} values a pixel of {used} in {bits} bits; expected one grey value"
        )
    if (dataset.Rows, dataset.Columns) != size:
        raise Unreadable(f"{dataset.Rows} × {dataset.Columns} pixels; expected {size[0]} × {size[1]}")
    frames = _decode(dataset, [(number or 1) - 1 for number in numbers], size[0] * size[1] * bits // 8)
    images = []
    for number, values in zip(numbers, frames, strict=True):
        if values.shape != size:
            raise Unreadable(f"its pixels are {values.shape}; expected {size}")
        values = _clean(values, bits, used, high, signed)
        if str(dataset.PhotometricInterpretation) == "MONOCHROME1":
            values = np.asarray((-1 if signed else (1 << used) - 1) - values.astype(np.int64)).astype(
                values.dtype
            )
        images.append((values, _scale(dataset, number)))
    return images


def _clean(values: NDArray[Any], bits: int, used: int, high: int, signed: bool) -> NDArray[Any]:
    """The bits that are the value, in the smallest signed type that holds them (uint16 where that is 16 bits unsigned)."""
    wide = values.astype(np.int64) >> (high + 1 - used)
    wide &= (1 << used) - 1
    if signed:
        wide -= (wide >> (used - 1)) << used
    if used - signed <= 15:
        return wide.astype(np.int16)
    return wide.astype(np.uint16 if used == 16 else np.int32 if used - signed <= 31 else np.float64)


def _scale(dataset: "Dataset", number: int | None) -> Scale:
    """Rescale slope and intercept of a frame: (1, 0) where none is given."""
    sources: list[Any] = []
    if number is not None:
        per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or ()
        shared = dataset.get("SharedFunctionalGroupsSequence") or ()
        for group in (*per_frame[number - 1 : number], *shared[:1]):
            sources += list(group.get("PixelValueTransformationSequence") or ())[:1]
    for source in (*sources, dataset):
        if source.get("RescaleSlope") is not None:
            slope, intercept = float(source.RescaleSlope), float(source.get("RescaleIntercept") or 0)
            if not (np.isfinite([slope, intercept]).all() and slope):
                raise Unreadable(f"its rescale slope and intercept are {slope} and {intercept}")
            return slope, intercept
    return 1.0, 0.0


def _decode(dataset: "Dataset", indices: Sequence[int], frame_bytes: int) -> list[NDArray[Any]]:
    """Frames by index, from 0, as stored."""
    from pydicom.encaps import generate_frames
    from pydicom.pixels import get_decoder
    from pydicom.pixels.utils import iter_pixels

    count = int(dataset.get("NumberOfFrames") or 1)
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        dataset.file_meta.TransferSyntaxUID = syntax = _assumed_syntax(dataset)
    if not syntax.is_encapsulated:
        expected = count * frame_bytes
        if len(dataset.PixelData) < expected:
            raise Unreadable(
                f"{len(dataset.PixelData):,} bytes of pixels; expected {expected:,}: it is cut off"
            )
        if syntax.is_little_endian:  # pydicom's own reader gives the same, ten times slower
            kind = f"<{'i' if dataset.PixelRepresentation else 'u'}{dataset.BitsAllocated // 8}"
            values = np.frombuffer(dataset.PixelData, kind, expected * 8 // dataset.BitsAllocated)
            return list(values.reshape(count, dataset.Rows, dataset.Columns)[indices])
        return list(iter_pixels(dataset, indices=indices, raw=True))
    encoded = dict(enumerate(generate_frames(dataset.PixelData, number_of_frames=count)))
    for index in indices:
        if index not in encoded:
            raise Unreadable(f"{len(encoded)} compressed frames; expected {count}: it is cut off")
        if len(encoded[index]) > 2 * frame_bytes + SPARE_BYTES or not _fits(encoded[index], dataset):
            raise Unreadable("its compressed pixels are of another size than its header says")
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if available:
        return list(iter_pixels(dataset, indices=indices, raw=True))
    return [_decode_by_gdcm(dataset, encoded[index]) for index in indices]


def _assumed_syntax(dataset: "Dataset") -> Any:
    """The transfer syntax of a file without file_meta, as its header was read."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = dataset.original_encoding
    return (ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian) if little else ExplicitVRBigEndian


def _fits(data: bytes, dataset: "Dataset") -> bool:
    """Whether a JPEG or JPEG 2000 stream says the size that the header says; True where it is neither."""
    stated = None
    if (
        data[:4] == b"\xff\x4f\xff\x51"
    ):  # SIZ: Lsiz, Rsiz, then the size and the offset of the image on its grid
        width, height, left, top = (int.from_bytes(data[at : at + 4], "big") for at in (8, 12, 16, 20))
        stated = (height - top, width - left)
    elif data[:2] == b"\xff\xd8":
        at = 2
        while at + 9 < len(data) and data[at] == 0xFF:
            marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
            if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
                stated = (
                    int.from_bytes(data[at + 5 : at + 7], "big"),
                    int.from_bytes(data[at + 7 : at + 9], "big"),
                )
                break
            at += 2 + length
    return stated is None or stated == (dataset.Rows, dataset.Columns)


def _decode_by_gdcm(dataset: "Dataset", data: bytes) -> NDArray[Any]:
    """One compressed frame through SimpleITK: written alone to a small file, so that nothing else of the header is parsed there."""
    import SimpleITK
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import MRImageStorage

    alone = Dataset()
    alone.file_meta = FileMetaDataset()
    alone.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    alone.file_meta.MediaStorageSOPClassUID = alone.SOPClassUID = MRImageStorage
    alone.file_meta.MediaStorageSOPInstanceUID = alone.SOPInstanceUID = "2.25.1"
    for name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        setattr(alone, name, dataset[name].value)
    alone.SamplesPerPixel, alone.PhotometricInterpretation = 1, "MONOCHROME2"
    alone.PixelData = encapsulate([data])
    alone["PixelData"].is_undefined_length = True
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.dcm"
        alone.save_as(path, enforce_file_format=True)
        with itk_errors(path):
            values = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path), imageIO="GDCMImageIO"))
    return np.asarray(values.reshape(values.shape[-2:]))
