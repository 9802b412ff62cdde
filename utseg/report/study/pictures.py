"""Whose masks the pictures of a study show: for each model those of a run that saw the case's vendor, and of one that did not.

Of each case the first such run. What the figures and the viewer then do is that of every report.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

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
    names = _names(data)
    read = cache(read_scores)
    missing: set[Path] = set()
    entries: list[Entry] = []
    for model in data.models:
        for saw, word in ((1, f", {SEEN}"), (0, f", {UNSEEN}"), (-1, "")):
            scores = []
            for folder, cases in _chosen(data, model, saw).items():
                if not (folder / METRICS_FILE).is_file():
                    missing.add(folder)
                else:
                    scores.append(_renamed(read(folder), {case: names[folder.name, case] for case in cases}))
            if any(some.rows for some in scores):
                entries.append(Entry(f"{model}{word}", tuple(some for some in scores if some.rows)))
    shown = entries
    if len(entries) > MODELS_SHOWN:  # with many models only what they did where they were not trained
        unseen = [entry for entry in entries if entry.name.endswith(f", {UNSEEN}")]
        shown = (unseen or entries)[:MODELS_SHOWN]
    lines = []
    if missing:
        lines.append(f"Pictures: the scores of {len(missing)} runs are not in their folders any more.")
    if len(shown) < len(entries):
        listed = ", ".join(entry.name for entry in shown)
        lines.append(f"Pictures and the table of cases show {len(shown)} of {len(entries)}: {listed}.")
    return shown, lines


def _chosen(data: StudyData, model: str, saw: int) -> dict[Path, list[str]]:
    """By folder of scores the cases whose masks are shown: of each case the first run of the model that did (not) see its group."""
    chosen: dict[Path, list[str]] = {}
    runs = [index for index, run in enumerate(data.runs) if data.model_of(run) == model]
    for column, case in enumerate(data.cases):
        fitting = np.flatnonzero(data.tested[runs, column] & (data.saw[runs, column] == saw))
        if len(fitting):
            folder = Path(data.runs[runs[fitting[0]]].folder) / TEST_FOLDER / case.dataset
            chosen.setdefault(folder, []).append(case.case)
    return chosen


def _renamed(scores: Scores, names: Mapping[str, str]) -> Scores:
    """The scores of these cases only, under their names on the page."""
    rows: list[Row] = [row | {"case": names[row["case"]]} for row in scores.rows if row["case"] in names]
    sources = scores.sources
    if sources is not None:
        of_cases = {name: sources.cases[case] for case, name in names.items() if case in sources.cases}
        sources = sources.model_copy(update={"cases": of_cases})
    return replace(scores, rows=rows, sources=sources)


def _names(data: StudyData) -> dict[tuple[str, str], str]:
    """Names of cases (dataset, case) that differ between datasets."""
    known = {(case.dataset, case.case) for case in data.cases}
    times = Counter(case for _, case in known)
    return {(dataset, case): f"{dataset}: {case}" if times[case] > 1 else case for dataset, case in known}
