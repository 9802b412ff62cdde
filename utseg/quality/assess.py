"""One verdict a case: the Dice to be expected of each label, the anatomical checks, and whether a person should look, with the reasons.

A flag never changes a mask. Thresholds are settings; nothing is read or written here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from utseg.cardiac.plausibility import AnatomyLimits, Check, check_anatomy
from utseg.inference.agreement import Sums
from utseg.settings import Settings

DIGITS = 4
ORIENTATION = "orientation"


class QualitySettings(Settings):
    """When a person should look.

    Below .7 a Dice counts as poor in the quality control of UK Biobank's heart masks (Robinson et al., JCMR 2019). On held-back scans of
    ACDC .8 asked for three quarters of an ensemble's masks and found no more of the worst tenth (`benchmarks/quality.py`).
    """

    dice_at_least: float = Field(default=0.7, ge=0, le=1)
    anatomy: AnatomyLimits = AnatomyLimits()


class CaseQuality(Settings):
    """How far the mask of a case can be trusted. Of a cine: the worst of its frames.

    predicted_dice: per label name, the lower of `expected_dice` and `members_dice` (see `agreement.py`), which ranks cases at least as
    well as either; None where the mask lacks the label. expected_dice: of the mask after postprocessing, which the checks see too.
    members_dice: of `members` networks times views, whose probabilities no postprocessing touches; None where there is but one.
    """

    predicted_dice: dict[str, float | None]
    expected_dice: dict[str, float | None]
    members_dice: dict[str, float | None]
    members: int
    checks: tuple[Check, ...]
    flagged: bool
    reasons: tuple[str, ...]


def assess(
    mask_ZYX: NDArray[np.uint8],
    spacing_zyx_mm: tuple[float, float, float],
    labels: Mapping[str, int],
    expected_K: Sums,
    members_K: Sums,
    members: int,
    settings: QualitySettings,
) -> CaseQuality:
    """The verdict on one volume's mask (Z, Y, X). `expected_K`, `members_K`: Dice per class, NaN where it is not defined."""
    values = {name: value for name, value in labels.items() if value != 0}
    lower_K = np.where(np.isnan(expected_K), np.nan, np.fmin(expected_K, members_K))
    predicted, expected, between = (
        {name: _number(dice_K[value]) for name, value in values.items()}
        for dice_K in (lower_K, expected_K, members_K)
    )
    checks = check_anatomy(mask_ZYX, spacing_zyx_mm, labels, settings.anatomy)
    reasons = [
        f"Dice of {name} is expected to be {dice:.2f}, below {settings.dice_at_least:g}"
        for name, dice in predicted.items()
        if dice is not None and dice < settings.dice_at_least
    ]
    reasons += [check.words for check in checks if not check.passed]
    return CaseQuality(
        predicted_dice=predicted,
        expected_dice=expected,
        members_dice=between,
        members=members,
        checks=checks,
        flagged=bool(reasons),
        reasons=tuple(reasons),
    )


def with_orientation(quality: CaseQuality, doubts: Sequence[str | None]) -> CaseQuality:
    """The verdict with one check more: whether the networks saw the scan as the training scans lay.

    doubts: of each preprocessing why not, "" where it did, None where nothing is known of the training scans.
    """
    known = [doubt for doubt in doubts if doubt is not None]
    if not known:
        return quality
    doubt = next(filter(None, known), "")
    words = f"{ORIENTATION}: {doubt or 'as the training scans'}"
    check = Check(
        name=ORIENTATION, label="", passed=not doubt, value=float(not doubt), limit=1.0, words=words
    )
    reasons = (words, *quality.reasons) if doubt else quality.reasons
    checks = (*quality.checks, check)
    return quality.model_copy(update={"checks": checks, "reasons": reasons, "flagged": bool(reasons)})


def orientation_doubt(quality: CaseQuality | None) -> str | None:
    """What `with_orientation` was told, from the verdict."""
    checks = quality.checks if quality is not None else ()
    found = next((check for check in checks if check.name == ORIENTATION), None)
    return None if found is None else "" if found.passed else found.words.removeprefix(f"{ORIENTATION}: ")


def worst_of_frames(frames: Sequence[CaseQuality]) -> CaseQuality:
    """That of a cine: of each label the lowest Dice, of each check the first frame that fails it, every frame's reasons with its number."""
    if len(frames) == 1:
        return frames[0]
    reasons = [f"frame {t}: {reason}" for t, frame in enumerate(frames) for reason in frame.reasons]
    checks: dict[tuple[str, str], Check] = {}
    for t, frame in enumerate(frames):
        for check in frame.checks:
            key = check.name, check.label
            if key not in checks or (checks[key].passed and not check.passed):
                checks[key] = check.model_copy(update={"words": f"frame {t}: {check.words}"})
    return CaseQuality(
        predicted_dice=_lowest([frame.predicted_dice for frame in frames]),
        expected_dice=_lowest([frame.expected_dice for frame in frames]),
        members_dice=_lowest([frame.members_dice for frame in frames]),
        members=frames[0].members,
        checks=tuple(checks.values()),
        flagged=any(frame.flagged for frame in frames),
        reasons=tuple(reasons),
    )


def _lowest(frames: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    found = {name: [frame[name] for frame in frames] for name in frames[0]}
    return {
        name: min((value for value in values if value is not None), default=None)
        for name, values in found.items()
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), DIGITS)
