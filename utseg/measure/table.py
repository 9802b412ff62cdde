"""The table of cines, `cines.csv` of utseg_import_dicom or one that a person writes: who, which scanner, heart rate, height and weight."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from utseg.errors import InputError
from utseg.rawdata.tables import CsvTable, is_empty, read_table

LIMITS = {
    "heart_rate_bpm": (15.0, 300.0),
    "rr_interval_ms": (200.0, 4000.0),
    "height_m": (0.3, 2.6),
    "weight_kg": (0.5, 500.0),
    "slice_distance_mm": (0.1, 100.0),
    "slice_thickness_mm": (0.1, 100.0),
}
"""The columns that are measured by, and what a person or a scanner can have; other values are refused."""
NO_GROUPS = {
    *("cine", "case", "subject", "phase", "rows", "columns", "slices", "frames", "series_description"),
    *("spacing_x_mm", "spacing_y_mm", *LIMITS),
}


@dataclass(frozen=True)
class About:
    """What a table says of one cine; "" and None where it says nothing. `groups`: its other columns, as vendor, centre, sex."""

    subject: str = ""
    phase: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def beat_ms(self) -> float | None:
        """From one heart beat to the next: by the interval, else by the rate."""
        if "rr_interval_ms" in self.numbers:
            return self.numbers["rr_interval_ms"]
        return 60000 / self.numbers["heart_rate_bpm"] if "heart_rate_bpm" in self.numbers else None

    @property
    def heart_rate_bpm(self) -> float | None:
        """Beats a minute: by the rate, else by the interval."""
        if "heart_rate_bpm" in self.numbers:
            return self.numbers["heart_rate_bpm"]
        return None if self.beat_ms is None else 60000 / self.beat_ms


def read_cines(path: Path) -> dict[str, About]:
    """The rows by cine (or case). Raises InputError: no such column, a cine twice, a number that is none or that nobody has."""
    table = read_table(path)
    key = table.column("cine", "case")
    if key is None:
        raise InputError(f"{path}: column 'cine' is missing; found {', '.join(table.columns)}")
    found: dict[str, About] = {}
    for row, line in zip(table.rows, table.lines, strict=True):
        if row[key] in found:
            raise InputError(f"{path}: line {line}: {row[key]!r} is there twice; keep one row")
        found[row[key]] = _about(table, row, line)
    return found


def _about(table: CsvTable, row: Mapping[str, str], line: int) -> About:
    said = {column: value for column, value in row.items() if not is_empty(value)}

    def number(column: str) -> float:
        low, high = LIMITS[column]
        try:
            value = float(said[column])
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            where = f"{table.path}: line {line}: column {column!r}"
            raise InputError(
                f"{where}: expected a number from {low:g} to {high:g}, or nothing; found {said[column]!r}"
            )
        return value

    return About(
        subject=said.get("subject", ""),
        phase=said.get("phase", "").upper(),
        groups={column: value for column, value in said.items() if column not in NO_GROUPS},
        numbers={column: number(column) for column in LIMITS if column in said},
    )
