"""Who a cine is of, its scanner, heart rate, height and weight: by `cines.csv`, a table that a person writes, or a raw dataset."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from utseg.case import Case
from utseg.errors import InputError
from utseg.rawdata.tables import is_empty, read_table

LIMITS = {
    "heart_rate_bpm": (15.0, 300.0),
    "rr_interval_ms": (200.0, 4000.0),
    "height_m": (0.3, 2.6),
    "height_cm": (30.0, 260.0),
    "weight_kg": (0.5, 500.0),
    "slice_distance_mm": (0.1, 100.0),
    "slice_thickness_mm": (0.1, 100.0),
}
"""The columns that are measured by, and what a person or a scanner can have; other values are not taken."""
NO_GROUPS = {
    *("cine", "case", "subject", "phase", "rows", "columns", "slices", "frames", "series_description"),
    *("spacing_x_mm", "spacing_y_mm", *LIMITS),
}


@dataclass(frozen=True)
class About:
    """What is said of one cine; "" and None where nothing is. `numbers`: by the columns of LIMITS, of a height in m;
    `groups`: others, as vendor, centre, sex."""

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
        if wrong := wrong_numbers(row):
            raise InputError(f"{path}: line {line}: {wrong[0]}")
        found[row[key]] = _about(row)
    return found


def about_case(case: Case) -> About:
    """What a dataset says of a case. Numbers that are wrong (`wrong_numbers`) count as not said."""
    return _about({**case.groups, **case.person, "subject": case.subject, "phase": case.phase})


def wrong_numbers(said: Mapping[str, str]) -> list[str]:
    """In words, each number that is none, or that nobody has."""
    return [
        f"column {column!r}: expected a number from {low:g} to {high:g}, or nothing; found {said[column]!r}{_advice(said, column)}"
        for column, (low, high) in LIMITS.items()
        if not is_empty(said.get(column, "")) and _number(said, column) is None
    ]


def _advice(said: Mapping[str, str], column: str) -> str:
    centimetres = column == "height_m" and _number({"height_cm": said[column]}, "height_cm") is not None
    return ": metres are expected, and it looks like centimetres" if centimetres else ""


def _about(row: Mapping[str, str]) -> About:
    said = {column: value for column, value in row.items() if not is_empty(value)}
    numbers = {column: _number(said, column) for column in LIMITS}
    if (height_cm := numbers.pop("height_cm")) is not None and numbers["height_m"] is None:
        numbers["height_m"] = height_cm / 100
    return About(
        subject=said.get("subject", ""),
        phase=said.get("phase", "").upper(),
        groups={column: value for column, value in said.items() if column not in NO_GROUPS},
        numbers={column: value for column, value in numbers.items() if value is not None},
    )


def _number(said: Mapping[str, str], column: str) -> float | None:
    low, high = LIMITS[column]
    try:
        value = float(said[column])
    except (KeyError, ValueError):
        return None
    return value if low <= value <= high else None
