"""A stack as files: CINE.nii.gz in scanner coordinates, its sources, and its row of cines.csv."""

import gzip
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from numpy.typing import NDArray

from utseg.dicom.headers import FileHeader
from utseg.dicom.pixels import read_stack
from utseg.dicom.sources import CineSources, SourceFrame, write_sources
from utseg.dicom.stacks import Stack
from utseg.dicom.subjects import free_text
from utseg.files import atomic_path

COMPRESSION = 1
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
VENDORS = ("Siemens", "Philips", "GE", "Canon", "Toshiba", "United Imaging", "Hitachi", "Fujifilm", "Bruker")
MS_A_MINUTE = 60_000.0
OLDEST = 90  # and over: fewer people are so old than are told apart by it
LIKELY = {
    "heart_rate_bpm": (20.0, 300.0),
    "rr_interval_ms": (200.0, 3000.0),
    "height_m": (0.3, 2.5),
    "weight_kg": (0.5, 400.0),
    "field_strength_t": (0.01, 20.0),
    "slice_thickness_mm": (0.1, 100.0),
}


@dataclass(frozen=True)
class CineRow:
    """A row of cines.csv, columns in order; None where it is not known."""

    cine: str
    subject: str
    vendor: str
    model: str
    field_strength_t: float | None
    rows: int
    columns: int
    slices: int
    frames: int
    spacing_x_mm: float
    spacing_y_mm: float
    slice_distance_mm: float
    slice_thickness_mm: float | None
    heart_rate_bpm: float | None
    rr_interval_ms: float | None
    height_m: float | None
    weight_kg: float | None
    sex: str
    age_years: int | None
    series_description: str


def write_cine(folder: Path, cine: str, subject: str, stack: Stack, root: Path) -> CineRow:
    """Reads the pixels of a stack, and writes CINE.nii.gz and sources/CINE.json. Raises what `read_stack` raises."""
    row = cine_row(cine, subject, stack)
    values_TZYX = read_stack(stack)
    step_s = (_step_ms(stack) or (row.rr_interval_ms or 0.0) / row.frames) / 1000
    _write_nifti(folder / f"{cine}.nii.gz", values_TZYX, LPS_TO_RAS @ stack.ijk_to_lps, step_s)
    write_sources(folder, _sources(cine, stack, root))
    return row


def cine_row(cine: str, subject: str, stack: Stack) -> CineRow:
    """What cines.csv says of a stack."""
    header = stack.planes[0].header
    _, slices, rows, columns = stack.size_tzyx
    spacing_y, spacing_x = stack.planes[0].frame.spacing
    beats = _likely("heart_rate_bpm", (plane.header.numbers.get("HeartRate") for plane in stack.planes))
    rr = _likely("rr_interval_ms", (plane.frame.rr_ms for plane in stack.planes))
    height = header.numbers.get("PatientSize")
    return CineRow(
        cine,
        subject,
        _vendor(free_text(header.text("Manufacturer"), header)),
        free_text(header.text("ManufacturerModelName"), header),
        _likely("field_strength_t", [header.numbers.get("MagneticFieldStrength")]),
        rows,
        columns,
        slices,
        stack.frames,
        _digits(spacing_x),
        _digits(spacing_y),
        _digits(stack.slice_distance_mm),
        _likely("slice_thickness_mm", (plane.frame.thickness_mm for plane in stack.planes)),
        heart_rate_bpm=beats or (_digits(MS_A_MINUTE / rr, 4) if rr else None),
        rr_interval_ms=rr or (_digits(MS_A_MINUTE / beats, 4) if beats else None),
        height_m=_likely(
            "height_m", [height / 100 if height and height > 3 else height]
        ),  # some write centimetres
        weight_kg=_likely("weight_kg", [header.numbers.get("PatientWeight")]),
        sex=header.text("PatientSex") if header.text("PatientSex") in ("F", "M", "O") else "",
        age_years=_age(header),
        series_description=free_text(header.text("SeriesDescription"), header),
    )


def _likely(name: str, values: Iterable[float | None]) -> float | None:
    """The median of what is known and likely, None where nothing is."""
    low, high = LIKELY[name]
    known = [value for value in values if value is not None and low <= value <= high]
    return _digits(median(known)) if known else None


def _digits(value: float, digits: int = 7) -> float:
    return float(f"{value:.{digits}g}")


def _vendor(manufacturer: str) -> str:
    """A vendor as the cohorts name it; another name as it stands."""
    plain = manufacturer.casefold()
    return next((name for name in VENDORS if plain.startswith(name.casefold())), manufacturer)


def _age(header: FileHeader) -> int | None:
    """In years, from the age or the birth date; 90 where it is more."""
    text, born, studied = (header.text(name) for name in ("PatientAge", "PatientBirthDate", "StudyDate"))
    if text.endswith("Y") and text[:-1].isdecimal() and len(text) < 10:
        age = int(text[:-1])
    elif len(born) == len(studied) == 8 and (born + studied).isdecimal() and int(born) >= 1850_00_00:
        age = (int(studied) - int(born)) // 10_000
    else:
        return None
    return min(age, OLDEST) if 0 <= age <= 130 else None


def _step_ms(stack: Stack) -> float | None:
    steps = [plane.step_ms for plane in stack.planes if plane.step_ms]
    return median(steps) if steps else None


def _sources(cine: str, stack: Stack, root: Path) -> CineSources:
    frames: list[list[SourceFrame | None]] = []
    times: list[list[float | None]] = []
    for t in range(stack.frames):
        images = [stack.image(t, z) for z in range(len(stack.planes))]
        times.append([image.frame.trigger_ms for image in images])
        frames.append(
            [
                SourceFrame(
                    file=image.header.path.relative_to(root).as_posix(),
                    sop_class_uid=image.header.text("SOPClassUID"),
                    sop_instance_uid=image.header.text("SOPInstanceUID"),
                    number=image.frame.number,
                )
                for image in images
            ]
        )
    header = stack.planes[0].header
    return CineSources(
        cine=cine,
        root=str(root),
        study_instance_uid=header.text("StudyInstanceUID"),
        series_instance_uids=list(dict.fromkeys(plane.series for plane in stack.planes)),
        frames=frames,
        rows_columns=header.size,
        ijk_to_lps=stack.ijk_to_lps.tolist(),
        trigger_times_ms=times,
    )


def _write_nifti(path: Path, values_TZYX: NDArray[Any], affine: NDArray[np.float64], step_s: float) -> None:
    """Writes a 4-D .nii.gz, the same bytes for the same cine; `affine` takes (x, y, z) to RAS mm."""
    header = Nifti1Header()
    header.set_data_dtype(values_TZYX.dtype)
    header.set_data_shape(values_TZYX.shape[::-1])
    header.set_xyzt_units("mm", "sec")
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    header["pixdim"][4] = step_s if math.isfinite(step_s) else 0.0
    header["magic"], header["vox_offset"] = b"n+1", header.template_dtype.itemsize + 4
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as handle,
        gzip.GzipFile("", "wb", COMPRESSION, handle, mtime=0) as packed,  # no name and no time in its header
    ):
        packed.write(header.binaryblock + bytes(4))
        for volume in values_TZYX:
            packed.write(np.ascontiguousarray(volume).tobytes())
