"""`write_report`: from paths to one HTML file and a folder of tables.

Reads what the paths hold, compares, draws the stacks of all cases in parallel, and says what stands where. Nothing is scored here.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

from utseg.case import Dataset
from utseg.evaluate.clinical import Clinical, clinical_measures, over_same_subjects, summarise_clinical
from utseg.evaluate.summary import summarise
from utseg.evaluate.tables import CLINICAL_TITLE, Table, summary_tables
from utseg.home import Home
from utseg.label_map import IGNORE
from utseg.report.cases import ShownCases, show_cases, with_pictures
from utseg.report.entries import Entry, find_entries, group_columns, on_shared_cases
from utseg.report.page import (
    AnyBlock,
    Page,
    Report,
    Section,
    TableBlock,
    cases_section,
    figures_section,
    folded,
    made_now,
    models_legend,
    note,
    provenance_section,
    require_output,
    write_page,
)
from utseg.report.scores import provenance
from utseg.report.scores.comparison_tables import Comparisons, compare_entries, comparison_tables, pair_table
from utseg.report.scores.score_charts import MODELS_SHOWN, agreements, distributions, training_curves
from utseg.training.differences import unlike_folds

AGREEMENT_MODELS = 4
IN_SIGHT = 2
NEEDED_FOR_SUMMARY = ("hd95_mm", "reference_ml", "prediction_ml")
SAME_SUBJECTS = " Only subjects for whom all models have the measure."
FIGURES_NOTE = (
    "By the mean Dice over labels and models; below each prediction the Dice of the whole volume. "
    "The slice shown is the one whose own Dice is nearest to the volume's."
)
DISTRIBUTIONS_NOTE = (
    "Each point is a case; box: quartiles, line: median, whiskers: to the last value within 1.5 times the box. At the right the number "
    "of cases, and after + those in which neither has the structure (∅)."
)
AGREEMENT_NOTE = (
    "Bland–Altman plots: prediction − reference over the mean of both; bias (line) and limits of agreement, bias ± 1.96 sd "
    "(dashed)."
)


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
    require_output(output)
    home = home or Home.locate()
    entries = find_entries(paths, home)
    scored = [entry for entry in entries if entry.scores]
    made = made_now() | {"command": command}
    counts: list[str] = []
    notices = [
        f"{entry.name}: not scored yet, only its training is shown." for entry in entries if not entry.scores
    ]
    sections: list[Section] = []
    cases = None
    if scored:
        cases = show_cases(scored, group_columns([row for entry in scored for row in entry.rows]))
        comparisons, compared = compare_entries(scored, cases.columns)
        if pictures:
            column = "vendor" if "vendor" in cases.columns else ""
            cases = with_pictures(
                cases, column, home=home, dataset=dataset, executor=executor, workers=workers
            )
        subjects = {row["subject"] for entry in scored for row in entry.rows}
        counts = [f"{len(cases.order)} cases of {len(subjects)} subjects"]
        notices += [*compared, *_unlike_folds(scored), *_too_good(scored), *_left_out(scored), *cases.notices]
        sections = _score_sections(cases, comparisons)
    page = Page(
        kind="Segmentation report",
        title=_title(entries),
        made=[*counts, *(f"{what} {made[what]}" for what in ("made", "by"))],
        notices=notices,
        sections=[*sections, *_training_sections(entries, made)],
        cases=cases,
    )
    return write_page(page, output, len(cases.order) if cases else 0)


def _score_sections(cases: ShownCases, comparisons: Sequence[Comparisons]) -> list[Section]:
    shared = on_shared_cases(cases.entries)
    clinical = _clinical(shared)
    legend: list[AnyBlock] = [*models_legend([entry.name for entry in cases.entries])]
    glance = [table for some in comparisons for table in comparison_tables(some)]
    pairs = [table for some in comparisons if (table := pair_table(some))]
    detailed = [table for some in comparisons for table in comparison_tables(some, detailed=True)]
    in_sight = [TableBlock(table, noted=table is glance[:IN_SIGHT][-1]) for table in glance[:IN_SIGHT]]
    charts = distributions(cases.entries, cases.columns)
    agreement: list[AnyBlock] = [note(AGREEMENT_NOTE), *legend]
    for number, entry in enumerate(shared[:AGREEMENT_MODELS]):
        agreement += agreements(entry, clinical.get(entry.name), number)
    return [
        Section("glance", "At a glance", [*in_sight, *folded(glance[IN_SIGHT:]), *folded(pairs)]),
        figures_section(cases, "Best, median and worst cases", FIGURES_NOTE),
        Section("distributions", "Distributions", [note(DISTRIBUTIONS_NOTE), *legend, *charts]),
        Section("agreement", "Agreement with the reference", agreement, "Agreement"),
        cases_section(cases),
        Section("details", "Details", folded([*detailed, *_summaries(shared, clinical)])),
    ]


def _training_sections(entries: Sequence[Entry], made: Mapping[str, str]) -> list[Section]:
    curves, training = training_curves(entries), provenance.training_table(entries)
    blocks: list[AnyBlock] = [curves] if curves else []
    blocks += [TableBlock(training, titled=False)] if training else []
    plans = [TableBlock(plan, "closed", prose=True) for plan in provenance.plan_tables(entries)]
    plans[:1] = [replace(plan, fold="open") for plan in plans[:1]]
    origin = provenance.provenance_table(entries, made), provenance.settings_table(entries)
    return [
        Section("training", "Training", blocks),
        Section("plan", "The plan, with its reasons", plans, "Plan"),
        provenance_section(*origin, provenance.commands(entries, made["command"])),
    ]


def _clinical(entries: Sequence[Entry]) -> dict[str, Clinical]:
    """The clinical measures of each entry that has some, all of the same subjects; none of references that are ignored in part."""
    found = {
        entry.name: measures
        for entry in entries
        if {"reference_ml", "prediction_ml"} <= set(entry.rows[0])
        and not any(IGNORE in scores.sources.reference_labels for scores in entry.scores if scores.sources)
        if (measures := clinical_measures(entry.rows, group_columns(entry.rows)))
    }
    return dict(zip(found, over_same_subjects(list(found.values())), strict=True))


def _summaries(entries: Sequence[Entry], clinical: Mapping[str, Clinical]) -> list[Table]:
    """All tables of each entry's summary, made again from its rows; regions and the like from `summary.json` where that covers all rows."""
    tables = []
    for entry in entries:
        if not set(NEEDED_FOR_SUMMARY) <= set(entry.rows[0]):
            continue  # a metrics.csv from elsewhere
        columns = group_columns(entry.rows)
        summary = summarise(entry.rows, columns)
        measures = clinical.get(entry.name)
        summary["clinical"] = summarise_clinical(measures, columns) if measures else None
        recorded = entry.scores[0].summary if len(entry.scores) == 1 else {}
        if recorded.get("all", {}).get("cases") == summary["all"]["cases"]:
            summary |= {key: recorded[key] for key in ("regions", "official_utnet") if key in recorded}
        for table in summary_tables(summary):
            if len(entries) > 1:
                same = SAME_SUBJECTS if table.title.startswith(CLINICAL_TITLE) else ""
                table = replace(table, title=f"{entry.name}: {table.title}", note=table.note + same)
            tables.append(table)
    return tables


def _too_good(scored: Sequence[Entry]) -> list[str]:
    """Which validations are of subjects that the weights had seen which a run began from."""
    return [
        f"{entry.name}: the run on {run.record.selection} began from weights that were trained on {initial.saw} of the subjects that it "
        "holds back: their scores are too good."
        for entry in scored
        for run in entry.runs
        if run.folder.is_relative_to(entry.folder) and (initial := run.record.initial_weights) and initial.saw
    ]


def _unlike_folds(scored: Sequence[Entry]) -> list[str]:
    """Which folds stand as one model though they were trained otherwise."""
    return [
        f"{entry.name}: {fold} {words}."
        for entry in scored
        if (own := [run.record for run in entry.runs if run.folder.is_relative_to(entry.folder)])
        for fold, words in unlike_folds(own).items()
    ]


def _left_out(scored: Sequence[Entry]) -> list[str]:
    """Of which models there are no charts: many would be unreadable."""
    limits = {"distributions": MODELS_SHOWN, "agreement plots": AGREEMENT_MODELS}
    return [
        f"The {what} show the first {most} of {len(scored)} models; the tables have all."
        for what, most in limits.items()
        if len(scored) > most
    ]


def _title(entries: Sequence[Entry]) -> str:
    datasets = dict.fromkeys(run.record.plan.dataset for entry in entries for run in entry.runs)
    validated = all(run.folder.is_relative_to(entry.folder) for entry in entries for run in entry.runs)
    about = f"{' on' if validated else ', trained on'} {', '.join(datasets)}" if datasets else ""
    return ", ".join(entry.name for entry in entries) + about
