"""The CSV files of a scores folder: which columns they have, how they are written, and how `metrics.csv` is read back.

Tidy: one row a case and label (`metrics.csv`), and slice (`slices.csv`), region (`regions.csv`), or a subject and measure (`clinical.csv`).
An undefined value is an empty field; `status` says why.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from utseg.errors import InputError
from utseg.evaluate.metrics import METRICS, Row
from utseg.evaluate.official import OFFICIAL_METRICS

METRICS_FILE = "metrics.csv"
SLICES_FILE = "slices.csv"
REGIONS_FILE = "regions.csv"
CLINICAL_FILE = "clinical.csv"
OFFICIAL_FILE = "official_utnet.csv"

METRIC_KEYS = tuple(metric.key for metric in METRICS if metric.of_slices or "volume" in metric.scopes)


def _in_scope(scope: str) -> list[str]:
    return [metric.key for metric in METRICS if metric.of_masks and scope in metric.scopes]


# What each file with a row for each case and label has after the label, in this order; metrics in that of their registry.
CASE_FILES: Mapping[str, Sequence[str]] = {
    METRICS_FILE: (*METRIC_KEYS, "status"),
    SLICES_FILE: ("slice", "region", *_in_scope("slice"), "status"),
    REGIONS_FILE: ("region", "slices", *_in_scope("region"), "status"),
    OFFICIAL_FILE: OFFICIAL_METRICS,
}


def to_csv(rows: Iterable[Row], columns: Sequence[str]) -> str:
    """CSV with these columns; what a row has besides is left out."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _field(value) for key, value in row.items()})
    return buffer.getvalue()


def case_columns(groups: Sequence[str], file: str = METRICS_FILE) -> list[str]:
    """The columns, in order, of one of CASE_FILES."""
    return ["case", "subject", *groups, "label", "label_name", *CASE_FILES[file]]


def group_columns_of(row: Iterable[str]) -> tuple[str, ...]:
    """The group columns (phase among them) of a row of a file with a row for each case and label."""
    names = list(row)
    last = "label" if "label" in names else "label_name"
    return tuple(names[names.index("subject") + 1 : names.index(last)])


def clinical_columns(groups: Sequence[str]) -> list[str]:
    """The columns of `clinical.csv`."""
    without_phase = [column for column in groups if column != "phase"]
    return ["subject", *without_phase, "measure", "unit", "reference", "prediction", "difference"]


def read_metrics(path: Path, more: Sequence[str] = ()) -> list[Row]:
    """The rows of a `metrics.csv`: scores as numbers (undefined: NaN), the label's value as a whole number, everything else as text.

    more: columns that it must have besides. Raises InputError, naming file and line, where it is not one.
    """
    required = {*more, "case", "subject", "label_name", "dice", "status"}
    return read_rows(
        path,
        required,
        {"label": lambda text: int(text) if text else ""} | dict.fromkeys(METRIC_KEYS, _number),
    )


def read_rows(
    path: Path, required: set[str], values: Mapping[str, Callable[[str], Any]] | None = None
) -> list[Row]:
    """The rows of a CSV file that `to_csv` wrote, as text; `values`: how columns are read, None: all after `checksum` as numbers.

    Raises InputError, naming file and line, where a column is lacking or a value cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle)
            columns = list(reader.fieldnames or ())
            if lacking := required - set(columns):
                raise InputError(f"{path}: not a {path.name}: no column {', '.join(sorted(lacking))}")
            if values is None:
                values = dict.fromkeys(columns[columns.index("checksum") + 1 :], _number)
            return [_read(row, values, f"{path}: line {line}") for line, row in enumerate(reader, start=2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: could not be read ({error})") from None


def _read(row: dict[str, str], values: Mapping[str, Callable[[str], Any]], where: str) -> Row:
    try:
        return {key: values[key](text) if key in values else text for key, text in row.items()}
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from None


def _number(text: str) -> float:
    """NaN where nothing is written."""
    return float(text) if text else math.nan


def _field(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.10g}"
    return value
