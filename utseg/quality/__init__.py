"""How far a mask can be trusted, without a reference: predicted Dice, entropy, anatomical checks, and the flag for a person to look."""

from utseg.quality.agreement import (
    Agreement,
    RunningAgreement,
    agreement_between,
    entropy,
    expected_dice,
)
from utseg.quality.assess import (
    CaseQuality,
    QualitySettings,
    assess,
    orientation_doubt,
    with_orientation,
    worst_of_frames,
)
from utseg.quality.table import QUALITY_FILE, write_table

__all__ = [
    "QUALITY_FILE",
    "Agreement",
    "CaseQuality",
    "QualitySettings",
    "RunningAgreement",
    "agreement_between",
    "assess",
    "entropy",
    "expected_dice",
    "orientation_doubt",
    "with_orientation",
    "worst_of_frames",
    "write_table",
]
