"""Writes a report: the page, and its tables beside it as CSV, Markdown and LaTeX, each and all together."""

import csv
import io
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from utseg import __version__
from utseg.errors import InputError
from utseg.evaluate.tables import LATEX_FILE, MARKDOWN_FILE, Table, to_latex, to_markdown
from utseg.files import require_writable, write_text
from utseg.report.page import Page, render

SUFFIX = ".html"
TABLES = "_tables"
OWN_NAME = re.compile(r"\d+_[a-z0-9_]*\.(csv|md|tex)")


@dataclass(frozen=True)
class Report:
    """What was written: the file, the folder of tables, how many cases, how many of them with pictures, and why others have none."""

    path: Path
    tables: Path
    cases: int
    pictured: int
    notices: tuple[str, ...]


def require_output(output: Path) -> None:
    """Raises InputError where no page can be written there."""
    if output.suffix != SUFFIX or output.is_dir():
        raise InputError(f"{output}: expected a file to write whose name ends in {SUFFIX}")
    require_writable(output.absolute().parent)


def write_page(page: Page, output: Path, cases: int) -> Report:
    """Writes the page and its tables."""
    write_text(output, render(page))
    tables = output.with_name(output.stem + TABLES)
    export_tables(page.tables(), tables)
    return Report(output, tables, cases, len(page.cases.stacks) if page.cases else 0, tuple(page.notices))


def made_now() -> dict[str, str]:
    """When and by what a report is made."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"made": now, "by": f"utseg {__version__}, Python {platform.python_version()}"}


def export_tables(tables: Sequence[Table], folder: Path) -> None:
    """Writes `NN_TITLE.csv`, `.md` and `.tex` for each table into the folder; those of an earlier report are removed, other files stay."""
    contents = {MARKDOWN_FILE: to_markdown(tables), LATEX_FILE: to_latex(tables)}
    width = len(str(len(tables)))
    for number, table in enumerate(tables, start=1):
        # a number, so that all names differ and stand in their order, then letters and digits of the title
        plain = re.sub(r"[^a-z0-9]+", "_", table.title.lower())[:50].strip("_")
        name = f"{number:0{width}d}_{plain}"
        contents[f"{name}.csv"] = to_csv(table)
        contents[f"{name}.md"] = to_markdown([table])
        contents[f"{name}.tex"] = to_latex([table])
    require_writable(folder)
    for name, content in contents.items():
        write_text(folder / name, content)
    for path in folder.iterdir():
        if OWN_NAME.fullmatch(path.name) and path.name not in contents:
            path.unlink()


def to_csv(table: Table) -> str:
    """Heads and rows, cells as they stand in the report."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return buffer.getvalue()
