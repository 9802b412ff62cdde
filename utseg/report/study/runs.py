"""What a study ran: its datasets, its runs with what they cost, and where it all lies."""

from collections.abc import Mapping, Sequence

import numpy as np

from utseg.evaluate.tables import NOTHING, Table, duration_text, number
from utseg.figures.charts import Point, points_chart
from utseg.files import sha256
from utseg.report.page import Charts
from utseg.report.scores.provenance import leaves, text
from utseg.report.study.differences import Finding, capacity
from utseg.report.study.words import mean_cell, plural
from utseg.study.findings.data import StudyData, each_run
from utseg.study.findings.runs import ModelCost, costs, on_unseen
from utseg.study.record import CASES_FILE, DEFINITION_FILE, IMAGES_FILE, RESULTS_FILE, STUDY_FILE

CHECKED = "disjoint, checked"
NAMES_SHOWN = 16
FILES = (DEFINITION_FILE, STUDY_FILE, CASES_FILE, RESULTS_FILE, IMAGES_FILE)


def dataset_table(data: StudyData) -> Table:
    """What was trained and tested on."""
    rows = []
    for name, dataset in data.record.datasets.items():
        subjects = [case.subject for case in data.cases if case.dataset == name]
        tested = f"{len(set(subjects))} subjects, {len(subjects)} cases" if subjects else NOTHING
        rows.append([name, " and ".join(dataset.role), str(dataset.subjects), str(dataset.cases), tested])
    return Table("Datasets", ["dataset", "to", "labelled subjects", "labelled cases", "scored"], rows)


def runs_table(data: StudyData) -> Table:
    """Every run once: state, cost, counts of subjects, and that these were checked."""
    tested = list(dict.fromkeys(name for run in data.record.runs for name in run.subjects.testing))
    columns = ["run", "state", "training", "testing", "iterations", "memory GB", "train on", "validate on"]
    columns += [f"test on {name}" for name in tested] + ["subjects", "note"]
    rows = []
    for run in each_run(data.record):
        times = duration_text(run.training_seconds), duration_text(run.testing_seconds)
        iterations = NOTHING if run.iterations is None else f"{run.iterations:,}"
        subjects = run.subjects
        groups = [
            subjects.training,
            subjects.validation,
            *(subjects.testing.get(name, ()) for name in tested),
        ]
        sizes = [str(len(group)) for group in groups]
        cost = [*times, iterations, number(run.peak_memory_gb, 1)]
        rows.append([run.run, run.state, *cost, *sizes, CHECKED, run.error or ""])
    note = (
        "Subjects: how many train, validate (they choose nothing) and are tested. Checked: no subject of a dataset is in two of them, "
        f"and every score is of a subject named for testing; the lists by name are in {STUDY_FILE}. "
        "Memory: peak of the run's GPU, on a CPU of its process."
    )
    return Table("Runs", columns, rows, note)


def run_notices(data: StudyData) -> list[str]:
    """A line for each run that failed, and one for those that wait."""
    runs = each_run(data.record)
    lines = [
        f"Failed: {run.run}: {run.error or 'no reason was recorded'}" for run in runs if run.state == "failed"
    ]
    if waiting := sum(run.state == "waiting" for run in runs):
        were = "run has" if waiting == 1 else "runs have"
        lines.append(f"{waiting} of {len(runs)} {were} not finished yet: run the study again to go on.")
    return lines


def cost_finding(data: StudyData) -> Finding:
    """Each model's score beside parameters, GMAC and time, and charts of them where there are two models or more."""
    found, same = costs(data)
    what = f"unseen {plural(data.record.by)}" if on_unseen(data) else "all test cases"
    columns = ["model", "parameters M", "GMAC", "training", "s a test case", "memory GB", "subjects"]
    rows = []
    for cost in found:
        times = duration_text(cost.training_seconds), number(cost.seconds_a_case, 1)
        dice = str(cost.dice["n"]), mean_cell(cost.dice)
        rows.append([cost.model, *capacity(cost.run), *times, number(cost.memory_gb, 1), *dice])
    note = (
        f"Dice: mean over labels and subjects, {what}, with bootstrap 95 % intervals"
        f"{'; of the same cases for all models' if same else ''}. GMAC: 10⁹ multiply–adds for one "
        "patch. Times: means over runs, on the machine that ran them."
    )
    if len(data.shared_runs) < len(data.runs):
        note += " Scores: of the training sets, seeds and folds that all models have."
    table = Table("Score and cost", [*columns, f"Dice, {what}"], rows, note)
    charts = []
    for unit, points in _cost_points(found).items():
        units = f"{unit} (logarithmic)", f"mean Dice, {what}"
        if len(points) > 1:
            charts.append(points_chart(f"Dice over {unit.split(',')[0]}", units, points, logarithmic=True))
    caption = f"Mean Dice on {what}, with 95 % intervals over subjects"
    return Finding(table, Charts(caption, charts) if charts else None)


def _cost_points(costs_: Sequence[ModelCost]) -> dict[str, list[Point]]:
    points: dict[str, list[Point]] = {"parameters, millions": [], "GMAC": [], "training, minutes": []}
    for colour, cost in enumerate(costs_):
        values = (cost.run.parameters or 0) / 1e6, cost.run.gmac, (cost.training_seconds or 0) / 60
        for unit, x in zip(points, values, strict=True):
            if x and cost.dice["mean"] is not None:
                name = cost.model if len(costs_) <= NAMES_SHOWN else ""
                title = f"{cost.model}: {cost.dice['mean']:.3f}, {x:.4g} {unit}"
                points[unit].append(Point(x, cost.dice["mean"], colour, title, name, cost.dice["interval95"]))
    return points


def definition_table(data: StudyData) -> Table:
    """The study's file, value by value."""
    tree = {key: value for key, value in data.record.definition.items() if key != "variants"}
    rows = [["study", key, text(value)] for key, value in leaves(tree)]
    for number_, variant in enumerate(data.record.definition.get("variants") or (), start=1):
        rows += [[f"variant {number_}", key, text(value)] for key, value in leaves(variant)]
    return Table("The study's file", ["of", "key", "value"], rows)


def provenance_table(data: StudyData, made: Mapping[str, str]) -> Table:
    """How this report was made, the study's files with checksums, where data and runs are."""
    rows = [["this report", what, value] for what, value in made.items()]
    paths = [data.folder / name for name in FILES]
    rows += [["study", f"{path.name} (SHA-256)", sha256(path)] for path in paths if path.is_file()]
    rows += [["dataset", name, dataset.folder] for name, dataset in data.record.datasets.items()]
    rows += [["run", run.run, run.folder] for run in each_run(data.record)]
    return Table("Provenance", ["of", "what", "value"], rows)


def counts(data: StudyData) -> str:
    """Runs, models, subjects and cases, in words."""
    runs = each_run(data.record)
    words = [f"{sum(run.state == 'finished' for run in runs)} of {len(runs)} runs finished"]
    if data.cases:
        words.append(f"{len(np.unique(data.subjects))} test subjects, {len(data.cases)} cases")
    return " · ".join(words)
