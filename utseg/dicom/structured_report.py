"""Measures of a cine as a DICOM Structured Report (TID 1500), with a group for each ventricle: preliminary, and verified by nobody.

It is an Enhanced SR: nothing in it has coordinates, and that is what most archives and viewers take. Volumes at ED and ES refer to the
images of these frames.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from highdicom import sr
from pydicom.sr.coding import Code

import utseg
from utseg.cardiac.volumes import UNITS, column_of, digits_of
from utseg.dicom.codes import (
    BODY_SURFACE,
    ED_FRAME,
    ES_FRAME,
    HEART_RATE,
    LEFT_VENTRICLE,
    LONG,
    MEASURES,
    NO_UNIT,
    RIGHT_VENTRICLE,
    own_code,
    unit_code,
)
from utseg.dicom.derived import (
    MAKER,
    RESEARCH,
    as_the_source_says,
    content_key,
    derived_uid,
    series_keywords,
    source_header,
    source_instances,
    write_object,
)
from utseg.dicom.sources import CineSources, SourceFrame
from utseg.errors import InputError

CARDIAC_MRI = Code("241620005", "SCT", "Cardiac MRI")  # CID 3820
REPORT = Code("126000", "DCM", "Imaging Measurement Report")  # CID 7021
DEVICE = Code("121007", "DCM", "Device")  # CID 270
COMMENT = Code("121106", "DCM", "Comment")
TO_CHECK = own_code("to-check", "To be checked before use")
HEART = "heart"
GROUPS = {"LV": LEFT_VENTRICLE, "RV": RIGHT_VENTRICLE, HEART: Code("80891009", "SCT", "Heart")}  # CID 7152
COLUMNS = {column_of(measure): measure for measure in UNITS}
AT = {"EDV": "ED", "ESV": "ES"}


@dataclass(frozen=True)
class Measured:
    """What a report says. `values`: by the columns of `measures.csv`. Frames are counted from 0.

    basal_rule: of `utseg.cardiac.volumes`. models: what made the masks, by name. doubts: flags that want a look, names and sentences.
    """

    values: Mapping[str, float | None]
    ed_frame: int | None
    es_frame: int | None
    basal_rule: str
    heart_rate_bpm: float | None = None
    body_surface_m2: float | None = None
    models: tuple[str, ...] = ()
    doubts: tuple[tuple[str, str], ...] = ()


def write_report(found: Measured, sources: CineSources, path: Path) -> Path:
    """Writes the values that are known into the study of the cine's source.

    Raises InputError where a frame is not one of the cine, or where the source's files have gone.
    """
    frames = {"ED": _frames(sources, found.ed_frame), "ES": _frames(sources, found.es_frame)}
    key = content_key(sources, asdict(found))
    with as_the_source_says():
        header = source_header(sources)
        instances = source_instances(sources, frames["ED"] + frames["ES"] or _frames(sources, 0))
        for name in ("SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID"):
            header[name] = instances[0][name]
        report = sr.EnhancedSR(
            evidence=[header, *instances[1:]],
            content=_content(found, sources, frames),
            is_complete=True,
            **series_keywords("measures", key),
        )
        return write_object(report, path)


def _frames(sources: CineSources, time: int | None) -> list[SourceFrame]:
    if time is None:
        return []
    if time not in range(len(sources.frames)):
        raise InputError(f"{sources.cine}: has no frame {time}; expected 0 … {len(sources.frames) - 1}")
    return [frame for frame in sources.frames[time] if frame]


def _content(
    found: Measured, sources: CineSources, frames: Mapping[str, list[SourceFrame]]
) -> sr.MeasurementReport:
    """A group for each ventricle, and one for what is of neither, with what to doubt."""
    algorithm = sr.AlgorithmIdentification(
        MAKER, utseg.__version__, [f"model {name}" for name in found.models] or None
    )
    doubts = [sr.QualitativeEvaluation(TO_CHECK, own_code(name, name)) for name in dict(found.doubts)]
    measures = _measurements(found, frames)
    groups = [
        sr.MeasurementsAndQualitativeEvaluations(
            sr.TrackingIdentifier(
                derived_uid("measures", sources.study_instance_uid, sources.cine, group),
                f"{sources.cine} {site.meaning}"[:LONG],
            ),
            method=own_code(found.basal_rule, f"Discs summed, basal slices: {found.basal_rule}"),
            algorithm_id=algorithm,
            finding_sites=[sr.FindingSite(site)],
            measurements=measures[group],
            qualitative_evaluations=doubts if group == HEART else None,
        )
        for group, site in GROUPS.items()
        if measures[group] or (doubts and group == HEART)
    ]
    if doubts:  # the meaning of a code has no room for a sentence
        groups[-1][0].ContentSequence.extend(
            sr.TextContentItem(COMMENT, f"{TO_CHECK.meaning}: {words}", sr.RelationshipTypeValues.CONTAINS)
            for _, words in found.doubts
        )
    device = sr.DeviceObserverIdentifyingAttributes(
        derived_uid("device", utseg.__version__), MAKER, MAKER, f"{MAKER} {utseg.__version__}, {RESEARCH}"
    )
    observer = sr.ObserverContext(sr.CodedConcept.from_code(DEVICE), device)
    return sr.MeasurementReport(sr.ObservationContext(observer), CARDIAC_MRI, groups, REPORT)


def _measurements(
    found: Measured, frames: Mapping[str, Sequence[SourceFrame]]
) -> dict[str, list[sr.Measurement]]:
    """By group, what is known. Volumes at ED and ES refer to the images of these frames."""
    measures: dict[str, list[sr.Measurement]] = {group: [] for group in GROUPS}
    for column, value in found.values.items():
        if value is None:
            continue
        measure = COLUMNS[column]
        side, _, what = measure.partition("_")
        images = _images(frames[AT[what]]) if what in AT else []
        measures[side if side in GROUPS else HEART].append(
            sr.Measurement(
                MEASURES[measure],
                round(value, digits_of(measure)),
                unit_code(UNITS[measure]),
                referenced_images=images or None,
            )
        )
    others = [
        (ED_FRAME, NO_UNIT, None if found.ed_frame is None else found.ed_frame + 1),
        (ES_FRAME, NO_UNIT, None if found.es_frame is None else found.es_frame + 1),
        (*HEART_RATE, found.heart_rate_bpm),
        (*BODY_SURFACE, found.body_surface_m2),
    ]
    measures[HEART] += [
        sr.Measurement(name, value, unit) for name, unit, value in others if value is not None
    ]
    return measures


def _images(frames: Sequence[SourceFrame]) -> list[sr.SourceImageForMeasurement]:
    """The objects that hold the frames; of a multi-frame one, which of its frames."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for frame in frames:
        own = numbers.setdefault((frame.sop_class_uid, frame.sop_instance_uid), [])
        own += [] if frame.number is None else [frame.number]
    return [sr.SourceImageForMeasurement(*uids, found or None) for uids, found in numbers.items()]
