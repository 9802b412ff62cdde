"""How far a mask can be trusted, without a reference: one verdict a case, and `quality.csv`, the verdicts on a folder of masks.

A verdict is the Dice to be expected of each label, the anatomical checks, and whether a person should look, with the reasons. A flag
never changes a mask. Thresholds are settings.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from utseg.cardiac.plausibility import AnatomyLimits, Check, check_anatomy
from utseg.files import write_text
from utseg.inference.agreement import Sums
from utseg.labels import structures
from utseg.settings import Settings

QUALITY_FILE = "quality.csv"
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
    values = structures(labels)
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

    def lowest(key: str) -> dict[str, float | None]:
        found = [getattr(frame, key) for frame in frames]
        return {name: _lowest(dice[name] for dice in found) for name in found[0]}

    return CaseQuality(
        predicted_dice=lowest("predicted_dice"),
        expected_dice=lowest("expected_dice"),
        members_dice=lowest("members_dice"),
        members=frames[0].members,
        checks=tuple(checks.values()),
        flagged=any(frame.flagged for frame in frames),
        reasons=tuple(reasons),
    )


def _lowest(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), DIGITS)


def write_table(cases: Mapping[str, CaseQuality | None], labels: Mapping[str, int], folder: Path) -> None:
    """Writes `quality.csv`, a line a case. Flagged ones come first, the lowest predicted Dice on top; None was never assessed.

    Columns: case, flagged (yes, no), lowest_predicted_dice, predicted_dice_LABEL for each label, reasons.
    """
    names = list(structures(labels))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ["case", "flagged", "lowest_predicted_dice", *(f"predicted_dice_{name}" for name in names), "reasons"]
    )
    for case_id, quality in sorted(cases.items(), key=_order):
        if quality is None:
            table.writerow([case_id] + [""] * (len(names) + 3))
        else:
            dice = [quality.predicted_dice[name] for name in names]
            flagged = "yes" if quality.flagged else "no"
            cells = ["" if value is None else f"{value:.4f}" for value in (_lowest(dice), *dice)]
            table.writerow([case_id, flagged, *cells, "; ".join(quality.reasons)])
    write_text(folder / QUALITY_FILE, text.getvalue())


def _order(item: tuple[str, CaseQuality | None]) -> tuple[int, float, str]:
    case_id, quality = item
    if quality is None:
        return 2, 0.0, case_id
    lowest = _lowest(quality.predicted_dice.values())
    return int(not quality.flagged), 1.0 if lowest is None else lowest, case_id
