"""Measures of a cine as DICOM, in the study that it was imported from: a report, a figure, and the masks of ED and ES."""

from pathlib import Path

from utseg.cardiac.structures import HEART
from utseg.cardiac.volumes import UNITS, column_of
from utseg.dicom.capture import write_capture
from utseg.dicom.derived import checked_sources
from utseg.dicom.segmentation import write_segmentation
from utseg.dicom.sources import CineSources, sources_path
from utseg.dicom.structured_report import Measured, write_report
from utseg.errors import InputError
from utseg.figures.cine_sheet import Shown, cine_sheet
from utseg.measure.objects import object_path
from utseg.measure.record import CineMeasures, Provenance
from utseg.rawdata.gate import read_image, read_label_cine
from utseg.rawdata.names import image_stem


def write_dicom(cine: CineMeasures, made: Provenance, output: Path) -> list[Path]:
    """Writes `output`/dicom/CINE_sr.dcm and, where ED and ES are known, CINE_sc.dcm, CINE_ed_seg.dcm and CINE_es_seg.dcm.

    Raises InputError where the cine was not imported from DICOM, or its DICOM files have gone or are others.
    """
    sources = _sources(cine)
    models = tuple(use.name for use in made.models)
    doubts = tuple((flag.name, flag.words) for flag in cine.flags if flag.severity == "check")
    report = Measured(
        values=cine.values,
        ed_frame=cine.ed_frame,
        es_frame=cine.es_frame,
        basal_rule=cine.basal_rule,
        heart_rate_bpm=cine.heart_rate_bpm,
        body_surface_m2=cine.bsa_m2,
        models=models,
        doubts=doubts,
    )
    written = [write_report(report, sources, object_path(output, cine.cine, "sr"))]
    phases = {"ED": cine.ed_frame, "ES": cine.es_frame}
    known = {name: time for name, time in phases.items() if time is not None}
    if not known:
        return written
    mask_TZYX, geometry = read_label_cine(Path(made.masks) / cine.mask, made.labels)
    image = Path(str(cine.image))
    shown = [Shown(name, time, read_image(image, time)[0], mask_TZYX[time]) for name, time in known.items()]
    volumes = dict(zip(HEART, (cine.curve.lv_ml, cine.curve.myo_ml, cine.curve.rv_ml), strict=True))
    words = [
        *_words(cine),
        *(f"to be checked: {name.replace('_', ' ')}" for name in dict(doubts)),
    ]
    title = f"{cine.cine}, utseg, research only"
    sheet = cine_sheet(shown, geometry.spacing_zyx_mm[1:], made.labels, volumes, words, title)
    written.append(write_capture(sheet, sources, object_path(output, cine.cine, "sc")))
    stored_TZYX = geometry.to_file(mask_TZYX)
    for name, time in known.items():
        path = object_path(output, cine.cine, f"{name.lower()}_seg")
        written.append(write_segmentation(stored_TZYX, made.labels, sources, path, models=models, phase=time))
    return written


def _sources(cine: CineMeasures) -> CineSources:
    image = None if cine.image is None else Path(cine.image)
    stem = None if image is None else image_stem(image.name)
    if image is None or stem is None or not sources_path(image.parent, stem).is_file():
        raise InputError(
            f"cine {cine.cine}: nothing says that it was made from DICOM; name the folder that utseg_import_dicom wrote with --images, or "
            "leave --dicom out"
        )
    return checked_sources(image.parent, stem)


def _words(cine: CineMeasures) -> list[str]:
    """A line for each measure that is known."""
    found = [(measure, unit, cine.values.get(column_of(measure))) for measure, unit in UNITS.items()]
    return [
        f"{measure.replace('_', ' ')}  {value:.3g} {unit}"
        for measure, unit, value in found
        if value is not None
    ]
