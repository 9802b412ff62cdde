"""What a heart's short-axis mask must be like, whatever the image: checks that say so and change nothing.

| check | value | passes |
|---|---|---|
| `enclosed` | share of the LV cavity's outline that touches MYO, in the mid-ventricular slices | at or above the limit |
| `apart` | share of the LV cavity's outline that touches RV, in all slices | at or below |
| `one_component` | share of a label's voxels outside its largest component (26-connected, in 3-D) | at or below |
| `volume_ml` | volume of a label in ml | within the limits |
| `gaps` | slices between a label's first and last that lack it | at or below |

An outline is the pixel edges in the plane between the label and anything else. Mid-ventricular slices are the middle third of those from
the first to the last with LV or MYO (`thirds.py`), or all of them where that is none; at the base the outflow tract opens the ring.
A label that is missing fails `volume_ml` and leaves out what cannot be asked of nothing. Labels other than these three have no checks.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from utseg.cardiac.structures import find_structures
from utseg.cardiac.thirds import thirds
from utseg.errors import number_of
from utseg.label_map import Labels, inside, inside_any
from utseg.settings import Settings

MaskArray = NDArray[np.uint8]
Mask = NDArray[np.bool_]
CONNECTIVITY = 26
DIGITS = 4


class AnatomyLimits(Settings):
    """Where each check draws the line: beyond what experts drew in 94 volumes of ACDC, hearts that are ill among them, ED and ES.

    There MYO encloses LV wholly, RV touches .1 % of LV's outline at most, up to 3.3 % of a label lies apart, no slice is missing, and
    volumes are 22 … 374 ml (LV), 33 … 298 ml (MYO), 13 … 294 ml (RV). Volumes have room on both sides, for small and very large hearts.
    """

    enclosed_at_least: float = Field(default=0.9, ge=0, le=1)
    apart_at_most: float = Field(default=0.02, ge=0, le=1)
    loose_at_most: float = Field(default=0.05, ge=0, le=1)
    gaps_at_most: int = Field(default=0, ge=0)
    lv_ml: tuple[float, float] = (10.0, 500.0)
    myo_ml: tuple[float, float] = (20.0, 450.0)
    rv_ml: tuple[float, float] = (8.0, 450.0)


class Check(Settings):
    """One check of one mask. `limit`: what `value` may be at most or at least, or the lower and upper end of what it may be."""

    name: str
    label: str
    passed: bool
    value: float
    limit: float | tuple[float, float]
    words: str


def check_anatomy(
    mask_ZYX: MaskArray,
    spacing_zyx_mm: tuple[float, float, float],
    labels: Labels,
    limits: AnatomyLimits | None = None,
) -> tuple[Check, ...]:
    """All checks that the labels allow, of a label map (Z, Y, X) whose slices are short-axis slices; none where no label is cardiac.

    `labels` maps names to values in the mask; LV, MYO and RV are known by name (`structures.py`).
    """
    from scipy.ndimage import find_objects

    limits = limits or AnatomyLimits()
    names = find_structures(labels).names
    found = find_objects(inside_any(mask_ZYX, [labels[name] for name in names.values()]).astype(np.uint8))
    heart_ZYX = mask_ZYX[found[0]] if found else mask_ZYX[:0]
    masks = {role: inside(heart_ZYX, labels[name]) for role, name in names.items()}
    voxel_ml = float(np.prod(spacing_zyx_mm)) / 1000
    checks: list[Check] = []
    if {"LV", "MYO"} <= masks.keys() and masks["LV"].any():
        checks.append(_enclosed(masks["LV"], masks["MYO"], names, limits.enclosed_at_least))
    if {"LV", "RV"} <= masks.keys() and masks["LV"].any():
        checks.append(_apart(masks["LV"], masks["RV"], names, limits.apart_at_most))
    volumes = {"LV": limits.lv_ml, "MYO": limits.myo_ml, "RV": limits.rv_ml}
    for role, own_ZYX in masks.items():
        checks.append(_volume(own_ZYX, voxel_ml, names[role], volumes[role]))
        if own_ZYX.any():
            checks.append(_one_component(own_ZYX, names[role], limits.loose_at_most))
            checks.append(_gaps(own_ZYX, names[role], limits.gaps_at_most))
    return tuple(checks)


def _enclosed(lv_ZYX: Mask, myo_ZYX: Mask, names: Mapping[str, str], at_least: float) -> Check:
    ventricle = np.flatnonzero((lv_ZYX | myo_ZYX).any(axis=(1, 2)))
    slices = np.arange(ventricle[0], ventricle[-1] + 1)
    middle = slices[thirds(len(slices)) == 1] if len(slices) > 2 else slices
    share = _touching(lv_ZYX[middle], myo_ZYX[middle]) if lv_ZYX[middle].any() else 0.0
    found = (
        f"{names['MYO']} lies along {share:.0%} of the outline of {names['LV']} in the mid-ventricular slices"
    )
    words = f"{found}, expected {at_least:.0%} or more"
    return _check("enclosed", names["LV"], share >= at_least, share, at_least, words)


def _apart(lv_ZYX: Mask, rv_ZYX: Mask, names: Mapping[str, str], at_most: float) -> Check:
    share = _touching(lv_ZYX, rv_ZYX)
    words = (
        f"{names['RV']} touches {share:.0%} of the outline of {names['LV']}, expected {at_most:.0%} or less"
    )
    return _check("apart", names["LV"], share <= at_most, share, at_most, words)


def _volume(own_ZYX: Mask, voxel_ml: float, label: str, within_ml: tuple[float, float]) -> Check:
    volume = float(np.count_nonzero(own_ZYX)) * voxel_ml
    low, high = within_ml
    found = f"{label} has {volume:.0f} ml" if volume else f"{label} is missing"
    words = f"{found}, expected {low:g} to {high:g} ml"
    return _check("volume_ml", label, low <= volume <= high, volume, within_ml, words)


def _one_component(own_ZYX: Mask, label: str, at_most: float) -> Check:
    import cc3d

    around_ZYX = np.pad(own_ZYX, 1)  # cc3d fails on arrays that are one voxel thin in two directions
    sizes_N = np.bincount(cc3d.connected_components(around_ZYX, connectivity=CONNECTIVITY).ravel())[1:]
    share = 1 - float(sizes_N.max() / sizes_N.sum())
    words = f"{share:.1%} of {label} lies apart from its largest component, expected {at_most:.1%} or less"
    return _check("one_component", label, share <= at_most, share, at_most, words)


def _gaps(own_ZYX: Mask, label: str, at_most: int) -> Check:
    there = np.flatnonzero(own_ZYX.any(axis=(1, 2)))
    gaps = int(there[-1] - there[0] + 1 - len(there))
    lacking = number_of(gaps, "slice")
    words = f"{label} lacks {lacking} between its first and its last, expected {at_most or 'none'}"
    return _check("gaps", label, gaps <= at_most, gaps, at_most, words)


def _check(name: str, label: str, passed: bool, value: float, limit: Any, words: str) -> Check:
    return Check(
        name=name, label=label, passed=bool(passed), value=round(value, DIGITS), limit=limit, words=words
    )


def _touching(own_ZYX: Mask, other_ZYX: Mask) -> float:
    """Share of the in-plane pixel edges around `own` (not empty) that have `other` on their far side."""
    edges_Z, shared_Z = outline_edges(own_ZYX, other_ZYX)
    return float(shared_Z.sum() / edges_Z.sum())


def outline_edges(own: Mask, other: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of masks (…, Y, X): how many pixel edges in the plane are around `own`, and how many of them have `other` on their far side (…)."""
    around = (*((0, 0),) * (own.ndim - 2), (1, 1), (1, 1))
    own, other = np.pad(own, around), np.pad(other, around)
    edges = np.zeros(own.shape[:-2], np.intp)
    shared = edges.copy()
    for axis, step in ((-2, 1), (-2, -1), (-1, 1), (-1, -1)):
        edges += np.count_nonzero(own & ~np.roll(own, step, axis), axis=(-2, -1))
        shared += np.count_nonzero(own & np.roll(other, step, axis), axis=(-2, -1))
    return edges, shared
