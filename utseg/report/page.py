"""Render a report, sections of blocks, as one self-contained HTML file, and write its tables.

Everything is escaped by jinja2 or markupsafe; data for the script is JSON in which no tag can end. A Content-Security-Policy allows the
page's own script and style by their hash, pictures from the file itself, and nothing else. What is shown is for `scores` and `study`.
"""

import base64
import csv
import hashlib
import io
import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from utseg import __version__
from utseg.errors import InputError
from utseg.evaluate.tables import LATEX_FILE, MARKDOWN_FILE, Table, to_latex, to_markdown
from utseg.figures.axes import COLOURS
from utseg.figures.colours import label_colours
from utseg.files import folder_lock, remove_leftovers, require_writable, write_together
from utseg.label_map import Labels
from utseg.report.cases import ShownCases
from utseg.report.scores.comparison_tables import MARK
from utseg.report.stacks import Stack

UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
NUMBER = re.compile(r"[<+−-]?\d|–?$")
SMALL_PRINT = ("note", "legend", "labels_legend")
SUFFIX = ".html"
TABLES = "_tables"
TABLE_FILE = re.compile(r"\d+_[a-z0-9_]*\.(csv|md|tex)")
Fold = Literal["", "closed", "open"]


@dataclass(frozen=True)
class Block:
    """Part of a section: `kind` names the template's macro for it, `content` is what that shows."""

    kind: str
    content: Any = None
    fold: Fold = ""


@dataclass(frozen=True)
class TableBlock:
    """A table, exported too. A folded one is opened by its title; `prose`: long texts in all of its columns."""

    table: Table
    fold: Fold = ""
    titled: bool = True
    noted: bool = True
    prose: bool = False
    kind: str = "table"

    @property
    def texts(self) -> int:
        """How many columns are text: the first, and those beside it that have cells other than numbers. The others are aligned right."""
        others = list(zip(*self.table.rows, strict=True))[1:]
        numbers = [index for index, cells in enumerate(others, start=1) if all(map(NUMBER.match, cells))]
        return numbers[0] if numbers else len(self.table.columns)


@dataclass(frozen=True)
class Charts:
    """Charts that belong together, under a caption."""

    caption: str
    charts: Sequence[Markup]
    fold: Fold = ""
    kind: str = "charts"


AnyBlock = Block | TableBlock | Charts


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it. `anchor` and `link`, where that is not the heading, are for the navigation."""

    anchor: str
    heading: str
    blocks: Sequence[AnyBlock]
    link: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing but small print."""
        return all(block.kind in SMALL_PRINT for block in self.blocks)


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a page shows. Sections that are empty are left out.

    `labels`: of pictures that are not those of `cases`. `scripts`: files beside `report.js`. `links`: to other pages, name and address.
    """

    kind: str
    title: str
    made: Sequence[str]
    notices: Sequence[str]
    sections: Sequence[Section]
    cases: ShownCases | None = None
    labels: Labels = field(default_factory=dict)
    scripts: Sequence[str] = ()
    links: Sequence[tuple[str, str]] = ()


def note(text: str) -> Block:
    """Small print."""
    return Block("note", text)


def models_legend(names: Sequence[str]) -> list[Block]:
    """The colours of several models, or groups, in charts; nothing for one."""
    return [Block("legend", names)] if len(names) > 1 else []


def folded(tables: Iterable[Table]) -> list[TableBlock]:
    """Tables that are opened by their titles."""
    return [TableBlock(table, "closed") for table in tables]


def figures_section(cases: ShownCases | None, heading: str, text: str) -> Section:
    """The pictures of the chosen cases."""
    figures = [Block("figures", _figures(cases))] if cases and cases.figures else []
    return Section("pictures", heading, [Block("labels_legend"), note(text), *figures], "Pictures")


def cases_section(cases: ShownCases | None) -> Section:
    """The table of all cases, which can be sorted and filtered."""
    blocks = [TableBlock(cases.table, kind="cases")] if cases else []
    return Section("cases", "All cases", blocks)


def provenance_section(provenance: Table, settings: Table | None, commands: Sequence[str]) -> Section:
    """Where everything came from, and how to do it again."""
    blocks = [TableBlock(provenance, "open", prose=True)]
    blocks += [TableBlock(settings, "closed", prose=True)] if settings else []
    return Section("provenance", "Provenance", [*blocks, Block("commands", commands)])


def render(page: Page) -> str:
    """The page as HTML."""
    script, style = "\n".join(map(_text_of, ("report.js", *page.scripts))), _text_of("report.css")
    cases = page.cases
    numbers = {case: number for number, case in enumerate(cases.order)} if cases else {}
    colours = label_colours(cases.labels if cases else page.labels)
    return (
        _environment()
        .get_template("page.html")
        .render(
            page=page,
            sections=[section for section in page.sections if not section.is_empty],
            script=Markup(script),
            style=Markup(style),
            policy=f"default-src 'none'; img-src data:; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
            "base-uri 'none'; form-action 'none'",
            label_colours=colours,
            colours=COLOURS,
            mark=MARK,
            numbers=numbers,
            filters=_filters(cases) if cases else [],
            stacks={numbers[case]: _stack(cases, stack) for case, stack in cases.stacks.items()}
            if cases
            else {},
            viewer={
                "labels": [{"name": name, "colour": colour} for name, colour in colours.items()],
                "models": [entry.name for entry in cases.entries] if cases else [],
            },
        )
    )


def _text_of(name: str) -> str:
    return (files("utseg.report") / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    loader = PackageLoader("utseg.report", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["json"] = json_in_html
    return environment


def json_in_html(value: Any) -> Markup:
    """JSON for a `<script type="application/json">`: no tag, comment or entity can begin or end in it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in UNSAFE.items():
        text = text.replace(character, escape)
    return Markup(text)


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")


def _filters(cases: ShownCases) -> list[dict[str, Any]]:
    """For each group column of the table of cases: its index and its values."""
    return [
        {"index": index, "column": column, "values": sorted({row[index] for row in cases.table.rows} - {""})}
        for index, column in enumerate(cases.table.columns)
        if column in cases.columns
    ]


def _stack(cases: ShownCases, stack: Stack) -> dict[str, Any]:
    """A stack for the viewer: models in the order of the entries, None where one has not got the case."""
    return {
        **stack.page,
        "case": stack.case_id,
        "models": [stack.page["models"].get(entry.name) for entry in cases.entries],
        "dice": [[dice.get(label) for label in cases.labels] for dice in cases.dice(stack.case_id)],
    }


def _figures(cases: ShownCases) -> Mapping[str, list[dict[str, Any]]]:
    """The figures' rows, by group: each case with its picture and the Dice of each model."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for figure in cases.figures:
        drawn = cases.stacks[figure.case_id].figure or {}
        models = [
            {"name": entry.name, "paths": drawn["models"].get(entry.name, {}).get("paths"), "dice": dice}
            for entry, dice in zip(cases.entries, cases.dice(figure.case_id), strict=True)
        ]
        row = drawn | {"case": figure.case_id, "why": figure.why, "models": models}
        groups.setdefault(figure.group, []).append(row)
    return groups


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
    for folder in (output.absolute().parent, *filter(Path.exists, [_tables_folder(output)])):
        require_writable(folder)


def _tables_folder(output: Path) -> Path:
    return output.with_name(output.stem + TABLES)


def write_page(page: Page, output: Path, cases: int) -> Report:
    """Writes the page and its tables."""
    tables = _tables_folder(output)
    blocks = [block for section in page.sections for block in section.blocks]
    require_writable(tables)
    with folder_lock(tables):
        remove_leftovers(tables)
        texts = table_texts([block.table for block in blocks if isinstance(block, TableBlock)], tables)
        write_together({output: render(page)} | texts, last=[output])
    return Report(output, tables, cases, len(page.cases.stacks) if page.cases else 0, tuple(page.notices))


def made_now() -> dict[str, str]:
    """When and by what a report is made."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"made": now, "by": f"utseg {__version__}, Python {platform.python_version()}"}


def table_texts(tables: Sequence[Table], folder: Path) -> dict[Path, str | None]:
    """`NN_TITLE.csv`, `.md` and `.tex` of each table in the folder; None for those that an earlier report left there."""
    contents = {MARKDOWN_FILE: to_markdown(tables), LATEX_FILE: to_latex(tables)}
    width = len(str(len(tables)))
    for number, table in enumerate(tables, start=1):
        # a number, so that all names differ and stand in their order, then letters and digits of the title
        plain = re.sub(r"[^a-z0-9]+", "_", table.title.lower())[:50].strip("_")
        name = f"{number:0{width}d}_{plain}"
        as_csv = io.StringIO()
        csv.writer(as_csv, lineterminator="\n").writerows([table.columns, *table.rows])
        contents[f"{name}.csv"] = as_csv.getvalue()
        contents[f"{name}.md"] = to_markdown([table])
        contents[f"{name}.tex"] = to_latex([table])
    older = {path: None for path in folder.iterdir() if TABLE_FILE.fullmatch(path.name)}
    return older | {folder / name: content for name, content in contents.items()}
