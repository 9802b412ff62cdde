"""`write_study_report`: from a study's folder to one HTML file and a folder of tables.

Reads what the study wrote, compares, draws, fills the template. Nothing is trained, predicted or scored here; that no test subject took
part in training is checked before anything is shown.
"""

import shlex
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from utseg.errors import InputError
from utseg.evaluate.metrics import METRIC
from utseg.evaluate.tables import Table
from utseg.files import require_writable, write_text
from utseg.home import Home
from utseg.report.add_pictures import with_pictures
from utseg.report.cases import case_table, worst_first
from utseg.report.entries import group_columns
from utseg.report.export import export_tables
from utseg.report.page import Shown, render
from utseg.report.scores.score_charts import Charts
from utseg.report.scores.write import SUFFIX, TABLES, Report, made_now
from utseg.report.study import matrix as matrix_texts
from utseg.report.study.differences import (
    Section,
    ablation_section,
    chance_section,
    learning_section,
    loss_by_group_table,
    loss_sentences,
    loss_table,
    pair_sentences,
    pair_table,
)
from utseg.report.study.images import cloud_charts, correlation_sentence, correlation_table, feature_table
from utseg.report.study.matrix import matrix_table, scores_table
from utseg.report.study.pictures import FIGURES_SHOWN, STACKS_SHOWN, picture_entries
from utseg.report.study.runs import (
    cost_section,
    counts,
    dataset_table,
    definition_table,
    provenance_table,
    run_notices,
    runs_table,
)
from utseg.report.study.words import plural
from utseg.study.findings.data import StudyData, read_study_data
from utseg.study.findings.images import clouds, correlations, feature_differences, read_image_table
from utseg.study.findings.matrix import Matrix, matrices
from utseg.study.findings.runs import check_subjects
from utseg.study.findings.unseen import Loss, losses, losses_by_group, model_pairs
from utseg.study.findings.variants import ablations, learning_curve, seed_spreads
from utseg.study.record import DEFINITION_FILE, MEAN_LABEL, STUDY_FILE

TEMPLATE = "study.html"
MOST_ROWS = 24
OVER_ALL = "mean over labels"
NO_RUNS = "No run is finished yet: there are no scores to show."


@dataclass(frozen=True, kw_only=True)
class StudyPage(Shown):
    """Everything that the study's template shows. Sections without content are None or empty."""

    name: str
    counts: str
    study_link: str
    answers: Sequence[str]
    datasets: Table
    runs: Table
    by: str
    matrices: Sequence[Matrix] = ()
    gaps: Sequence[Table] = ()
    models: Sequence[Table] = ()
    ablations: Sequence[Section] = ()
    learning: Section | None = None
    chance: Section | None = None
    cost: Section | None = None
    clouds: Charts | None = None
    tested_on: Sequence[str] = ()
    look: Sequence[Table] = ()
    details: Sequence[Table] = ()
    texts = matrix_texts  # the template's words for the cells of a matrix

    @property
    def plural(self) -> str:
        """The groups' column, in the plural."""
        return plural(self.by)

    def choices(self, what: str) -> dict[str, str]:
        """The metrics, or labels, that a matrix can be chosen by: value and name."""
        if what == "metric":
            return {matrix.metric: METRIC[matrix.metric].title for matrix in self.matrices}
        return {m.label: OVER_ALL if m.label == MEAN_LABEL else m.label for m in self.matrices}

    def tables(self) -> list[Table]:
        """Every table of the page, in its order."""
        sections = [*self.ablations, self.learning, self.chance, self.cost]
        return [
            *([matrix_table(self.matrices[0], self.by)] if self.matrices else []),
            *self.gaps,
            *self.models,
            *(section.table for section in sections if section),
            *self.look,
            *([self.cases] if self.cases else []),
            *self.details,
            *(self.datasets, self.runs),
            *([self.settings] if self.settings else []),
            self.provenance,
        ]


def write_study_report(
    folder: Path,
    output: Path,
    *,
    home: Home | None = None,
    pictures: bool = True,
    command: str = "",
    executor: Executor | None = None,
    workers: int | None = None,
) -> Report:
    """Reports the study in `folder` (`study.json`, `cases.csv`, and `images.csv` where it is there) into `output` (`….html`).

    Its tables lie beside it in `…_tables/`. Raises InputError or CaseErrors where the study is damaged, or a run was tested on whom it
    was trained on; missing images or runs are no error, the report says what is missing.
    """
    if output.suffix != SUFFIX or output.is_dir():
        raise InputError(f"{output}: expected a file to write whose name ends in {SUFFIX}")
    require_writable(output.absolute().parent)
    data = read_study_data(folder)
    check_subjects(data)
    command = command or shlex.join(["utseg_report", str(folder), "-o", str(output)])
    page = _with_scores(_page(data, output, command), data)
    if data.runs:
        page = _with_cases(page, data, pictures, home or Home.locate(), executor, workers)
    write_text(output, render(page, TEMPLATE))
    tables = output.with_name(output.stem + TABLES)
    export_tables(page.tables(), tables)
    return Report(output, tables, len(data.cases), len(page.stacks), tuple(page.notices))


def _page(data: StudyData, output: Path, command: str) -> StudyPage:
    """What is there without any score."""
    record = data.record
    return StudyPage(
        title=record.question or record.name,
        name=record.name,
        made=made_now(),
        counts=counts(data),
        study_link=_link(data.folder / STUDY_FILE, output),
        entries=(),
        columns=(),
        notices=[*run_notices(data), *([] if data.runs else [NO_RUNS])],
        answers=(),
        datasets=dataset_table(data),
        runs=runs_table(data),
        by=record.by,
        settings=definition_table(data),
        provenance=provenance_table(data, [*made_now(), ("command", command)]),
        commands=[
            shlex.join(["utseg_study", str(data.folder / DEFINITION_FILE), "-o", str(data.folder)]),
            command,
        ],
    )


def _link(path: Path, output: Path) -> str:
    """A link from the report to a file, relative where that is below the same folder."""
    here = output.absolute().parent
    path = path.absolute()
    return quote(path.relative_to(here).as_posix()) if path.is_relative_to(here) else path.as_uri()


def _with_scores(page: StudyPage, data: StudyData) -> StudyPage:
    """The page with all tables and charts of scores, and the answers that stand on top."""
    if not data.runs:
        return page
    every = matrices(data)
    found = [losses(data, metric) for metric in data.metrics[:2]]
    pairs = [model_pairs(data, metric) for metric in data.metrics[:2]]
    parts = [ablation_section(data, ablation) for ablation in ablations(data)]
    steps, spreads = learning_curve(data), seed_spreads(data)
    page = replace(
        page,
        matrices=every,
        gaps=_loss_tables(data, found),
        models=[pair_table(data, some) for some in pairs if some],
        ablations=parts,
        learning=learning_section(data, steps) if steps else None,
        chance=chance_section(spreads) if spreads else None,
        cost=cost_section(data),
        details=[scores_table(data, every)],
    )
    sections = [*parts, page.chance] if page.chance else parts
    answers = [*loss_sentences(data, found[0]), *pair_sentences(data, pairs[0])]
    answers += [line for section in sections for line in section.sentences]
    return _with_images(replace(page, answers=answers), data)


def _loss_tables(data: StudyData, found: Sequence[Sequence[Loss]]) -> list[Table]:
    """The first two are in sight, others are folded: of a long table first its rows of the mean over labels."""
    tables = [loss_table(data, some) for some in found if some]
    if not tables:
        return []
    first, *others = tables
    if len(first.rows) > MOST_ROWS:
        short = [row for row in first.rows if row[2] == MEAN_LABEL]
        note = first.note + " Corrected over the table with every label, which is folded below."
        others = [replace(first, title=f"{first.title}, by label"), *others]
        first = replace(first, rows=short, note=note)
    by_group = losses_by_group(data)
    return [first, *([loss_by_group_table(data, by_group)] if by_group else []), *others]


def _with_images(page: StudyPage, data: StudyData) -> StudyPage:
    """The page with what the images are like, where they were measured."""
    images = read_image_table(data.folder)
    if images is None:
        return page
    found = clouds(data, images)
    related = [one for cloud in found for one in correlations(cloud)]
    groups, differing = feature_differences(images, data.record.by) if data.record.by else ({}, [])
    return replace(
        page,
        clouds=cloud_charts(found, data.tested_on) if found else None,
        tested_on=data.tested_on,
        look=[
            *([correlation_table(related)] if related else []),
            *([feature_table(data.record.by, groups, differing)] if groups else []),
        ],
        answers=[*page.answers, *correlation_sentence(related)],
    )


def _with_cases(
    page: StudyPage,
    data: StudyData,
    pictures: bool,
    home: Home,
    executor: Executor | None,
    workers: int | None,
) -> StudyPage:
    """The page with all cases, and the pictures of some."""
    entries, lines = picture_entries(data)
    if not entries:
        return replace(page, notices=[*page.notices, *lines])
    columns = group_columns([row for entry in entries for row in entry.rows])
    order = worst_first(entries)
    page = replace(
        page,
        entries=entries,
        columns=columns,
        notices=[*page.notices, *lines],
        order=order,
        cases=case_table(entries, columns, order),
        lacking="no such run",
    )
    if not pictures:
        return page
    column = data.record.by if data.record.by in columns else ""
    return with_pictures(
        page,
        column,
        home=home,
        which=FIGURES_SHOWN,
        most=STACKS_SHOWN,
        executor=executor,
        workers=workers,
    )
