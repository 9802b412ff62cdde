"""Rules for the target spacing and the patch: how large it should be, and how many halvings it allows.

Sizes are (y, x) in pixels, spacings (y, x) in mm. Slices are never resampled across: z plays a role in `neighbours.py` only.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from planners.decision import Decision
from utseg.fingerprint import CaseFingerprint, Fingerprint

BALANCED_COLUMN = "vendor"
ANISOTROPY_LIMIT = 1.5
MAX_LEVELS = 4
MIN_BOTTLENECK = 5
MAY_BE_CUT = 0.05
Pair = tuple[float, float]


def balanced_median(cases: Sequence[CaseFingerprint], values: list[float]) -> tuple[float, str]:
    """Median of one value a case, vendors counting alike where they are known: a large one must not decide for all. And how, in words."""
    vendors = [case.groups.get(BALANCED_COLUMN, "") for case in cases]
    names = sorted(set(vendors))
    if len(names) < 2 or "" in names:
        return float(np.median(values)), f"median of {len(values)} cases"
    weights = np.array([1 / vendors.count(vendor) for vendor in vendors])
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order]) / weights.sum()
    below = values[order[int(np.searchsorted(cumulated, 0.5 - 1e-9))]]
    above = values[order[min(int(np.searchsorted(cumulated, 0.5 + 1e-9)), len(values) - 1)]]
    return (
        (below + above) / 2,
        f"median of {len(values)} cases with the {BALANCED_COLUMN}s {', '.join(names)} counting alike",
    )


def native_spacing(fingerprint: Fingerprint) -> Decision[Pair]:
    """The typical in-plane spacing, the same for both axes unless pixels are clearly oblong."""
    y, how = balanced_median(fingerprint.cases, [case.spacing_zyx_mm[1] for case in fingerprint.cases])
    x, _ = balanced_median(fingerprint.cases, [case.spacing_zyx_mm[2] for case in fingerprint.cases])
    _, spread_y, spread_x = fingerprint.overall.spacing_zyx_mm
    finest = min(spread_y.minimum, spread_x.minimum)
    coarsest = max(spread_y.maximum, spread_x.maximum)
    found = f"{how}; the cases have {finest:g} … {coarsest:g} mm"
    if max(y, x) > ANISOTROPY_LIMIT * min(y, x):
        pair = (round(y, 4), round(x, 4))
        return Decision(
            pair, f"{pair[0]:g} × {pair[1]:g} mm (y × x), each axis the {found}: too oblong for one spacing"
        )
    common = round(math.sqrt(y * x), 4)
    return Decision((common, common), f"{common:g} mm along both axes, the {found}")


def image_size(fingerprint: Fingerprint, spacing_yx_mm: Pair) -> Pair:
    """Median size of the resampled images in pixels, not rounded; vendors count alike."""
    sizes = [
        balanced_median(
            fingerprint.cases, [case.size_zyx[axis] * case.spacing_zyx_mm[axis] for case in fingerprint.cases]
        )[0]
        for axis in (1, 2)
    ]
    return sizes[0] / spacing_yx_mm[0], sizes[1] / spacing_yx_mm[1]


def labelled_extent_mm(fingerprint: Fingerprint) -> float | None:
    """Longer in-plane side of the box around all labels, exceeded in a twentieth of the cases; None where nothing is labelled."""
    longest = [
        max(case.foreground.extent_zyx_mm[1:]) for case in fingerprint.cases if case.foreground is not None
    ]
    return float(np.percentile(longest, 95)) if longest else None


class PatchShape(NamedTuple):
    """A patch and its halvings: every side is a multiple of 2^levels."""

    size: tuple[int, int]
    levels: int


def patch_shape(wish_px: Pair) -> PatchShape:
    """The patch that covers a wished size but for a twentieth, with as many halvings (at most four) as leave five pixels a side."""
    for levels in range(MAX_LEVELS, 0, -1):
        step = 2**levels
        size = tuple(math.ceil((1 - MAY_BE_CUT) * side / step) * step for side in wish_px)
        if min(size) // step >= MIN_BOTTLENECK or levels == 1:
            least = step * MIN_BOTTLENECK
            return PatchShape((max(size[0], least), max(size[1], least)), levels)
    raise AssertionError("MAX_LEVELS is at least 1")


class PatchWish(NamedTuple):
    """The size wished for, the least that still makes sense (both in pixels, not rounded), and why."""

    wish_px: Pair
    least_px: Pair
    reason: str


def wished_patch(
    fingerprint: Fingerprint, spacing_yx_mm: Pair, *, margin: float, least_margin: float
) -> PatchWish:
    """`margin` times the labelled extent, but no more than the median image; at least `least_margin` times it."""
    image = image_size(fingerprint, spacing_yx_mm)
    extent = labelled_extent_mm(fingerprint)
    shown = f"the median resampled image is {image[0]:.0f} × {image[1]:.0f} pixels"
    if extent is None:
        return PatchWish(image, (image[0] / 2, image[1] / 2), f"{shown}; nothing is labelled to go by")
    wish = [min(side, margin * extent / step) for side, step in zip(image, spacing_yx_mm, strict=True)]
    least = [min(side, least_margin * extent / step) for side, step in zip(image, spacing_yx_mm, strict=True)]
    return PatchWish(
        (wish[0], wish[1]),
        (least[0], least[1]),
        f"{margin:g} times the labelled extent (95th percentile {extent:.0f} mm) for its surroundings, "
        f"but no more than the image ({shown}): {wish[0]:.0f} × {wish[1]:.0f}",
    )


def smallest_structure(fingerprint: Fingerprint) -> tuple[str, float] | None:
    """The label with the smallest median in-plane diameter (mm, of the disc of equal area), None where nothing is labelled."""
    diameters = [(spread.median, name) for name, spread in fingerprint.overall.diameter_mm.items()]
    return min(diameters)[::-1] if diameters else None


def thickness_quartile_mm(fingerprint: Fingerprint) -> tuple[str, float] | None:
    """The thinnest label, and the in-plane thickness that a quarter of its cases are below; None where nothing is labelled."""
    quartiles = []
    for name in fingerprint.overall.label_cases:
        thicknesses = [case.labels[name].thickness_mm for case in fingerprint.cases if name in case.labels]
        quartiles.append((float(np.percentile(thicknesses, 25)), name))
    return min(quartiles)[::-1] if quartiles else None
