"""What all objects made from a cine share: the study of the source, who made them, UIDs, and how they are written.

They are for research, and their series say so. UIDs are derived from what went in, so that a second run on the same files makes the
same object again and not another one.
"""

import uuid
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.datadict import tag_for_keyword
from pydicom.tag import BaseTag
from pydicom.uid import MRImageStorage
from pydicom.valuerep import DSfloat

import utseg
from utseg.dicom.codes import OWN_SCHEME
from utseg.dicom.reading import Unreadable, read_dataset
from utseg.dicom.sources import CineSources, SourceFrame, read_sources
from utseg.errors import InputError
from utseg.files import atomic_path, sha256_json

MAKER = "utseg"
RESEARCH = "research only"
SERIES_NUMBERS = {"segmentation": 9001, "measures": 9002, "figure": 9003}
PHASE_SERIES = 9101  # the segmentation of a cine's first phase alone; that of the next one is 9102
PATIENT = ("PatientID", "PatientName", "PatientBirthDate")
MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
ALSO_COPIED = (
    *(
        "SpecificCharacterSet",
        "SOPInstanceUID",
        "SeriesInstanceUID",
        "FrameOfReferenceUID",
        "IssuerOfPatientID",
    ),
    *("OtherPatientIDs", "PatientAge", "PatientSize", "PatientWeight", "StudyDescription"),
    *(
        "PatientIdentityRemoved",
        "DeidentificationMethod",
        "ClinicalTrialSponsorName",
        "ClinicalTrialProtocolID",
    ),
    *("ClinicalTrialSubjectID", "ClinicalTrialTimePointID"),
)
THICKNESS = ("SliceThickness", "SharedFunctionalGroupsSequence")
SEXES = ("M", "F", "O")
ADVICE = "put the DICOM folder back as it was, or import it again with utseg_import_dicom"


@contextmanager
def as_the_source_says() -> Iterator[None]:
    """Inside, what is copied from the source is written as it stands there, valid or not; nobody warns of it, as that would show names."""
    with disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def derived_uid(*words: str) -> str:
    """The UID of these words: 2.25 and a name-based UUID (ITU-T X.667)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, chr(0).join(words)).int}"


def content_key(sources: CineSources, *content: Any) -> str:
    """A checksum of the source frames, of our version, and of what else an object holds (values that JSON can write)."""
    frames = [[frame and (frame.sop_instance_uid, frame.number) for frame in row] for row in sources.frames]
    return sha256_json([utseg.__version__, sources.cine, frames, *content])


def series_keywords(kind: str, key: str, phase: int | None = None) -> dict[str, Any]:
    """UIDs, numbers and maker as highdicom's objects take them. `kind`: of SERIES_NUMBERS; `key`: of `content_key`.

    phase: counted from 0, where the object is of one phase of the cine.
    """
    return {
        "series_instance_uid": derived_uid(kind, "series", key),
        "series_number": SERIES_NUMBERS[kind] if phase is None else PHASE_SERIES + phase,
        "sop_instance_uid": derived_uid(kind, "instance", key),
        "instance_number": 1,
        "manufacturer": MAKER,
        "manufacturer_model_name": MAKER,
        "software_versions": utseg.__version__,
        "device_serial_number": utseg.__version__,
        "series_description": f"{MAKER} {kind}, {RESEARCH}",
    }


def checked_sources(folder: Path, cine: str) -> CineSources:
    """The record of a cine's sources, after each file was compared with it: what is derived from them goes to the patient they say.

    Raises InputError where a file has gone, is another object or of another study or series, or where the files are of several patients.
    """
    sources = read_sources(folder, cine)
    patients = set()
    for frame in {frame.file: frame for row in sources.frames for frame in row if frame}.values():
        header = _read_header(
            sources, frame, ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", *PATIENT)
        )
        if (
            header.get("StudyInstanceUID") != sources.study_instance_uid
            or header.get("SeriesInstanceUID") not in sources.series_instance_uids
        ):
            raise InputError(f"{_which(sources, frame)} is of another study or series now; {ADVICE}")
        own = [str(header.get(name) or "") for name in PATIENT]
        patients.add(own[0] or tuple(own))
    if len(patients) > 1:
        raise InputError(
            f"{sources.root}: the files of {cine} are of {len(patients)} patients now, by their PatientID; expected one; {ADVICE}"
        )
    return sources


def source_header(sources: CineSources) -> Dataset:
    """A header as of a classic MR image of the cine's first slice, in the source's patient and study: what highdicom starts from.

    Raises InputError where the source file has gone or is another one.
    """
    frame = next((frame for row in sources.frames for frame in row if frame), None)
    if frame is None:
        raise InputError(f"{sources.cine}: no DICOM frame is known that it was made from; import it again")
    source = _read_header(sources, frame, (*MAY_BE_EMPTY, *ALSO_COPIED, *THICKNESS))
    header = Dataset()
    for element in source:
        if element.keyword in ALSO_COPIED:
            header.add(element)
    for name in MAY_BE_EMPTY:
        value = source.get(name)
        setattr(header, name, "" if value is None or not _is_usable(name, str(value)) else value)
    (row_mm, column_mm), distance_mm = pixel_spacing_mm(sources), slice_distance_mm(sources)
    header.SpecificCharacterSet = "ISO_IR 192"  # UTF-8 has all names
    header.StudyInstanceUID = sources.study_instance_uid
    header.SOPClassUID = MRImageStorage
    header.Modality = "MR"
    header.Rows, header.Columns = sources.rows_columns
    header.PixelSpacing = [decimal(row_mm), decimal(column_mm)]
    header.SliceThickness = decimal(_thickness_mm(source) or distance_mm)
    header.ImageOrientationPatient = [*_unit(sources, 0), *_unit(sources, 1)]
    header.ImagePositionPatient = slice_position(sources, 0)
    # Positions need a frame of reference: where the source has none, the object stands in one of its own.
    header.FrameOfReferenceUID = source.get("FrameOfReferenceUID") or derived_uid(
        "frame of reference", sources.study_instance_uid
    )
    return header


def _read_header(sources: CineSources, frame: SourceFrame, keywords: Collection[str]) -> Dataset:
    """Some elements of the file that a frame is in."""
    try:
        header = read_dataset(
            Path(sources.root, frame.file),
            [BaseTag(tag_for_keyword(keyword) or 0) for keyword in keywords],
        )
    except Unreadable as error:
        raise InputError(f"{_which(sources, frame)} {error}; {ADVICE}") from None
    if header is None or header.get("SOPInstanceUID") != frame.sop_instance_uid:
        raise InputError(f"{_which(sources, frame)} is another DICOM object now; {ADVICE}")
    return header


def _which(sources: CineSources, frame: SourceFrame) -> str:
    """A frame's file. Paths name patients: the root is what somebody typed, and what lies in it stands in the record of sources alone."""
    time, place = next((t, row.index(frame)) for t, row in enumerate(sources.frames) if frame in row)
    return f"{sources.root}: the file of frame {time}, slice {place} of {sources.cine} (sources/{sources.cine}.json names it)"


def _is_usable(name: str, value: str) -> bool:
    """Whether a value of the source is one that highdicom copies; a date that is none, say, is left out."""
    if name == "PatientSex":
        return value in SEXES
    if name.endswith("Date"):
        try:
            datetime.strptime(value, "%Y%m%d")
        except ValueError:
            return False
    return True


def _thickness_mm(source: Dataset) -> float | None:
    """Of a classic image, or of all frames of a multi-frame one; None where it does not say."""
    shared = [
        item
        for group in source.get("SharedFunctionalGroupsSequence") or []
        for item in group.get("PixelMeasuresSequence") or []
    ]
    return next(
        (float(item.SliceThickness) for item in [source, *shared] if item.get("SliceThickness")), None
    )


def _matrix(sources: CineSources) -> NDArray[np.float64]:
    return np.array(sources.ijk_to_lps, float)


def _unit(sources: CineSources, axis: int) -> list[DSfloat]:
    step = _matrix(sources)[:3, axis]
    return [decimal(value) for value in step / np.linalg.norm(step)]


def decimal(value: float) -> DSfloat:
    """A number as DICOM writes it, in at most 16 letters."""
    return DSfloat(float(value), auto_format=True)


def pixel_spacing_mm(sources: CineSources) -> tuple[float, float]:
    """Between rows, between columns."""
    steps = np.linalg.norm(_matrix(sources)[:3, :2], axis=0)
    return float(steps[1]), float(steps[0])


def slice_distance_mm(sources: CineSources) -> float:
    """Between the planes of neighbouring slices."""
    return float(np.linalg.norm(_matrix(sources)[:3, 2]))


def slice_position(sources: CineSources, index: int) -> list[DSfloat]:
    """The centre of a slice's first pixel in patient coordinates, in mm."""
    return [decimal(value) for value in _matrix(sources)[:3] @ (0.0, 0.0, index, 1.0)]


def frame_reference(frame: SourceFrame) -> Dataset:
    """The reference to a source frame."""
    item = Dataset()
    item.ReferencedSOPClassUID = frame.sop_class_uid
    item.ReferencedSOPInstanceUID = frame.sop_instance_uid
    if frame.number is not None:
        item.ReferencedFrameNumber = frame.number
    return item


def source_instances(sources: CineSources, frames: Iterable[SourceFrame]) -> list[Dataset]:
    """The objects that hold these frames, each once: their UIDs and those of their series and study."""
    found: dict[str, Dataset] = {}
    for frame in frames:
        if frame.sop_instance_uid in found:
            continue
        series = sources.series_instance_uids[0]
        if len(sources.series_instance_uids) > 1:
            series = _read_header(sources, frame, ("SOPInstanceUID", "SeriesInstanceUID")).SeriesInstanceUID
        item = found[frame.sop_instance_uid] = Dataset()
        item.StudyInstanceUID, item.SeriesInstanceUID = sources.study_instance_uid, series
        item.SOPClassUID, item.SOPInstanceUID = frame.sop_class_uid, frame.sop_instance_uid
    return list(found.values())


def referenced_series(sources: CineSources, frames: Iterable[SourceFrame]) -> list[Dataset]:
    """Items of a Referenced Series Sequence: the objects that hold these frames, by their series."""
    series: dict[str, Dataset] = {}
    for instance in source_instances(sources, frames):
        item = series.setdefault(instance.SeriesInstanceUID, Dataset())
        item.SeriesInstanceUID = instance.SeriesInstanceUID
        reference = Dataset()
        reference.ReferencedSOPClassUID = instance.SOPClassUID
        reference.ReferencedSOPInstanceUID = instance.SOPInstanceUID
        item.ReferencedInstanceSequence = [*(item.get("ReferencedInstanceSequence") or []), reference]
    return list(series.values())


def write_object(dataset: Dataset, path: Path) -> Path:
    """Writes a DICOM object atomically, with a word on whose codes ours are."""
    scheme = Dataset()
    scheme.CodingSchemeDesignator = OWN_SCHEME
    scheme.CodingSchemeName = scheme.CodingSchemeResponsibleOrganization = MAKER
    dataset.CodingSchemeIdentificationSequence = [scheme]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
    return path
