"""Measures of a cine as a DICOM Structured Report (TID 1500), with a group for each ventricle: preliminary, and verified by nobody.

It is an Enhanced SR: nothing in it has coordinates, and that is what most archives and viewers take. Volumes at ED and ES refer to the
images of these frames.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from highdicom import sr
from pydicom.sr.coding import Code

import utseg
from utseg.dicom.codes import (
    LEFT_VENTRICLE,
    LONG,
    RIGHT_VENTRICLE,
    measure_code,
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
TO_CHECK = own_code("to-check", "To be checked before use")
HEART = "heart"
GROUPS = {"lv": LEFT_VENTRICLE, "rv": RIGHT_VENTRICLE, HEART: Code("80891009", "SCT", "Heart")}  # CID 7152
AT = {"edv": "ed", "esv": "es"}


def write_report(
    values: Mapping[str, float | None],
    sources: CineSources,
    path: Path,
    *,
    ed_frame: int | None,
    es_frame: int | None,
    method: str,
    models: Sequence[str] = (),
    flags: Mapping[str, str] | None = None,
) -> Path:
    """Writes the values that are known, by the columns of `measures.csv`, into the study of the cine's source.

    ed_frame, es_frame: counted from 0. method: how volumes were summed, in words. models: what made the masks, by name. flags: what to
    doubt, words by name. Raises InputError where a frame is not one of the cine, or where the source's files have gone.
    """
    frames = {"ed": _frames(sources, ed_frame), "es": _frames(sources, es_frame)}
    known = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
    known |= {
        f"{name}_frame": time + 1.0 for name, time in (("ed", ed_frame), ("es", es_frame)) if time is not None
    }
    found = dict(flags or {})
    key = content_key(sources, known, ed_frame, es_frame, method, [*models], found)
    with as_the_source_says():
        header = source_header(sources)
        instances = source_instances(sources, frames["ed"] + frames["es"] or _frames(sources, 0))
        for name in ("SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID"):
            header[name] = instances[0][name]
        report = sr.EnhancedSR(
            evidence=[header, *instances[1:]],
            content=_content(known, sources, frames, method, models, found),
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
    values: Mapping[str, float],
    sources: CineSources,
    frames: Mapping[str, list[SourceFrame]],
    method: str,
    models: Sequence[str],
    flags: Mapping[str, str],
) -> sr.MeasurementReport:
    """A group for each ventricle and one for what is of neither; in this one are the frames of ED and ES and what to doubt."""
    algorithm = sr.AlgorithmIdentification(
        MAKER, utseg.__version__, [f"model {name}" for name in models] or None
    )
    how = own_code("method", method)
    measures: dict[str, list[sr.Measurement]] = {group: [] for group in GROUPS}
    for column, value in values.items():
        side = column.partition("_")[0]
        measures[side if side in GROUPS else HEART].append(_measurement(column, value, frames))
    doubts = [sr.QualitativeEvaluation(TO_CHECK, own_code(name, words)) for name, words in flags.items()]
    groups = [
        sr.MeasurementsAndQualitativeEvaluations(
            sr.TrackingIdentifier(
                derived_uid("measures", sources.study_instance_uid, sources.cine, group),
                f"{sources.cine} {site.meaning}"[:LONG],
            ),
            method=how,
            algorithm_id=algorithm,
            finding_sites=[sr.FindingSite(site)],
            measurements=measures[group],
            qualitative_evaluations=doubts if group == HEART else None,
        )
        for group, site in GROUPS.items()
        if measures[group] or (doubts and group == HEART)
    ]
    device = sr.DeviceObserverIdentifyingAttributes(
        derived_uid("device", utseg.__version__), MAKER, MAKER, f"{MAKER} {utseg.__version__}, {RESEARCH}"
    )
    return sr.MeasurementReport(
        sr.ObservationContext(sr.ObserverContext(sr.CodedConcept.from_code(DEVICE), device)),
        CARDIAC_MRI,
        groups,
        REPORT,
    )


def _measurement(column: str, value: float, frames: Mapping[str, Sequence[SourceFrame]]) -> sr.Measurement:
    """One measure; a volume at ED or ES refers to the images of that frame."""
    phase = next((phase for word, phase in AT.items() if f"_{word}_" in column), "")
    numbers: dict[tuple[str, str], list[int]] = {}
    for frame in frames.get(phase, ()):
        own = numbers.setdefault((frame.sop_class_uid, frame.sop_instance_uid), [])
        own += [] if frame.number is None else [frame.number]
    images = [sr.SourceImageForMeasurement(*uids, found or None) for uids, found in numbers.items()]
    return sr.Measurement(measure_code(column), value, unit_code(column), referenced_images=images or None)
