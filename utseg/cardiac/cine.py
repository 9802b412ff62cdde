"""A cine's heart over the cycle: volumes of every frame, which frames are ED and ES, how fast the ventricle fills and empties.

Volumes are discs (Simpson's rule): a slice's area times the distance between slices, gaps between slices included. Frames are counted from
0; the cycle is closed, so that frame 0 follows the last one, unless the curve's ends do not meet. NaN is what is not known.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utseg.cardiac.plausibility import outline_edges
from utseg.cardiac.structures import find_structures
from utseg.cardiac.volumes import BasalRule
from utseg.label_map import Labels, inside

Floats = NDArray[np.float64]
SURROUNDED = 0.5
"""Share of the LV cavity's outline that MYO touches in a slice that counts, by the rule `myocardium`."""

HARMONICS = 5
"""Of the cycle, in the curve that rates are taken from: volume curves of hearts have little beyond them."""
ODD, ODD_FRAMES = 0.25, 6.0
"""Of the range of the other frames: one that is further from what its neighbours say is odd; 6 / frames where that is more, as few frames
have a sharp end-systole. 120 made hearts of 10 to 30 frames have none such in the LV."""
COLLAPSED = 0.5
"""Of the next smallest volume: no heart falls so far below its other frames in one, where it has eight or more."""
FEWEST_FRAMES = 8
"""With fewer, neighbours say too little of a frame."""
BETWEEN = 16
"""Places a frame at which the harmonics' slope is looked at."""
OPEN_STEP, OPEN_RATIO = 0.25, 2.0
"""Ends that do not meet: their step is more than so much of the range and than so many times the largest step between other frames. Made
hearts that are whole come to 1.5 times; a cine that lacks only late diastole is not told from them by its curve."""


@dataclass(frozen=True)
class Phases:
    """ED and ES, None where the curve has no two different frames. `odd`: frames with a volume that their neighbours contradict.

    `whole`: the last frame leads to the first one, as where the cine covers a whole cycle.
    """

    ed: int | None
    es: int | None
    odd: tuple[int, ...]
    whole: bool


def volume_curves(
    mask_TZYX: NDArray[np.uint8],
    spacing_zyx_mm: tuple[float, float, float],
    labels: Labels,
    basal_rule: BasalRule = "all",
) -> dict[str, Floats]:
    """The volume in ml of each structure ("LV", "MYO", "RV") that the labels have, in each frame: (T,), 0 where a frame lacks it.

    `labels`: names and values in the mask. With the rule "myocardium" a slice's LV cavity counts where MYO lies along at least half of its
    outline; without such a label all slices count.
    """
    voxel_ml = float(np.prod(spacing_zyx_mm)) / 1000
    names = find_structures(labels).names
    curves = {}
    for role, name in names.items():
        own_TZYX = inside(mask_TZYX, labels[name])
        area_TZ = np.count_nonzero(own_TZYX, axis=(2, 3))
        if role == "LV" and basal_rule == "myocardium" and "MYO" in names:
            edges_TZ, shared_TZ = outline_edges(own_TZYX, inside(mask_TZYX, labels[names["MYO"]]))
            area_TZ = np.where(shared_TZ >= SURROUNDED * edges_TZ, area_TZ, 0)
        curves[role] = area_TZ.sum(1) * voxel_ml
    return curves


def find_phases(volume_ml_T: Floats) -> Phases:
    """ED and ES: the largest and the smallest volume, of frames that have one and are not odd.

    Frames are alike that differ by less than the share 1 / frames² of the range, which is what a third of a frame changes at the peak of a
    cosine. Of those alike, ED is the last before ES, as ejection begins there, and ES the first after ED.
    """
    frames = len(volume_ml_T)
    odd = odd_frames(volume_ml_T)
    usable_T = _usable(volume_ml_T, odd)
    if not usable_T.any():
        return Phases(None, None, odd, True)
    whole = _ends_meet(_filled(volume_ml_T, usable_T))
    low, high = volume_ml_T[usable_T].min(), volume_ml_T[usable_T].max()
    if low == high:
        return Phases(None, None, odd, whole)
    alike = (high - low) / frames**2
    ed = np.flatnonzero(usable_T & (volume_ml_T >= high - alike))
    es = np.flatnonzero(usable_T & (volume_ml_T <= low + alike))
    _, start, end = min(((end - start) % frames, start, end) for start in ed for end in es)
    return Phases(int(start), int(end), odd, whole)


def odd_frames(volume_ml_T: Floats) -> tuple[int, ...]:
    """Frames whose volume is far from the median of the five around it and from the cubic through the four beside it, or has collapsed.

    They are found one by one, the worst first. Frames without a volume are not odd: they are unknown. None of fewer than eight frames, and
    never more than a quarter of all.
    """
    frames = len(volume_ml_T)
    odd: list[int] = []
    while len(odd) < frames // 4:
        usable_T = _usable(volume_ml_T, odd)
        if usable_T.sum() < max(FEWEST_FRAMES, frames / 2):
            break
        filled_T = _filled(volume_ml_T, usable_T)
        around = np.stack([np.roll(filled_T, step) for step in (-2, -1, 0, 1, 2)])
        cubic_T = (4 * (around[1] + around[3]) - around[0] - around[4]) / 6
        smallest, next_one = np.partition(filled_T[usable_T], 1)[:2]
        if smallest < COLLAPSED * next_one:
            odd.append(int(np.where(usable_T, filled_T, np.inf).argmin()))
            continue
        away_T = np.minimum(abs(filled_T - np.median(around, axis=0)), abs(filled_T - cubic_T)) * usable_T
        worst = int(away_T.argmax())
        if away_T[worst] <= max(ODD, ODD_FRAMES / frames) * np.ptp(np.delete(filled_T, worst)):
            break
        odd.append(worst)
    return tuple(sorted(odd))


def peak_rates(volume_ml_T: Floats, frame_ms: float, whole: bool = True) -> dict[str, float]:
    """The fastest emptying ("peak_ejection") and filling ("peak_filling") in ml/s, both positive; NaN with fewer than eight frames.

    Of a whole cycle from its first harmonics, else from differences. Odd and unknown frames are taken to lie straight between others.
    """
    usable_T = _usable(volume_ml_T, odd_frames(volume_ml_T))
    frames = len(volume_ml_T)
    if usable_T.sum() < FEWEST_FRAMES:
        return {"peak_ejection": np.nan, "peak_filling": np.nan}
    curve_T = _filled(volume_ml_T, usable_T)
    if whole:
        spectrum = np.fft.rfft(curve_T)
        harmonic = np.arange(len(spectrum))
        spectrum[(harmonic > HARMONICS) | (2 * harmonic == frames)] = 0
        slope = np.fft.irfft(2j * np.pi * harmonic * spectrum, BETWEEN * frames) * BETWEEN / frames
    else:
        slope = np.gradient(curve_T)
    per_s = 1000 / frame_ms * slope
    return {"peak_ejection": float(-per_s.min()), "peak_filling": float(per_s.max())}


def _usable(volume_ml_T: Floats, odd: Collection[int]) -> NDArray[np.bool_]:
    usable_T = np.isfinite(volume_ml_T) & (volume_ml_T > 0)
    usable_T[list(odd)] = False
    return usable_T


def _filled(volume_ml_T: Floats, usable_T: NDArray[np.bool_]) -> Floats:
    """With straight lines, around the cycle, in place of what is not usable."""
    frames = np.arange(len(volume_ml_T))
    return np.interp(frames, frames[usable_T], volume_ml_T[usable_T], period=len(volume_ml_T))


def _ends_meet(curve_ml_T: Floats) -> bool:
    if len(curve_ml_T) < FEWEST_FRAMES:
        return True
    steps = abs(np.diff(curve_ml_T))
    end = abs(curve_ml_T[0] - curve_ml_T[-1])
    return bool(end <= max(OPEN_RATIO * steps.max(), OPEN_STEP * np.ptp(curve_ml_T)))
