"""The end of the clinic's walk: ejection fractions as they were measured, beside those of the hearts' formulas."""

from pathlib import Path

from utseg.measure.tables import MEASURES_TABLE
from utseg.phantom.dicom import TRUTH_FILE
from utseg.rawdata.tables import read_table

SCANNER, CINES, MASKS, MEASURES, CODES = "scanner", "cines", "masks", "measures", "codes.csv"
"""What lies in the clinic's folder."""
SIDES = ("lv", "rv")


def measured_against_truth(folder: Path) -> str:
    """A plain-text table: a line a patient, EF of both ventricles measured and true, in %, and the mean absolute differences."""
    truth = {row["patient_id"]: row for row in read_table(folder / SCANNER / TRUTH_FILE).rows}
    patients = {row["subject"]: row["patient_id"] for row in read_table(folder / CODES).rows}
    lines = [f"{'cine':<10}{'vendor':<10}{'LV EF':>8}{'true':>8}{'RV EF':>8}{'true':>8}"]
    differences: dict[str, list[float]] = {side: [] for side in SIDES}
    for row in read_table(folder / MEASURES / MEASURES_TABLE).rows:
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
