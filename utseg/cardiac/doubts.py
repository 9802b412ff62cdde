"""What to doubt in the volumes of a cine and in the masks that they come from: flags for a person, which change no figure.

Limits are where masks that experts drew begin to be rare: in 53 hearts of ACDC, ill ones among them, SV of LV over RV is .5 … 5 in 95 %,
.73 … 1.23 in half, and .64 … 1.1 in healthy ones (.97 ± .06 in Sechtem et al., Radiology 1987); the muscle at ES is .97 … 1.39 of that at
ED; the apical slice with LV cavity has up to .34 of its largest area. What `plausibility.py` checks of a mask is flagged for ED and ES.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from utseg.cardiac.cine import Floats, Phases, odd_frames
from utseg.cardiac.plausibility import check_anatomy
from utseg.cardiac.structures import find_structures
from utseg.cardiac.thirds import Regions, short_axis_regions
from utseg.errors import listing, number_of
from utseg.label_map import Labels, inside
from utseg.settings import Settings

SV_RATIO_NOTE, SV_RATIO_CHECK = (0.75, 1.33), (0.5, 2.0)
MASS_RATIO = (0.9, 1.4)
SYSTOLE = (0.15, 0.65)
"""From ED to ES, a share of the cycle: about a third at rest, more where the heart is fast."""
EF_PERCENT = (5.0, 85.0)
APEX_AREA, BASE_AREA = 0.35, 0.95
"""Of the largest area. Stacks often end with the last slice that has LV cavity at the base (51 of the 53): only one that has not narrowed
there may go on (21 of them)."""
FEWEST_SLICES = 5
"""With LV cavity at ED: stacks of a whole heart have six and more."""
SAME_WITHIN_MM = 0.05
COVERED = 0.9


class Flag(Settings):
    """What to doubt. "check": a person should look at the mask before using the figures; "note": good to know."""

    name: str
    words: str
    severity: Literal["check", "note"]


def _flag(name: str, words: str, severity: Literal["check", "note"] = "check") -> Flag:
    return Flag(name=name, words=words, severity=severity)


def doubt_curve(curves: Mapping[str, Floats], phases: Phases) -> Iterator[Flag]:
    """Of the volumes in each frame: frames that lack a structure, jumps, ED and ES too close, ends that do not meet.

    `curves`: by role, (T,) ml; `phases`: of the LV's curve, or of the RV's where no label is LV.
    """
    for role, volume_ml_T in curves.items():
        lacking = np.flatnonzero(volume_ml_T == 0)
        frames = len(volume_ml_T)
        if len(lacking) == frames:
            yield _flag("empty", f"{role} is in no frame")
        elif len(lacking):
            words = (
                f"{role} is missing in {number_of(len(lacking), 'frame')} of {frames}: {_numbers(lacking)}"
            )
            yield _flag("missing_frames", words, "check" if 2 * len(lacking) <= frames else "note")
        if role != "MYO" and (odd := odd_frames(volume_ml_T)):
            words = f"{role} jumps in {_numbers(odd)}, away from the frames beside"
            yield _flag("jumps", words + (": not taken for ED or ES" if odd == phases.odd else ""))
    if phases.ed is None or phases.es is None:
        if any(volume_ml_T.any() for volume_ml_T in curves.values()):
            yield _flag("no_phases", "no two frames have different volumes: ED and ES cannot be told")
        return
    frames = len(next(iter(curves.values())))
    if frames > 2 and phases.whole:
        share = (phases.es - phases.ed) % frames / frames
        if not SYSTOLE[0] <= share <= SYSTOLE[1]:
            words = f"from ED (frame {phases.ed}) to ES (frame {phases.es}) is {share:.0%} of the cine, expected {_between(SYSTOLE, '.0%')}"
            yield _flag("phases_apart", words)
    if not phases.whole:
        words = "the last frame does not lead to the first one: the cine does not cover the whole cycle, and ES or filling may be missed"
        yield _flag("open_cycle", words)


def doubt_measures(measures: Mapping[str, float], mass_es_g: float | None) -> Iterator[Flag]:
    """Of the measures (`utseg.cardiac.volumes`): stroke volumes of both sides, the mass at ED and ES, an EF that no heart has."""
    sides = measures.get("LV_SV", 0.0), measures.get("RV_SV", 0.0)
    if all(side > 0 for side in sides):  # not where one is NaN
        ratio = sides[0] / sides[1]
        if not SV_RATIO_NOTE[0] <= ratio <= SV_RATIO_NOTE[1]:
            words = (
                f"SV is {sides[0]:.0f} ml on the left and {sides[1]:.0f} ml on the right, a ratio of {ratio:.2f}, expected about 1: the "
                "basal slices, or a leaking valve or a shunt"
            )
            rare = not SV_RATIO_CHECK[0] <= ratio <= SV_RATIO_CHECK[1]
            yield _flag("stroke_volumes", words, "check" if rare else "note")
    mass = measures.get("LV_mass", 0.0)
    if mass > 0 and mass_es_g and not MASS_RATIO[0] <= mass_es_g / mass <= MASS_RATIO[1]:
        expected = f"expected {_between(MASS_RATIO, 'g')} times that"
        words = f"the muscle has {mass:.0f} g at ED and {mass_es_g:.0f} g at ES, {expected}"
        yield _flag("mass", words)
    for role in ("LV", "RV"):
        percent = measures.get(f"{role}_EF", np.nan)
        if percent < EF_PERCENT[0] or percent > EF_PERCENT[1]:
            words = f"EF of {role} is {percent:.0f} %, expected {_between(EF_PERCENT, 'g')} %"
            yield _flag("ef", words + (": its volume hardly changes" if abs(percent) < EF_PERCENT[0] else ""))


def doubt_masks(
    masks: Mapping[str, NDArray[np.uint8]], spacing_zyx_mm: tuple[float, float, float], labels: Labels
) -> Iterator[Flag]:
    """Of the masks (Z, Y, X) at "ED" and "ES": what `check_anatomy` finds, and where the stack ends inside the heart."""
    for phase, mask_ZYX in masks.items():
        for check in check_anatomy(mask_ZYX, spacing_zyx_mm, labels):
            if not check.passed:
                yield _flag(check.name, f"{phase}: {check.words}")
    name = find_structures(labels).names.get("LV")
    if "ED" in masks and name is not None:
        area_Z = np.count_nonzero(inside(masks["ED"], labels[name]), axis=(1, 2))
        yield from _truncated(area_Z, short_axis_regions(masks["ED"], spacing_zyx_mm, labels))


def _truncated(area_Z: NDArray[np.intp], regions: Regions | None) -> Iterator[Flag]:
    """From the area of the LV cavity in each slice."""
    slices = int(np.count_nonzero(area_Z))
    if 0 < slices < FEWEST_SLICES:
        words = f"LV is in {number_of(slices, 'slice')} at ED, expected {FEWEST_SLICES} or more: volumes are no volumes of a heart"
        yield _flag("few_slices", words)
    if regions is None or not slices:
        return
    base, apex = (area_Z / area_Z.max())[[0, -1] if regions.basal_first else [-1, 0]]
    if apex > APEX_AREA:
        words = f"the last slice at the apex has {apex:.0%} of the largest area of LV at ED: the stack ends before the apex"
        yield _flag("apex_cut", words)
    if base > BASE_AREA:
        words = f"the last slice at the base has {base:.0%} of the largest area of LV at ED: the stack may end before the base"
        yield _flag("base_cut", words, "note")


def doubt_slices(distance_mm: float, thickness_mm: float | None, stated_mm: float | None) -> Iterator[Flag]:
    """Of the stack: a gap or an overlap between slices, and a distance that the mask's header and the table give differently."""
    apart = f"{distance_mm:.4g} mm apart"
    if stated_mm is not None and abs(stated_mm - distance_mm) > SAME_WITHIN_MM:
        words = f"slices are {apart} by the mask's header, which is used, and {stated_mm:.4g} mm by the table"
        yield _flag("slice_distance", words)
    if thickness_mm is not None and abs(gap := distance_mm - thickness_mm) > SAME_WITHIN_MM:
        kind = f"gaps of {gap:.4g} mm count" if gap > 0 else "the overlap counts once"
        words = (
            f"slices are {thickness_mm:.4g} mm thick and {apart}: discs are {distance_mm:.4g} mm high, {kind}"
        )
        yield _flag("slice_gap", words, "check" if gap > thickness_mm else "note")


def doubt_times(frames: int, frame_ms: float | None, beat_ms: float | None) -> Iterator[Flag]:
    """Of the times: a cine that covers less than a heart beat."""
    if frame_ms is not None and beat_ms is not None and frames * frame_ms < COVERED * beat_ms:
        words = f"{frames} frames of {frame_ms:.0f} ms cover {frames * frame_ms:.0f} ms of a heart beat of {beat_ms:.0f} ms"
        yield _flag("open_cycle", words, "note")


def _numbers(frames: object) -> str:
    numbers = [str(int(frame)) for frame in np.asarray(frames)]
    return f"frame{'' if len(numbers) == 1 else 's'} {listing(numbers)}"


def _between(limits: tuple[float, float], form: str) -> str:
    return " to ".join(format(limit, form) for limit in limits)
