"""Measures one cine: reads its masks, finds ED and ES, and puts volumes, EF, mass and doubts into one record."""

import numpy as np
from numpy.typing import NDArray

from utseg.cardiac.cine import FEWEST_FRAMES, Floats, Phases, find_phases, peak_rates, volume_curves
from utseg.cardiac.doubts import Flag, doubt_curve, doubt_masks, doubt_measures, doubt_slices, doubt_times
from utseg.cardiac.volumes import (
    GRAMS_PER_ML,
    UNITS,
    BasalRule,
    body_surface_m2,
    column_of,
    measures_of,
    with_person,
)
from utseg.errors import InputError, number_of
from utseg.label_map import IGNORE, Labels
from utseg.labels import ignored
from utseg.measure.cines import Cine
from utseg.measure.record import CineMeasures, Curve
from utseg.rawdata.gate import frame_count, read_label, read_label_cine
from utseg.rawdata.geometry import Geometry
from utseg.rawdata.nifti import frame_ms

RULES = {
    "volumes": "Simpson's rule: the area of each slice times the distance between slices, gaps between them included; papillary muscles "
    "are where the masks have them",
    "phases": "ED is the frame of the largest LV volume, ES that of the smallest (RV where no label is LV); frames whose volume "
    "their neighbours contradict are left out; RV and muscle are measured in the same frames",
    "all": "every slice with LV cavity counts",
    "myocardium": "LV cavity counts in slices where myocardium lies along at least half of its outline",
    "mass": f"volume of the muscle at ED × {GRAMS_PER_ML} g/ml",
    "indices": "per body surface by Mosteller's formula",
    "cardiac_output": "SV of the LV × heart rate, as the table of cines says it",
    "peak_rates": "the steepest fall and rise of the volume curve, from its first five harmonics; steps of whole slices at the base make "
    "them larger than they are",
}
DIGITS = 4


def measure_cine(cine: Cine, labels: Labels, basal_rule: BasalRule = "all") -> CineMeasures:
    """Everything about one cine. `labels`: names and values in its masks.

    Raises InputError where a mask cannot be read or is ignored in part, ED and ES lie differently, or the image is of another number of
    frames.
    """
    mask_TZYX, geometry = _read(cine, labels)
    if ignored(mask_TZYX, labels).any():
        shown = cine.masks[0].volume.path
        raise InputError(f"{shown}: is annotated in part only ({IGNORE}), so that its volumes are not known")
    frames, spacing = len(mask_TZYX), geometry.spacing_zyx_mm
    curves = volume_curves(mask_TZYX, spacing, labels, basal_rule)
    paired = len(cine.masks) == 2
    phases = (
        Phases(0, 1, (), True) if paired else find_phases(curves.get("LV", curves.get("RV", np.zeros(0))))
    )
    step_ms = None if paired else _frame_ms(geometry, cine, frames)
    numbers = cine.about.numbers
    height, weight = numbers.get("height_m"), numbers.get("weight_kg")
    surface = None if height is None or weight is None else body_surface_m2(height, weight)
    measures = with_person(cine_measures(curves, phases, step_ms), cine.about.heart_rate_bpm, surface)
    return CineMeasures(
        cine=cine.name,
        subject=cine.about.subject,
        mask=cine.masks[0].volume.path.name,
        image=_image(cine, frames),
        files=cine.files,
        groups=dict(cine.about.groups),
        frames=frames,
        spacing_zyx_mm=spacing,
        ed_frame=phases.ed,
        es_frame=phases.es,
        frame_ms=step_ms,
        heart_rate_bpm=cine.about.heart_rate_bpm,
        height_m=height,
        weight_kg=weight,
        bsa_m2=_rounded(surface),
        values={column_of(key): _rounded(measures.get(key)) for key in UNITS},
        curve=_curve(curves, frames),
        flags=_flags(cine, mask_TZYX, spacing, labels, curves, phases, measures, step_ms),
        basal_rule=basal_rule,
    )


def cine_measures(
    curves: dict[str, Floats], phases: Phases, step_ms: float | None = None
) -> dict[str, float]:
    """The measures of a cine by the keys of `UNITS`, from the volumes of each role in each frame; none where ED and ES are not known.

    step_ms: from frame to frame; without it there are no rates. A structure that a frame lacks has no volume there, and no measure.
    """
    found: dict[str, float] = {}
    if phases.ed is None or phases.es is None:
        return found
    for role, volume_ml_T in curves.items():
        known_T = np.where(volume_ml_T > 0, volume_ml_T, np.nan)
        found |= measures_of(role, float(known_T[phases.ed]), float(known_T[phases.es]))
        if role != "MYO" and step_ms is not None:
            found |= {
                f"{role}_{name}": rate
                for name, rate in peak_rates(volume_ml_T, step_ms, phases.whole).items()
            }
    return found


def _read(cine: Cine, labels: Labels) -> tuple[NDArray[np.uint8], Geometry]:
    """The masks as (T, Z, Y, X), and how they lie."""
    if len(cine.masks) == 1:
        return read_label_cine(cine.masks[0].volume.path, labels)
    (first, second) = (mask.volume for mask in cine.masks)
    (ed_ZYX, geometry), (es_ZYX, other) = (
        read_label(volume.path, labels, volume.frame) for volume in (first, second)
    )
    if differences := other.differences(geometry):
        raise InputError(f"{second.path}: does not lie as {first.path.name} does: {'; '.join(differences)}")
    return np.stack([ed_ZYX, es_ZYX]), geometry


def _image(cine: Cine, frames: int) -> str | None:
    """The path of the cine's image."""
    image = cine.masks[0].image
    if image is None or len(cine.masks) == 2:
        return None
    if (found := frame_count(image.path)) != frames:
        expected = f"expected the {frames} of its mask {cine.masks[0].volume.path}"
        raise InputError(
            f"{image.path}: has {number_of(found, 'frame')}; {expected}; name the right images with --images"
        )
    return str(image.path.absolute())


def _frame_ms(geometry: Geometry, cine: Cine, frames: int) -> float | None:
    """By the mask's header, which is the image's; else the heart beat by the table over the frames."""
    by_header = frame_ms(geometry.header)
    if by_header is not None or cine.about.beat_ms is None or frames < FEWEST_FRAMES:
        return by_header
    return cine.about.beat_ms / frames


def _flags(
    cine: Cine,
    mask_TZYX: NDArray[np.uint8],
    spacing: tuple[float, float, float],
    labels: Labels,
    curves: dict[str, Floats],
    phases: Phases,
    measures: dict[str, float],
    step_ms: float | None,
) -> list[Flag]:
    numbers = cine.about.numbers
    flags = [*doubt_curve(curves, phases)]
    if phases.ed is not None and phases.es is not None:
        mass = curves["MYO"][phases.es] * GRAMS_PER_ML if "MYO" in curves else None
        flags += doubt_measures(measures, mass)
        flags += doubt_masks({"ED": mask_TZYX[phases.ed], "ES": mask_TZYX[phases.es]}, spacing, labels)
    flags += doubt_slices(spacing[0], numbers.get("slice_thickness_mm"), numbers.get("slice_distance_mm"))
    if len(cine.masks) == 1:
        flags += doubt_times(len(mask_TZYX), step_ms, cine.about.beat_ms)
    return sorted(flags, key=lambda flag: flag.severity)


def _curve(curves: dict[str, Floats], frames: int) -> Curve:
    def of(role: str) -> list[float | None]:
        volumes = curves.get(role, np.zeros(frames))
        return [_rounded(float(volume)) if volume > 0 else None for volume in volumes]

    return Curve(lv_ml=of("LV"), rv_ml=of("RV"), myo_ml=of("MYO"))


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(value, DIGITS)
