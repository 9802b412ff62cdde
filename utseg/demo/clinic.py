"""The end of the clinic's walk: ejection fractions as they were measured, beside those of the hearts' formulas."""

import csv
from pathlib import Path

from utseg.phantom.dicom import TRUTH_FILE

SCANNER, CINES, MASKS, MEASURES, CODES = "scanner", "cines", "masks", "measures", "codes.csv"
"""What lies in the clinic's folder."""
SIDES = ("lv", "rv")


def measured_against_truth(folder: Path) -> str:
    """A plain-text table: a line a patient, EF of both ventricles measured and true, in %, and the mean absolute differences."""
    truth = {row["patient_id"]: row for row in _rows(folder / SCANNER / TRUTH_FILE)}
    patients = {row["subject"]: row["patient_id"] for row in _rows(folder / CODES)}
    lines = [f"{'cine':<10}{'vendor':<10}{'LV EF':>8}{'true':>8}{'RV EF':>8}{'true':>8}"]
    differences: dict[str, list[float]] = {side: [] for side in SIDES}
    for row in _rows(folder / MEASURES / "measures.csv"):
        true, line = truth[patients[row["subject"]]], ""
        for side in SIDES:
            measured, expected = row[f"{side}_ef_percent"], float(true[f"{side}_ef"])
            if measured:
                differences[side].append(abs(float(measured) - expected))
            line += f"{float(measured):>8.1f}" if measured else f"{'–':>8}"
            line += f"{expected:>8.1f}"
        lines.append(f"{row['cine']:<10}{true['vendor']:<10}{line}")
    means = [sum(found) / len(found) if found else float("nan") for found in differences.values()]
    lines.append(f"{'mean absolute difference':<20}{means[0]:>12.1f}{means[1]:>16.1f}")
    return "\n".join(lines)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
