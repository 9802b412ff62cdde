"""Reads the CSV files that come with raw data, as spreadsheets write them: with or without BOM, separated by comma, semicolon or tab.

Values stay text. Nothing is known here about what a column means.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from utseg.errors import InputError

SEPARATORS = ",;\t"
EMPTY = frozenset({"", "nan", "none", "na", "n/a", "null"})
LARGEST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Table:
    """`rows` map column names, as written, to values without surrounding blanks; `lines` holds each row's line in the file."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]
    lines: tuple[int, ...]

    def column(self, *aliases: str) -> str | None:
        """The column that is called like one of the aliases, whatever its letter case, blanks and underscores."""
        wanted = {_plain(alias) for alias in aliases}
        return next((column for column in self.columns if _plain(column) in wanted), None)


def _plain(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def is_empty(value: str) -> bool:
    """Whether a cell says nothing: blank, nan, none, na, n/a."""
    return value.strip().casefold() in EMPTY


def read_table(path: Path) -> Table:
    """Reads a CSV file. Raises InputError that names file and line: unreadable, a column twice, a row with more cells than columns."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise InputError(f"{path}: larger than {LARGEST_BYTES // 2**20} MiB; expected a table of cases")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: could not be read ({error.strerror or error})") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")  # what spreadsheets on Windows write
    first = text.split("\n", 1)[0]
    separator = max(SEPARATORS, key=first.count)
    try:
        return _collect(path, text, separator)
    except csv.Error as error:
        raise InputError(f"{path}: not valid CSV ({error})") from None


def _collect(path: Path, text: str, separator: str) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    columns = [cell.strip() for cell in next(reader, [])]
    named = [column for column in columns if column]
    for column in named:
        if named.count(column) > 1:
            raise InputError(f"{path}: column {column!r} is there {named.count(column)} times; keep one")
    rows, lines = [], []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if any(cell.strip() for cell in cells[len(columns) :]):
            raise InputError(
                f"{path}: line {reader.line_num}: {len(cells)} cells, but the first line has {len(columns)} columns; "
                "quote cells that hold the separator"
            )
        padded = cells + [""] * (len(columns) - len(cells))
        rows.append({column: padded[i].strip() for i, column in enumerate(columns) if column})
        lines.append(reader.line_num)
    return Table(path, tuple(named), tuple(rows), tuple(lines))
