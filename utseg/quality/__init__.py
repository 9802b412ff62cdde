"""How far a mask can be trusted, without a reference: predicted Dice, entropy, anatomical checks, and the flag for a person to look."""

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
    "CaseQuality",
    "QualitySettings",
    "assess",
    "orientation_doubt",
    "with_orientation",
    "worst_of_frames",
    "write_table",
]
