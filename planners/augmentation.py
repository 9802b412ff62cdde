"""Ranges of augmentation: intensities wide enough for other vendors, positions and sizes from how much the labelled structures vary.

Left to the recipe of training: nothing. What is drawn from the ranges is the augmentation's business.
"""

from typing import Any

import numpy as np

from planners.decision import Decision
from planners.geometry import Pair
from planners.intensity import intensity_unit
from utseg.fingerprint import Fingerprint
from utseg.rawdata.channels import scheme_of

ROTATION_RANGE_DEG = (15.0, 90.0)
ROTATION_OF_SPREAD = 1.5
DIRECTION_NEEDS_MM = 5.0
DEFAULT_ROTATION_DEG = 30.0
SMALLEST_RANGE, LARGEST_RANGE = (0.85, 1.15), (0.7, 1.4)
ENOUGH_SUBJECTS = 5
FLIPPED_SHARE = 0.05
MIXED_GAIN = (
    "on vendors that were not trained on (M&Ms A and B, both ways, U-Net, 400 iterations, 13 subjects) Dice was .768 without and .793 with "
    "(+.025, standard error .013; 11 of 13 better), on those that were it lost .004 (.002)"
)

PUBLISHED = (
    "the kind as published for UTNet (Gao, Zhou, Metaxas, MICCAI 2021), the figure ours: the paper gives none"
)
WIDE = "wide rather than realistic, since other scanners than the training ones will come"
NOT_USED = "not used unless asked for with --set augmentation.KIND_probability"
Named = dict[str, tuple[Any, str]]
INTENSITY: Named = {
    "noise_sd_range": ((0.0, 0.1), "noise of up to 0.1 standard deviations of the volume (intensity_unit)"),
    "noise_probability": (0.2, "noise on 0.2 of the patches"),
    "brightness_range": ((-0.3, 0.3), "shifts of up to 0.3 standard deviations (intensity_unit)"),
    "brightness_probability": (0.3, "brightness on 0.3 of the patches"),
    "contrast_range": ((0.65, 1.5), "contrast from 0.65 to 1.5, as much as scanners of other vendors differ"),
    "contrast_probability": (0.3, "contrast on 0.3 of the patches"),
    "gamma_range": ((0.7, 1.5), "gamma from 0.7 to 1.5, as much as scanners of other vendors differ"),
    "gamma_probability": (0.3, "gamma on 0.3 of the patches"),
}
PUBLISHED_SPATIAL: Named = {
    "rotation_deg": (30.0, "up to 30 degrees either way"),
    "rotation_probability": (0.5, "on 0.5 of the patches"),
    "scale_range": ((0.7, 1.3), "factors from 0.7 to 1.3"),
    "scale_probability": (0.5, "on 0.5 of the patches"),
    "mirror_axes": ((), "() is no mirroring: the publication has none"),
    "foreground_fraction": (0.33, "0.33 of the patches are centred on a label, the others are random crops"),
}
HISTOGRAM_SHARE = (0.0, 1.0), "0 to 1 of the way to the histogram of another subject's slice"
# The ranges are there, the probabilities 0.
LEFT_OUT: Named = {
    "blur_sd_mm_range": ((0.5, 2.0), "blurred by 0.5 to 2 mm"),
    "blur_probability": (0.0, "0: no blur"),
    "resolution_range": ((0.5, 1.0), "0.5 to 1 of the resolution left"),
    "resolution_probability": (0.0, "0: no coarser pixels"),
}
PUBLISHED_LEFT_OUT: Named = LEFT_OUT | {
    "histogram_share_range": HISTOGRAM_SHARE,
    "histogram_probability": (0.0, "0: histograms stay"),
}


def _explained(values: Named, why: str, join: str) -> dict[str, Decision[Any]]:
    return {
        f"augmentation.{key}": Decision(value, f"{words}{join}{why}")
        for key, (value, words) in values.items()
    }


KINDS_NOT_USED = _explained(LEFT_OUT, NOT_USED, "; ")
INTENSITY_AUGMENTATION = _explained(INTENSITY, WIDE, ": ")
PUBLISHED_AUGMENTATION = _explained(PUBLISHED_LEFT_OUT, NOT_USED, "; ") | _explained(
    INTENSITY | PUBLISHED_SPATIAL, PUBLISHED, "; "
)


def planned_augmentation(
    fingerprint: Fingerprint, patch_size: tuple[int, int], image_px: Pair
) -> dict[str, Decision[Any]]:
    """Every range of the plan's group `augmentation`."""
    measured: dict[str, Decision[Any]] = {
        "intensity_unit": intensity_unit(fingerprint),
        "rotation_deg": rotation_deg(fingerprint),
        "rotation_probability": Decision(
            0.5, "0.5: half of the patches, the other half shows the usual pose"
        ),
        "scale_range": scale_range(fingerprint),
        "scale_probability": Decision(0.5, "0.5: half of the patches, the other half shows true sizes"),
        "mirror_axes": mirror_axes(fingerprint),
        "foreground_fraction": foreground_fraction(fingerprint, patch_size, image_px),
        "histogram_share_range": Decision(*HISTOGRAM_SHARE),
        "histogram_probability": histogram_probability(fingerprint),
    }
    return (
        INTENSITY_AUGMENTATION
        | KINDS_NOT_USED
        | {f"augmentation.{key}": value for key, value in measured.items()}
    )


def rotation_deg(fingerprint: Fingerprint) -> Decision[float]:
    """One and a half times how much the direction from the labels' centre to a label varies between subjects (circular deviation)."""
    low, high = ROTATION_RANGE_DEG
    if fingerprint.overall.subjects < ENOUGH_SUBJECTS:
        return Decision(
            DEFAULT_ROTATION_DEG,
            f"{DEFAULT_ROTATION_DEG:g}: {fingerprint.overall.subjects} subjects do not tell how much poses vary",
        )
    spreads = []
    for name in fingerprint.overall.label_cases:
        offsets = np.array(
            [case.labels[name].offset_yx_mm for case in fingerprint.cases if name in case.labels]
        )
        lengths = np.hypot(*offsets.T)
        if len(offsets) >= ENOUGH_SUBJECTS and np.median(lengths) >= DIRECTION_NEEDS_MM:
            resultant = np.hypot(*(offsets / np.maximum(lengths, 1e-6)[:, None]).mean(axis=0))
            spreads.append((float(np.degrees(np.sqrt(-2 * np.log(max(resultant, 1e-6))))), name))
    if not spreads:
        return Decision(
            DEFAULT_ROTATION_DEG,
            f"{DEFAULT_ROTATION_DEG:g}: no label lies far enough off centre to show a pose",
        )
    spread, name = min(spreads)
    value = float(round(min(max(ROTATION_OF_SPREAD * spread, low), high)))
    return Decision(
        value,
        f"{value:g}: {ROTATION_OF_SPREAD:g} times the {spread:.0f} degrees by which the direction to {name} varies between cases, "
        f"kept within {low:g} … {high:g}",
    )


def scale_range(fingerprint: Fingerprint) -> Decision[tuple[float, float]]:
    """As much as labelled regions differ in size between cases, within limits."""
    longest = [
        max(case.foreground.extent_zyx_mm[1:]) for case in fingerprint.cases if case.foreground is not None
    ]
    limits = f"kept within {LARGEST_RANGE[0]:g} … {LARGEST_RANGE[1]:g} and at least {SMALLEST_RANGE[0]:g} … {SMALLEST_RANGE[1]:g}"
    if not longest:
        return Decision(SMALLEST_RANGE, f"{SMALLEST_RANGE}: nothing is labelled to go by; {limits}")
    small, typical, large = (float(value) for value in np.percentile(longest, (5, 50, 95)))
    low = round(float(np.clip(small / typical, LARGEST_RANGE[0], SMALLEST_RANGE[0])), 2)
    high = round(float(np.clip(large / typical, SMALLEST_RANGE[1], LARGEST_RANGE[1])), 2)
    return Decision(
        (low, high),
        f"{low:g} … {high:g}: the labelled region is {small:.0f} … {large:.0f} mm long in nine of ten cases, {typical:.0f} mm in the "
        f"median one; {limits}",
    )


def mirror_axes(fingerprint: Fingerprint) -> Decision[tuple[str, ...]]:
    """None, unless the files themselves show the slices from both sides: a mirrored body is one that never comes."""
    normals = np.array([case.way.normal for case in fingerprint.cases])
    major = normals.mean(axis=0) if np.linalg.norm(normals.mean(axis=0)) > 1e-3 else normals[0]
    flipped = int((normals @ major < 0).sum())
    counted = f"{flipped} of {len(normals)} cases show their slices from the other side than most"
    if flipped < FLIPPED_SHARE * len(normals):
        return Decision(
            (),
            f"() is no mirroring: {counted}, so a mirrored image, with left and right exchanged, is not to be expected",
        )
    return Decision(("x",), f"x: {counted}, so mirrored images come; with rotation one axis is enough")


def foreground_fraction(
    fingerprint: Fingerprint, patch_size: tuple[int, int], image_px: Pair
) -> Decision[float]:
    """A third where a patch shows most of an image, half where it shows less and could miss the structures."""
    covered = min(1.0, patch_size[0] / image_px[0]) * min(1.0, patch_size[1] / image_px[1])
    overall = fingerprint.overall
    value = 0.33 if covered > 0.5 else 0.5
    return Decision(
        value,
        f"{value:g}: a patch covers {covered:.0%} of the median image and {overall.labelled_slices} of {overall.slices} slices hold a "
        "label; a third where a patch covers more than half of an image, else half",
    )


def histogram_probability(fingerprint: Fingerprint) -> Decision[float]:
    """Half of the patches, where there is another subject to lend a histogram and no channel's intensities have a unit."""
    others = [name for name in fingerprint.channel_names if scheme_of(name) != "z-score"]
    if others:
        return Decision(
            0.0,
            f"0: histograms stay, since values of {', '.join(others)} mean the same in every scan; of MR, {MIXED_GAIN}",
        )
    if fingerprint.overall.subjects == 1:
        return Decision(0.0, "0: histograms stay, since there is no other subject to take one of")
    return Decision(0.5, f"0.5: half of the patches; {MIXED_GAIN}")
