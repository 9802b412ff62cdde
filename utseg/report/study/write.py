"""`write_study_report`: from a study's folder to one HTML file and a folder of tables.

Reads what the study wrote, compares, draws, and says what stands where. Nothing is trained, predicted or scored here; that no test
subject took part in training is checked before anything is shown.
"""

import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from utseg.home import Home
from utseg.report.cases import ShownCases, show_cases, with_pictures
from utseg.report.entries import group_columns
from utseg.report.page import (
    AnyBlock,
    Block,
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
from utseg.report.study import differences, runs
from utseg.report.study.images import cloud_charts, correlation_sentence, correlation_table, feature_table
from utseg.report.study.matrix import MatrixBlock, matrix_table, scores_table
from utseg.report.study.pictures import FIGURES_SHOWN, STACKS_SHOWN, picture_entries
from utseg.report.study.words import plural
from utseg.study.findings.data import StudyData, read_study_data
from utseg.study.findings.images import clouds, correlations, feature_differences, read_image_table
from utseg.study.findings.matrix import matrices
from utseg.study.findings.runs import check_subjects
from utseg.study.findings.unseen import Loss, losses, losses_by_group, model_pairs
from utseg.study.findings.variants import ablations, learning_curve, seed_spreads
from utseg.study.record import DEFINITION_FILE, MEAN_LABEL, STUDY_FILE

MOST_ROWS = 24
MOST_ROWS_IN_SIGHT = 12
NO_RUNS = "No run is finished yet: there are no scores to show."
ANSWER_NOTE = (
    "Mean Dice over labels. Intervals are over subjects, not cases; p after Holm's correction. A difference that chance explains is called "
    "a tie, which is no proof that there is none."
)
SINGLE_NOTE = (
    " Every model was trained once on each training set: what another seed would change is in no interval."
)
MATRIX_NOTE = (
    "Means over subjects; below them the bootstrap 95 % interval, and n, the number of subjects. Seeds and folds of a training set are "
    "averaged first.{} The stronger the shade, the better, on one scale for the whole table. ∅ missed/extra/neither: structures that only "
    "the reference has, only the prediction, or none of both; undefined scores are left out of the means."
)
FIGURES_NOTE = (
    "By the mean Dice over labels and models; below each prediction the Dice of the whole volume. {}The slice shown is the one whose own "
    "Dice is nearest to the volume's."
)
CHECKED = Markup(
    "Nobody was trained on and tested: checked for every run when this page was made; the lists of subjects are in "
    '<a href="{}">study.json</a>.'
)


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
    require_output(output)
    data = read_study_data(folder)
    check_subjects(data)
    made = made_now() | {"command": command or shlex.join(["utseg_report", str(folder), "-o", str(output)])}
    notices = [*runs.run_notices(data), *([] if data.runs else [NO_RUNS])]
    cases = None
    if data.runs:
        home = home or Home.locate()
        draw = partial(with_pictures, home=home, executor=executor, workers=workers) if pictures else None
        cases, lines = _cases(data, draw)
        notices += lines
    record = data.record
    again = shlex.join(["utseg_study", str(data.folder / DEFINITION_FILE), "-o", str(data.folder)])
    datasets = TableBlock(runs.dataset_table(data))
    checked = Block("text", CHECKED.format(_link(data.folder / STUDY_FILE, output)))
    about_runs: list[AnyBlock] = [
        checked,
        *([] if data.runs else [datasets]),
        TableBlock(runs.runs_table(data), titled=False),
    ]
    provenance = runs.provenance_table(data, made), runs.definition_table(data), [again, made["command"]]
    page = Page(
        kind="Study report",
        title=record.question or record.name,
        made=[record.name, runs.counts(data), *(f"{what} {made[what]}" for what in ("made", "by"))],
        notices=notices,
        sections=[
            *(_score_sections(data, cases, datasets) if data.runs else ()),
            Section("runs", "Runs and subjects", about_runs),
            provenance_section(*provenance),
        ],
        cases=cases,
    )
    return write_page(page, output, len(data.cases))


def _link(path: Path, output: Path) -> str:
    """A link from the report to a file, relative where that is below the same folder."""
    here = output.absolute().parent
    path = path.absolute()
    return quote(path.relative_to(here).as_posix()) if path.is_relative_to(here) else path.as_uri()


def _score_sections(data: StudyData, cases: ShownCases | None, datasets: TableBlock) -> list[Section]:
    """All that scores say: the answers on top, then what they stand on."""
    by = data.record.by
    every = matrices(data)
    found = [losses(data, metric) for metric in data.metrics[:2]]
    pairs = [model_pairs(data, metric) for metric in data.metrics[:2]]
    parts = [differences.ablation_finding(data, ablation) for ablation in ablations(data)]
    steps, spreads = learning_curve(data), seed_spreads(data)
    learning = [differences.learning_finding(data, steps)] if steps else []
    chance = [differences.chance_finding(spreads)] if spreads else []
    images, about_images = _images(data)
    sentences = [line for finding in (*parts, *chance) for line in finding.sentences]
    answers = [
        *differences.loss_sentences(data, found[0]),
        *differences.pair_sentences(data, pairs[0]),
        *sentences,
        *about_images,
    ]
    said = ANSWER_NOTE + ("" if chance else SINGLE_NOTE)
    answer = [Block("answers", answers), note(said)] if answers else []
    matrix_note = note(MATRIX_NOTE.format(f" Framed: the {by} was trained on." if by else ""))
    matrix = MatrixBlock(matrix_table(every[0], by), matrices=every)
    seen = f"Seen, unseen: the mask of the first run that was, or was not, trained on the case's {by}. "
    compared = [differences.pair_table(data, some) for some in pairs if some]
    short = [table for table in compared[:1] if len(table.rows) <= MOST_ROWS_IN_SIGHT]
    models = [*map(TableBlock, short), *folded(compared[len(short) :])]
    pictured = "A median and the worst case" + (f" of each {by}" if by else "")
    return [
        Section("answer", "The answer", [*answer, datasets]),
        Section("matrix", "Trained on, tested on", [matrix, matrix_note]),
        Section("loss", f"What is lost on unseen {plural(by)}", _loss_blocks(data, found), "Loss"),
        Section("models", "Which model is better", models, "Models"),
        Section("ablation", "What each part is worth", _blocks(parts, titled=False, headed=True), "Ablation"),
        Section("learning", "How many subjects are needed", _blocks(learning), "Learning curve"),
        Section("chance", "How much is chance", _blocks(chance), "Chance"),
        Section("cost", "Score and cost", _blocks([runs.cost_finding(data)], titled=False), "Cost"),
        images,
        figures_section(cases, pictured, FIGURES_NOTE.format(seen if by else "")),
        cases_section(cases),
        Section("details", "Details", folded([scores_table(data, every)])),
    ]


def _blocks(
    findings: Sequence[differences.Finding], *, titled: bool = True, headed: bool = False
) -> list[AnyBlock]:
    blocks: list[AnyBlock] = []
    for finding in findings:
        blocks += [Block("heading", finding.table.title)] if headed else []
        blocks += [finding.charts] if finding.charts else []
        blocks.append(TableBlock(finding.table, titled=titled))
    return blocks


def _loss_blocks(data: StudyData, found: Sequence[Sequence[Loss]]) -> list[TableBlock]:
    """The first two are in sight, others are folded: of a long table first its rows of the mean over labels."""
    tables = [differences.loss_table(data, some) for some in found if some]
    if not tables:
        return []
    first, *others = tables
    if len(first.rows) > MOST_ROWS:
        short = [row for row in first.rows if row[2] == MEAN_LABEL]
        corrected = first.note + " Corrected over the table with every label, which is folded below."
        others = [replace(first, title=f"{first.title}, by label"), *others]
        first = replace(first, rows=short, note=corrected)
    by_group = losses_by_group(data)
    groups = [TableBlock(differences.loss_by_group_table(data, by_group))] if by_group else []
    return [TableBlock(first), *groups, *folded(others)]


def _images(data: StudyData) -> tuple[Section, list[str]]:
    """What the images are like, where they were measured, and a sentence about it."""
    blocks: list[AnyBlock] = []
    related = []
    if (images := read_image_table(data.folder)) is not None:
        found, by = clouds(data, images), data.record.by
        related = [one for cloud in found for one in correlations(cloud)]
        groups, differing = feature_differences(images, by) if by else ({}, [])
        if found:
            legend = models_legend([name.replace("=", " ") for name in data.tested_on])
            blocks = [*legend, cloud_charts(found, data.tested_on)]
        tables = [correlation_table(related)] if related else []
        tables += [feature_table(by, groups, differing)] if groups else []
        long = [len(table.rows) > MOST_ROWS_IN_SIGHT for table in tables]
        blocks += [
            TableBlock(table, "closed" if fold else "") for table, fold in zip(tables, long, strict=True)
        ]
    section = Section("images", "Do different images explain it?", blocks, "Images")
    return section, correlation_sentence(related)


def _cases(data: StudyData, draw: Callable[..., ShownCases] | None) -> tuple[ShownCases | None, list[str]]:
    """All cases, and the pictures of some where they are drawn; lines about what is left out."""
    entries, lines = picture_entries(data)
    if not entries:
        return None, lines
    columns = group_columns([row for entry in entries for row in entry.rows])
    cases = show_cases(entries, columns, lacking="no such run")
    if draw:
        column = data.record.by if data.record.by in columns else ""
        cases = draw(cases, column, which=FIGURES_SHOWN, most=STACKS_SHOWN)
    return cases, [*lines, *cases.notices]
