"""The report's tables as files: CSV, Markdown and LaTeX of each, and all together as `tables.md` and `tables.tex`."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from utseg.evaluate.tables import LATEX_FILE, MARKDOWN_FILE, Table, to_latex, to_markdown
from utseg.files import require_writable, write_text

OWN_NAME = re.compile(r"\d+_[a-z0-9_]*\.(csv|md|tex)")


def export_tables(tables: Sequence[Table], folder: Path) -> None:
    """Writes `NN_TITLE.csv`, `.md` and `.tex` for each table into the folder; those of an earlier report are removed, other files stay."""
    contents = {MARKDOWN_FILE: to_markdown(tables), LATEX_FILE: to_latex(tables)}
    for name, table in zip(file_names([table.title for table in tables]), tables, strict=True):
        contents |= {
            f"{name}.csv": to_csv(table),
            f"{name}.md": to_markdown([table]),
            f"{name}.tex": to_latex([table]),
        }
    require_writable(folder)
    for name, content in contents.items():
        write_text(folder / name, content)
    for path in folder.iterdir():
        if OWN_NAME.fullmatch(path.name) and path.name not in contents:
            path.unlink()


def file_names(titles: Sequence[str]) -> list[str]:
    """A plain name for each title: a number, so that all differ and stand in their order, then its letters and digits."""
    width = len(str(len(titles)))
    return [
        f"{number:0{width}d}_{re.sub(r'[^a-z0-9]+', '_', title.lower())[:50].strip('_')}"
        for number, title in enumerate(titles, start=1)
    ]


def to_csv(table: Table) -> str:
    """Heads and rows, cells as they stand in the report."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return buffer.getvalue()
