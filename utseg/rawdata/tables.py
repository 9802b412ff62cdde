"""Reads the CSV files that come with raw data, as spreadsheets write them: in UTF-8 or UTF-16, with or without a BOM, separated by comma,
semicolon or tab, with or without a first line `sep=;` that says so.

Values stay text. Nothing is known here about what a column means.
"""

import codecs
import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from utseg.errors import InputError

SEPARATORS = ",;\t"
EMPTY = frozenset({"", "nan", "none", "na", "n/a", "null"})
LARGEST_BYTES = 64 * 2**20
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?(?:\1|[;,\t ])*\r?(?:\n|$)', re.IGNORECASE)


@dataclass(frozen=True)
class CsvTable:
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


def read_table(path: Path) -> CsvTable:
    """Reads a CSV file. Raises InputError that names file and line: unreadable, a column twice, a row with more cells than columns."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise InputError(f"{path}: larger than {LARGEST_BYTES // 2**20} MiB; expected a table of cases")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: could not be read ({error.strerror or error})") from None
    text = _decoded(path, data)
    said = SEPARATOR_LINE.match(text)
    if said:
        text = text[said.end() :]
    separator = said[1] if said else max(SEPARATORS, key=text.split("\n", 1)[0].count)
    try:
        return _collect(path, text, separator, lines_before=1 if said else 0)
    except csv.Error as error:
        raise InputError(f"{path}: not valid CSV ({error})") from None


def _decoded(path: Path, data: bytes) -> str:
    if data.startswith(b"PK\x03\x04"):
        raise InputError(f"{path}: a spreadsheet or zip archive called .csv; save it as CSV (UTF-8)")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in data[:2]:  # UTF-16 without a BOM: the first letter is ASCII
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    else:
        encoding = "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        if encoding != "utf-8-sig":
            raise InputError(f"{path}: begins like UTF-16 but is not; save it as CSV (UTF-8)") from None
        text = data.decode("cp1252", errors="replace")  # what spreadsheets on Windows write
    if "\0" in text:
        raise InputError(f"{path}: not a text file (it holds zero bytes); save it as CSV (UTF-8)")
    return text


def _collect(path: Path, text: str, separator: str, lines_before: int) -> CsvTable:
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
                f"{path}: line {reader.line_num + lines_before}: {len(cells)} cells, but the first line has {len(columns)} columns; "
                "quote cells that hold the separator"
            )
        padded = cells + [""] * (len(columns) - len(cells))
        rows.append({column: padded[i].strip() for i, column in enumerate(columns) if column})
        lines.append(reader.line_num + lines_before)
    return CsvTable(path, tuple(named), tuple(rows), tuple(lines))
