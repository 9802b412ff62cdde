"""`write_report`: from paths to one HTML file and a folder of tables.

Reads what the paths hold, compares, draws the stacks of all cases in parallel, fills the template. Nothing is scored or predicted here.
"""

import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from utseg.case import Dataset
from utseg.errors import InputError
from utseg.evaluate.clinical import Clinical, clinical_measures, over_same_subjects, summarise_clinical
from utseg.evaluate.summary import summarise
from utseg.evaluate.tables import CLINICAL_TITLE, Table, summary_tables
from utseg.files import require_writable, write_text
from utseg.home import Home
from utseg.report.add_pictures import with_pictures
from utseg.report.cases import case_table, worst_first
from utseg.report.entries import Entry, find_entries, group_columns, on_shared_cases
from utseg.report.export import export_tables
from utseg.report.page import Page, render
from utseg.report.scores.comparison_tables import compare_entries, glance_tables, pair_table
from utseg.report.scores.provenance import (
    commands,
    plan_tables,
    provenance_table,
    settings_table,
    training_table,
)
from utseg.report.scores.score_charts import (
    MODELS_SHOWN,
    Charts,
    clinical_agreement,
    distributions,
    training_curves,
    volume_agreement,
)

SUFFIX = ".html"
TABLES = "_tables"
AGREEMENT_MODELS = 4
NEEDED_FOR_SUMMARY = ("hd95_mm", "reference_ml", "prediction_ml")


@dataclass(frozen=True)
class Report:
    """What was written: the file, the folder of tables, how many cases, how many of them with pictures, and why others have none."""

    path: Path
    tables: Path
    cases: int
    pictured: int
    notices: tuple[str, ...]


def write_report(
    paths: Sequence[Path],
    output: Path,
    *,
    home: Home | None = None,
    dataset: Dataset | None = None,
    pictures: bool = True,
    command: str = "utseg_report",
    executor: Executor | None = None,
    workers: int | None = None,
) -> Report:
    """Reports scores folders, runs, or folders above some, into `output` (`….html`), and its tables beside it in `…_tables/`.

    dataset: the raw dataset that has the images, where the scores do not say so. Raises InputError or CaseErrors, one line for each path
    that cannot be reported; missing images are no error, the report says what is missing.
    """
    if output.suffix != SUFFIX or output.is_dir():
        raise InputError(f"{output}: expected a file to write whose name ends in {SUFFIX}")
    require_writable(output.absolute().parent)
    home = home or Home.locate()
    entries = find_entries(paths, home)
    page = _page(entries, command)
    scored = [entry for entry in entries if entry.scores]
    if scored and pictures:
        column = "vendor" if "vendor" in page.columns else ""
        page = with_pictures(page, column, home=home, dataset=dataset, executor=executor, workers=workers)
    write_text(output, render(page))
    tables = output.with_name(output.stem + TABLES)
    export_tables(page.tables(), tables)
    return Report(output, tables, len(page.order), len(page.stacks), tuple(page.notices))


def _page(entries: Sequence[Entry], command: str) -> Page:
    """All of the page but the pictures."""
    scored = [entry for entry in entries if entry.scores]
    notices = [
        f"{entry.name}: not scored yet, only its training is shown." for entry in entries if not entry.scores
    ]
    columns = group_columns([row for entry in scored for row in entry.rows])
    page = Page(
        title=_title(entries),
        made=made_now(),
        entries=entries,
        columns=columns,
        notices=notices,
        training=training_table(entries),
        curves=training_curves(entries),
        plans=plan_tables(entries),
        settings=settings_table(entries),
        provenance=provenance_table(entries, [*made_now(), ("command", command)]),
        commands=commands(entries, command),
    )
    if not scored:
        return page
    comparisons, compared = compare_entries(scored, columns)
    order = worst_first(scored)
    agreements: list[Charts] = []
    alike = on_shared_cases(scored)
    clinical = _clinical(alike)
    for number, entry in enumerate(alike[:AGREEMENT_MODELS]):
        found = clinical_agreement(entry, clinical.get(entry.name), number), volume_agreement(entry, number)
        agreements += [charts for charts in found if charts]
    return replace(
        page,
        notices=[*notices, *compared, *_left_out(scored)],
        glance=glance_tables(comparisons),
        pairs=pair_table(comparisons),
        details=[*glance_tables(comparisons, detailed=True), *_summaries(alike, clinical)],
        distributions=distributions(scored, columns),
        agreements=agreements,
        order=order,
        cases=case_table(scored, columns, order),
    )


def _clinical(entries: Sequence[Entry]) -> dict[str, Clinical]:
    """The clinical measures of each entry that has some, all of the same subjects."""
    found = {}
    for entry in entries:
        if {"reference_ml", "prediction_ml"} <= set(entry.rows[0]):
            found[entry.name] = clinical_measures(entry.rows, group_columns(entry.rows))
    own = {name: one for name, one in found.items() if one}
    return dict(zip(own, over_same_subjects(list(own.values())), strict=True))


def _summaries(entries: Sequence[Entry], clinical: Mapping[str, Clinical]) -> list[Table]:
    """All tables of each entry's summary, made again from its rows; regions and the like from `summary.json` where that covers all rows."""
    tables = []
    for entry in entries:
        if not set(NEEDED_FOR_SUMMARY) <= set(entry.rows[0]):
            continue  # a metrics.csv from elsewhere
        columns = group_columns(entry.rows)
        summary = summarise(entry.rows, columns)
        own_clinical = clinical.get(entry.name)
        summary["clinical"] = summarise_clinical(own_clinical, columns) if own_clinical else None
        if (
            len(entry.scores) == 1
            and entry.scores[0].summary.get("all", {}).get("cases") == summary["all"]["cases"]
        ):
            own = entry.scores[0].summary
            summary |= {key: own[key] for key in ("regions", "official_utnet") if key in own}
        named = [_said_of_whom(table, entries) for table in summary_tables(summary)]
        tables += [
            replace(table, title=f"{entry.name}: {table.title}") for table in named if len(entries) > 1
        ]
        tables += named if len(entries) == 1 else []
    return tables


def _said_of_whom(table: Table, entries: Sequence[Entry]) -> Table:
    """Of several models the clinical measures are of the same subjects, and the note says so."""
    if len(entries) < 2 or not table.title.startswith(CLINICAL_TITLE):
        return table
    return replace(table, note=f"{table.note} Only subjects for whom all models have the measure.")


def _left_out(scored: Sequence[Entry]) -> list[str]:
    """Which models have no charts of their own: many would be unreadable; the tables have them all."""
    limits = {"distributions": MODELS_SHOWN, "agreement plots": AGREEMENT_MODELS}
    return [
        f"The {what} show the first {most} of {len(scored)} models; the tables have all."
        for what, most in limits.items()
        if len(scored) > most
    ]


def _title(entries: Sequence[Entry]) -> str:
    datasets = dict.fromkeys(run.record.plan.dataset for entry in entries for run in entry.runs)
    own = all(run.folder.is_relative_to(entry.place) for entry in entries for run in entry.runs)
    about = f", trained on {', '.join(datasets)}" if datasets else ""
    about = f" on {', '.join(datasets)}" if datasets and own else about
    return f"{', '.join(entry.name for entry in entries)}{about}"


def made_now() -> list[tuple[str, str]]:
    """When and by what a report is made."""
    try:
        own = version("utseg")
    except PackageNotFoundError:
        own = "not installed"
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return [("made", now), ("by", f"utseg {own}, Python {platform.python_version()}")]
