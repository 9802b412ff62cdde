"""What a study ran: its datasets, its runs with what they cost, the proof that nobody was trained on and tested, and where it all lies.

The proof is made again here, from the lists in `study.json` and the scores themselves.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utseg.errors import CaseErrors
from utseg.evaluate.subjects import statistics
from utseg.evaluate.tables import NOTHING, Table, duration_text, mean_of, number
from utseg.files import sha256
from utseg.report.scores.provenance import leaves, text
from utseg.report.scores.score_charts import Charts
from utseg.report.study.charts import Point, points_chart
from utseg.report.study.compare import mean_text
from utseg.report.study.gap import plural
from utseg.report.study.parts import capacity
from utseg.study.findings.data import FINISHED, Side, StudyData
from utseg.study.record import CASES_FILE, DEFINITION_FILE, IMAGES_FILE, RESULTS_FILE, STUDY_FILE, StudyRun

CHECKED = "disjoint, checked"
NAMES_SHOWN = 16
FILES = (DEFINITION_FILE, STUDY_FILE, CASES_FILE, RESULTS_FILE, IMAGES_FILE)


def check_subjects(data: StudyData) -> None:
    """Raises CaseErrors with a line for each run that was tested, or scored, on whom it was trained or validated on."""
    problems = []
    for run in data.record.runs:
        training, validation = set(run.subjects.training), set(run.subjects.validation)
        tested = set(run.subjects.testing.get(run.dataset, ()))
        shared = (training & validation) | ((training | validation) & tested)
        if shared:
            problems.append(
                f"{data.folder / STUDY_FILE}: run {run.run!r}: subject {min(shared)} is in two of training, validation and testing; "
                "its scores say nothing about unseen scans"
            )
    for place, run in enumerate(data.runs):
        for case in (data.cases[c] for c in np.flatnonzero(data.tested[place])):
            if case.subject not in run.subjects.testing.get(case.dataset, ()):
                problems.append(
                    f"{data.folder / CASES_FILE}: run {run.run!r}: case {case.case} of subject {case.subject} was scored, "
                    f"but {STUDY_FILE} does not name this subject for testing; run utseg_study again"
                )
                break
    if problems:
        raise CaseErrors(problems)


def every_run(data: StudyData) -> list[StudyRun]:
    """Each run once, under its first name."""
    runs: dict[str, StudyRun] = {}
    for run in data.record.runs:
        runs.setdefault(run.id, run)
    return list(runs.values())


def dataset_table(data: StudyData) -> Table:
    """What was trained and tested on."""
    rows = []
    for name, dataset in data.record.datasets.items():
        own = [place for place, case in enumerate(data.cases) if case.dataset == name]
        subjects = len(np.unique(data.subjects[own]))
        tested = f"{subjects} subjects, {len(own)} cases" if own else NOTHING
        rows.append([name, " and ".join(dataset.role), str(dataset.subjects), str(dataset.cases), tested])
    return Table("Datasets", ["dataset", "to", "labelled subjects", "labelled cases", "scored"], rows)


def runs_table(data: StudyData) -> Table:
    """Every run once: state, cost, counts of subjects, and that these were checked."""
    tested = list(dict.fromkeys(name for run in data.record.runs for name in run.subjects.testing))
    columns = ["run", "state", "training", "testing", "iterations", "memory GB", "train on", "validate on"]
    columns += [f"test on {name}" for name in tested] + ["subjects", "note"]
    rows = [
        [
            run.run,
            run.state,
            duration_text(run.training_seconds),
            duration_text(run.testing_seconds),
            NOTHING if run.iterations is None else f"{run.iterations:,}",
            number(run.peak_memory_gb, 1),
            str(len(run.subjects.training)),
            str(len(run.subjects.validation)),
            *(str(len(run.subjects.testing.get(name, ()))) for name in tested),
            CHECKED,
            run.error or "",
        ]
        for run in every_run(data)
    ]
    note = (
        "Subjects: how many train, validate (they choose nothing) and are tested. Checked: no subject of a dataset is in two of them, "
        f"and every score is of a subject named for testing; the lists by name are in {STUDY_FILE}. Memory: peak of the run's process."
    )
    return Table("Runs", columns, rows, note)


def run_notices(data: StudyData) -> list[str]:
    """A line for each run that failed, and one for those that wait."""
    runs = every_run(data)
    lines = [
        f"Failed: {run.run}: {run.error or 'no reason was recorded'}" for run in runs if run.state == "failed"
    ]
    waiting = sum(run.state == "waiting" for run in runs)
    if waiting:
        were = "run has" if waiting == 1 else "runs have"
        lines.append(f"{waiting} of {len(runs)} {were} not finished yet: run the study again to go on.")
    return lines


def main_side(data: StudyData) -> tuple[Side, str]:
    """What one number of a model is taken over: unseen groups, else everything that was tested; and its name."""
    unseen = data.side(saw=False)
    if unseen.any() and data.record.by:
        return unseen, f"unseen {plural(data.record.by)}"
    return data.side(), "all test cases"


def cost_table(data: StudyData) -> tuple[Table, Charts | None]:
    """Each model's score beside parameters, GMAC and time, and charts of them where there are two models or more."""
    side, what = main_side(data)
    rows = []
    points: dict[str, list[Point]] = {"parameters, millions": [], "GMAC": [], "training, minutes": []}
    runs_by_model = [data.runs_of(model) for model in data.models]
    sides = [side & data.side([run for run in data.shared_runs if run in runs]) for runs in runs_by_model]
    beside = sides if data.averaged(sides).subject_count else []
    for place, (model, runs, own) in enumerate(zip(data.models, runs_by_model, sides, strict=True)):
        dice, subjects = mean_text(data, own, beside=beside)
        rows.append([model, *capacity(runs[0]), *_costs(data, runs), str(subjects), dice])
        found = data.averaged([own, *beside])
        stats = statistics(found.values[0], found.subjects)
        seconds = mean_of(run.training_seconds for run in runs)
        first = runs[0]
        values = (
            first.parameters and first.parameters / 1e6,
            first.gmac,
            seconds and seconds / 60,
        )
        for unit, x in zip(points, values, strict=True):
            if x and stats["mean"] is not None:
                name = model if len(data.models) <= NAMES_SHOWN else ""
                title = f"{model}: {stats['mean']:.3f}, {x:.4g} {unit}"
                points[unit].append(Point(x, stats["mean"], place, title, name, stats["interval95"]))
    columns = [
        "model",
        "parameters M",
        "GMAC",
        "training",
        "s a test case",
        "memory GB",
        "subjects",
        f"Dice, {what}",
    ]
    note = (
        f"Dice: mean over labels and subjects, {what}, with bootstrap 95 % intervals"
        f"{'; of the same cases for all models' if beside else ''}. GMAC: 10⁹ multiply–adds for one "
        "patch. Times: means over runs, on the machine that ran them."
        + (
            " Scores: of the training sets, seeds and folds that all models have."
            if len(data.shared_runs) < len(data.runs)
            else ""
        )
    )
    charts = [
        points_chart(
            f"Dice over {unit.split(',')[0]}",
            (f"{unit} (logarithmic)", f"mean Dice, {what}"),
            own,
            logarithmic=True,
        )
        for unit, own in points.items()
        if len(own) > 1
    ]
    caption = f"Mean Dice on {what}, with 95 % intervals over subjects"
    return Table("Score and cost", columns, rows, note), Charts(caption, charts) if charts else None


def _costs(data: StudyData, runs: Sequence[StudyRun]) -> list[str]:
    """Training time, seconds for a test case, and memory: means over runs."""
    testing = [run.testing_seconds for run in runs if run.testing_seconds is not None]
    cases = int(data.side(runs).sum())
    return [
        duration_text(mean_of(run.training_seconds for run in runs)),
        number(sum(testing) / cases, 1) if testing and cases else NOTHING,
        number(mean_of(run.peak_memory_gb for run in runs), 1),
    ]


def definition_table(data: StudyData) -> Table:
    """The study's file, value by value."""
    rows: list[list[str]] = []
    tree = {key: value for key, value in data.record.definition.items() if key != "variants"}
    rows += [["study", key, text(value)] for key, value in leaves(tree)]
    for number_, variant in enumerate(data.record.definition.get("variants") or (), start=1):
        rows += [[f"variant {number_}", key, text(value)] for key, value in leaves(variant)]
    return Table("The study's file", ["of", "key", "value"], rows)


def provenance_table(data: StudyData, made: Sequence[tuple[str, str]]) -> Table:
    """How this report was made, the study's files with checksums, where data and runs are."""
    rows = [["this report", what, value] for what, value in made]
    for name in FILES:
        path: Path = data.folder / name
        if path.is_file():
            rows.append(["study", f"{name} (SHA-256)", sha256(path)])
    rows += [["dataset", name, dataset.folder] for name, dataset in data.record.datasets.items()]
    rows += [["run", run.run, run.folder] for run in every_run(data)]
    return Table("Provenance", ["of", "what", "value"], rows)


def counts(data: StudyData) -> str:
    """Runs, models, subjects and cases, in words."""
    runs = every_run(data)
    done = sum(run.state == FINISHED for run in runs)
    words = [f"{done} of {len(runs)} runs finished"]
    if data.cases:
        words.append(f"{len(np.unique(data.subjects))} test subjects, {len(data.cases)} cases")
    return " · ".join(words)
