"""`quality.csv`: the verdicts on a folder of masks for people, one line a case, those to look at first on top."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from utseg.files import write_text
from utseg.quality.assess import CaseQuality

QUALITY_FILE = "quality.csv"


def write_table(cases: Mapping[str, CaseQuality | None], labels: Mapping[str, int], folder: Path) -> None:
    """Writes it. Flagged cases come first, the lowest predicted Dice on top; a case that was never assessed (None) has empty cells.

    Columns: case, flagged (yes, no), lowest_predicted_dice, predicted_dice_LABEL for each label, reasons.
    """
    names = [name for name, value in labels.items() if value != 0]
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
            cells = [_cell(value) for value in (_lowest(quality), *dice)]
            table.writerow([case_id, flagged, *cells, "; ".join(quality.reasons)])
    write_text(folder / QUALITY_FILE, text.getvalue())


def _order(item: tuple[str, CaseQuality | None]) -> tuple[int, float, str]:
    case_id, quality = item
    if quality is None:
        return 2, 0.0, case_id
    lowest = _lowest(quality)
    return int(not quality.flagged), 1.0 if lowest is None else lowest, case_id


def _lowest(quality: CaseQuality) -> float | None:
    return min((value for value in quality.predicted_dice.values() if value is not None), default=None)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
