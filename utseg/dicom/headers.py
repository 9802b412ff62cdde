"""What a DICOM file's header says of its frames: where each lies, when in the heart's cycle, and whose it is. No pixel is read.

Objects of one frame and enhanced multi-frame objects (functional groups) give the same `Frame`s. What is not given, or makes no sense, is
None; only position and orientation have to be there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from utseg.dicom.reading import DIRECTORY_CLASS, Unreadable, damage_named, read_dataset

MOST_FRAMES = 20_000  # of one object
LARGEST_SIDE = 4096  # rows, columns
SPACING_MM = (0.05, 50.0)
# Values of ImageType and ComplexImageComponent of images that show phase, velocity or a part of a complex number.
PHASE_IMAGES = frozenset(
    {"P", "PHASE", "PHASE MAP", "VELOCITY", "VELOCITY MAP", "R", "REAL", "I", "IMAGINARY"}
)
TEXTS = {
    "SOPClassUID": 0x00080016, "SOPInstanceUID": 0x00080018, "Modality": 0x00080060, "Manufacturer": 0x00080070,
    "StudyDate": 0x00080020, "StudyTime": 0x00080030, "SeriesDescription": 0x0008103E, "ManufacturerModelName": 0x00081090,
    "PatientName": 0x00100010, "PatientID": 0x00100020, "PatientBirthDate": 0x00100030, "PatientSex": 0x00100040,
    "PatientAge": 0x00101010, "StudyInstanceUID": 0x0020000D, "SeriesInstanceUID": 0x0020000E,
    "FrameOfReferenceUID": 0x00200052, "ScanningSequence": 0x00180020, "SequenceVariant": 0x00180021, "SequenceName": 0x00180024,
    "PulseSequenceName": 0x00189005,
}  # fmt: skip
NUMBERS = {
    "PatientSize": 0x00101020, "PatientWeight": 0x00101030, "SliceThickness": 0x00180050, "EchoTime": 0x00180081,
    "InversionTime": 0x00180082, "MagneticFieldStrength": 0x00180087, "SpacingBetweenSlices": 0x00180088, "TriggerTime": 0x00181060,
    "NominalInterval": 0x00181062, "HeartRate": 0x00181088, "SeriesNumber": 0x00200011, "AcquisitionNumber": 0x00200012,
    "InstanceNumber": 0x00200013,
    "TemporalPositionIdentifier": 0x00200100, "NumberOfFrames": 0x00280008, "SamplesPerPixel": 0x00280002,
    "Rows": 0x00280010, "Columns": 0x00280011,
}  # fmt: skip
OTHERS = {
    "ImageType": 0x00080008, "ComplexImageComponent": 0x00089208, "ImagePositionPatient": 0x00200032,
    "ImageOrientationPatient": 0x00200037, "PixelSpacing": 0x00280030, "SharedFunctionalGroupsSequence": 0x52009229,
    "PerFrameFunctionalGroupsSequence": 0x52009230,
}  # fmt: skip
HEADER_TAGS = frozenset({*TEXTS.values(), *NUMBERS.values(), *OTHERS.values()})
Vector = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """One image. `position` is of the first voxel's centre and `orientation` holds the directions along a row and down a column (LPS, mm).

    `spacing` is between rows and between columns (mm), `distance_mm` between slices, as the header has it; times are in ms;
    `number` counts from 1, None in an object of one frame; `order` is a number that grows with time where there is no `trigger_ms`.
    """

    number: int | None
    position: Vector
    orientation: Vector
    spacing: Vector
    thickness_mm: float | None
    distance_mm: float | None
    trigger_ms: float | None
    order: float | None
    acquisition: float | None
    inversion_ms: float | None
    echo_ms: float | None
    rr_ms: float | None
    is_phase: bool
    is_derived: bool


@dataclass(frozen=True, slots=True)
class FileHeader:
    """One DICOM object. `texts` and `numbers` are its elements by keyword, where they are there; `why`: why no frame of it is used."""

    path: Path
    texts: dict[str, str]
    numbers: dict[str, float]
    frames: tuple[Frame, ...]
    why: str = ""

    def __str__(self) -> str:
        """Which it is in its study, without its path, as paths name patients."""
        series, image = (self.numbers.get(name, math.nan) for name in ("SeriesNumber", "InstanceNumber"))
        return f"series {series:g}, image {image:g}"

    def text(self, keyword: str) -> str:
        return self.texts.get(keyword, "")

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.numbers["Rows"]), int(self.numbers["Columns"])

    @property
    def patient(self) -> str:
        """What tells patients apart: the id, else name and birth date, else the study."""
        return (
            self.text("PatientID")
            or " ".join(filter(None, (self.text("PatientName"), self.text("PatientBirthDate"))))
            or self.text("StudyInstanceUID")
        )

    @property
    def rank(self) -> tuple[float, str]:
        """Later series of a study have a higher one."""
        return self.numbers.get("SeriesNumber", -1.0), self.text("SeriesInstanceUID")


def read_header(path: Path) -> FileHeader | None:
    """The header of a file; None where it is not DICOM, or a DICOMDIR. Raises Unreadable, with no path in its message."""
    dataset = read_dataset(path, HEADER_TAGS)
    if dataset is None:
        return None
    with damage_named():
        texts = {keyword: text for keyword in TEXTS if (text := _text(dataset, keyword))}
        numbers = {keyword: value for keyword in NUMBERS if (value := _number(dataset, keyword)) is not None}
        media_class = str(getattr(dataset.file_meta, "MediaStorageSOPClassUID", ""))
        if DIRECTORY_CLASS in (media_class, texts.get("SOPClassUID")):
            return None
        for needed in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            if needed not in texts:
                raise Unreadable(f"its {needed} is missing or empty")
        if (modality := texts.get("Modality")) != "MR":
            return FileHeader(path, texts, numbers, (), f"no MR images (modality {modality or 'not given'})")
        if numbers.get("SamplesPerPixel", 1) != 1:
            return FileHeader(
                path, texts, numbers, (), "colour images: results that a scanner drew, no scans"
            )
        for side in ("Rows", "Columns"):
            if not 1 <= numbers.get(side, 0) <= LARGEST_SIDE:
                raise Unreadable(f"its {side} are {numbers.get(side, 0):g}; expected 1 to {LARGEST_SIDE}")
        frames = tuple(_frames(dataset, numbers))
    return FileHeader(path, texts, numbers, frames, "" if frames else "no usable position and orientation")


def _frames(dataset: Any, numbers: dict[str, float]) -> list[Frame]:
    """The frames of an object; none where a position is missing."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    shared = dataset.get("SharedFunctionalGroupsSequence") or ()
    if (
        not per_frame or "NumberOfFrames" not in numbers
    ):  # some scanners write groups into objects of one frame
        frame = _frame([], dataset, numbers, None) if numbers.get("NumberOfFrames", 1) == 1 else None
        return [frame] if frame is not None else []
    count = int(numbers["NumberOfFrames"])
    if not len(per_frame) == count <= MOST_FRAMES:
        raise Unreadable(
            f"has functional groups of {len(per_frame)} frames; expected {count}, at most {MOST_FRAMES:,}"
        )
    frames = []
    for index, item in enumerate(per_frame):
        groups = [*_groups(item), *(group for one in shared[:1] for group in _groups(one))]
        frame = _frame(groups, dataset, numbers, index + 1)
        if frame is None:
            return []
        frames.append(frame)
    return frames


def _groups(item: Any) -> list[Any]:
    """The functional groups in an item, each of which is a sequence of one item."""
    return [element.value[0] for element in item if element.VR == "SQ" and element.value]


def _frame(
    groups: Sequence[Any], dataset: Any, numbers: Mapping[str, float], number: int | None
) -> Frame | None:
    """A frame from its functional groups, the most particular first, and from the object's own elements; None where it has no place."""
    sources = [*groups, dataset]

    def first(*keywords: str) -> float | None:
        found = (_number(group, keyword) for keyword in keywords for group in groups)
        known = (numbers.get(keyword) for keyword in keywords)
        return next((value for value in chain(found, known) if value is not None), None)

    def vector(keyword: str, count: int) -> Vector | None:
        found = (_vector(source, keyword, count) for source in sources)
        return next((value for value in found if value is not None), None)

    position, spacing = vector("ImagePositionPatient", 3), vector("PixelSpacing", 2)
    orientation = vector("ImageOrientationPatient", 6)
    if position is None or orientation is None or spacing is None or not _is_plane(orientation, spacing):
        return None
    types = [_words(source, keyword) for source in sources for keyword in ("FrameType", "ImageType")]
    kinds = {kind for words in types for kind in words[2:]}
    kinds |= {kind for source in sources for kind in _words(source, "ComplexImageComponent")}
    order = first("TemporalPositionIndex") if number is not None else None
    return Frame(
        number,
        position,
        orientation,
        spacing,
        thickness_mm=first("SliceThickness"),
        distance_mm=first("SpacingBetweenSlices"),
        trigger_ms=first("NominalCardiacTriggerDelayTime", "TriggerTime"),
        order=order or number or first("InstanceNumber", "TemporalPositionIdentifier"),
        acquisition=first("FrameAcquisitionNumber", "AcquisitionNumber"),
        inversion_ms=first("InversionTimes", "InversionTime"),
        echo_ms=first("EffectiveEchoTime", "EchoTime"),
        rr_ms=first("RRIntervalTimeNominal", "NominalInterval"),
        is_phase=not PHASE_IMAGES.isdisjoint(kinds),
        is_derived=any(words[:1] == ["DERIVED"] for words in types),
    )


def _is_plane(orientation: Vector, spacing: Vector) -> bool:
    """Whether the directions are unit vectors at right angles, as near as headers write them, and the spacing is one of images."""
    row, column = orientation[:3], orientation[3:]
    lengths = (math.hypot(*row), math.hypot(*column))
    across = abs(sum(a * b for a, b in zip(row, column, strict=True)))
    return (
        all(abs(length - 1) < 1e-2 for length in lengths)
        and across < 1e-2
        and all(SPACING_MM[0] <= mm <= SPACING_MM[1] for mm in spacing)
    )


@cache
def _tag(keyword: str) -> Any:
    from pydicom.tag import Tag

    return Tag(keyword)


def _value(source: Any, keyword: str) -> Any:
    """An element's value, None where it is not there or its bytes are not what its type calls for."""
    try:
        element = source.get(_tag(keyword))  # much quicker than by keyword
        return None if element is None else element.value
    except Exception:  # noqa: BLE001 — as in `damage_named`; one wrong element does not spoil the others
        return None


def _text(source: Any, keyword: str) -> str:
    """Text on one line, without control characters, which some systems pad with."""
    value = _value(source, keyword)
    text = "" if value is None else str(value)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())


def _words(source: Any, keyword: str) -> list[str]:
    value = _value(source, keyword)
    return [] if value is None else [str(word) for word in ([value] if isinstance(value, str) else value)]


def _number(source: Any, keyword: str) -> float | None:
    """A finite number, the first of several."""
    value = _value(source, keyword)
    try:
        number = float(value if isinstance(value, (str, int, float)) else value[0])
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _vector(source: Any, keyword: str, count: int) -> Vector | None:
    value = _value(source, keyword)
    try:
        numbers = tuple(float(number) for number in value)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if len(numbers) == count and all(abs(number) < 1e6 for number in numbers) else None
