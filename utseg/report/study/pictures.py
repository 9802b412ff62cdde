"""Whose masks the pictures of a study show: for each model those of a run that saw the case's vendor, and of one that did not.

Of each case the first such run. What the figures and the viewer then do is that of every report.
"""

from dataclasses import replace
from pathlib import Path

from utseg.evaluate.metrics import Row
from utseg.evaluate.records import METRICS_FILE
from utseg.report.entries import Entry, Scores, read_scores
from utseg.study.findings.data import StudyData
from utseg.study.record import SEEN, UNSEEN

TEST_FOLDER = "test"
MODELS_SHOWN = 4
FIGURES_SHOWN = ("median", "worst")
STACKS_SHOWN = 60


def picture_entries(data: StudyData) -> tuple[list[Entry], list[str]]:
    """Entries for pictures and the table of cases, and lines on what is left out."""
    twice = _ids_in_several_datasets(data)
    read: dict[tuple[str, str], Scores | None] = {}
    entries = []
    for model in data.models:
        for saw in (1, 0, -1):
            chosen = _chosen(data, model, saw)
            scores = tuple(
                own
                for (run_id, dataset), cases in chosen.items()
                if (own := _scores(data, run_id, dataset, cases, twice, read)) is not None
            )
            if scores:
                word = {1: f", {SEEN}", 0: f", {UNSEEN}", -1: ""}[saw]
                entries.append(Entry(f"{model}{word}", scores, (), data.folder))
    found = _fewer(entries)
    lines = []
    if missing := sum(own is None for own in read.values()):
        lines.append(f"Pictures: the scores of {missing} runs are not in their folders any more.")
    if len(found) < len(entries):
        names = ", ".join(entry.name for entry in found)
        lines.append(f"Pictures and the table of cases show {len(found)} of {len(entries)}: {names}.")
    return found, lines


def _fewer(entries: list[Entry]) -> list[Entry]:
    """At most MODELS_SHOWN: with many models only what they did where they were not trained."""
    if len(entries) <= MODELS_SHOWN:
        return entries
    unseen = [entry for entry in entries if entry.name.endswith(f", {UNSEEN}")]
    return (unseen or entries)[:MODELS_SHOWN]


def _chosen(data: StudyData, model: str, saw: int) -> dict[tuple[str, str], set[str]]:
    """By run and dataset the cases whose masks are shown: of each case the first run of the model that did (not) see its group."""
    chosen: dict[tuple[str, str], set[str]] = {}
    rows = [place for place, run in enumerate(data.runs) if data.model_of(run) == model]
    for place, case in enumerate(data.cases):
        first = next((r for r in rows if data.tested[r, place] and data.saw[r, place] == saw), None)
        if first is not None:
            chosen.setdefault((data.runs[first].id, case.dataset), set()).add(case.case)
    return chosen


def _scores(
    data: StudyData,
    run_id: str,
    dataset: str,
    cases: set[str],
    twice: set[str],
    read: dict[tuple[str, str], Scores | None],
) -> Scores | None:
    """The scores folder of a run and dataset with these cases only, under names that differ between datasets."""
    run = next(run for run in data.runs if run.id == run_id)
    folder = Path(run.folder) / TEST_FOLDER / dataset
    if (run_id, dataset) not in read:
        read[run_id, dataset] = read_scores(folder) if (folder / METRICS_FILE).is_file() else None
    whole = read[run_id, dataset]
    if whole is None:
        return None

    def named(case: str) -> str:
        return f"{dataset}: {case}" if case in twice else case

    rows: list[Row] = [row | {"case": named(row["case"])} for row in whole.rows if row["case"] in cases]
    sources = whole.sources
    if sources is not None:
        own = {named(case): source for case, source in sources.cases.items()}
        sources = sources.model_copy(update={"cases": own})
    return replace(whole, rows=rows, sources=sources) if rows else None


def _ids_in_several_datasets(data: StudyData) -> set[str]:
    datasets: dict[str, set[str]] = {}
    for case in data.cases:
        datasets.setdefault(case.case, set()).add(case.dataset)
    return {case for case, own in datasets.items() if len(own) > 1}
