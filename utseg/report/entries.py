"""Finds out what the paths of `utseg_report` hold: scores folders, training runs, or folders above several, as one `Entry` for each model.

Folds of one model, scored on different cases, are one entry: a cross-validation. No image is read here, nothing is drawn.
"""

import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from utseg.errors import CaseErrors, InputError, UtsegError
from utseg.evaluate.metrics import Row
from utseg.evaluate.records import METRICS_FILE, group_columns_of, read_metrics
from utseg.evaluate.sources import SOURCES_FILE, Sources, read_sources
from utseg.evaluate.summary import by_value
from utseg.files import read_json, sha256
from utseg.home import Home, is_fold
from utseg.predict.record import PREDICTION_FILE, PredictionRecord
from utseg.settings import read_model
from utseg.training.record import RUN_FILE, SUMMARY_FILE, VALIDATION_FOLDER, WEIGHTS_FILE, RunRecord, read_run

logger = logging.getLogger("utseg")
HISTORY_FILE = "training.jsonl"
SKIPPED = ("slices",)
GENERIC_NAME = "scores"
EXPECTED = f"a scores folder ({METRICS_FILE}), a run ({RUN_FILE}), or a folder above some"


@dataclass(frozen=True)
class Run:
    """One training: its folder, its record, and the epochs of `training.jsonl` so far."""

    folder: Path
    record: RunRecord
    epochs: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Scores:
    """One scores folder. What it does not hold is None: where masks were scored, and what made them."""

    folder: Path
    rows: list[Row]
    summary: dict[str, Any]
    sources: Sources | None
    prediction: PredictionRecord | None
    prediction_folder: Path | None
    metrics_sha256: str


@dataclass(frozen=True)
class Entry:
    """A model as the report shows it. `scores` may be empty: a run that is not validated yet."""

    name: str
    scores: tuple[Scores, ...] = ()
    runs: tuple[Run, ...] = ()
    folder: Path = Path()

    @cached_property
    def rows(self) -> list[Row]:
        """The rows of all its scores folders, with the columns that all of these have."""
        heads = [scores.rows[0] for scores in self.scores if scores.rows]
        shared = [column for column in heads[0] if all(column in head for head in heads)] if heads else []
        return [{column: row[column] for column in shared} for scores in self.scores for row in scores.rows]

    @property
    def cases(self) -> set[str]:
        """The cases that were scored."""
        return {str(row["case"]) for scores in self.scores for row in scores.rows}


def find_entries(paths: Sequence[Path], home: Home) -> list[Entry]:
    """The models below these paths, under names that tell them apart.

    Trained models that a `prediction.json` names are looked up in the home's results, by name and checksum. Raises CaseErrors with a line
    for each path that holds nothing to report, or holds a damaged file.
    """
    problems: list[str] = []
    found: dict[Path, Entry] = {}
    for path in paths:
        entries, of_path = _below(path, home)
        problems += of_path
        for entry in entries:
            found.setdefault(entry.folder.resolve(), entry)
    if problems:
        raise CaseErrors(problems)
    return _named(_folds_together(found.values()))


def on_shared_cases(entries: Sequence[Entry]) -> list[Entry]:
    """The entries with the rows of those cases that all have; as they are where there are none."""
    shared = set.intersection(*(entry.cases for entry in entries)) if entries else set()
    if not shared:
        return list(entries)

    def only_shared(scores: Scores) -> Scores:
        return replace(scores, rows=[row for row in scores.rows if str(row["case"]) in shared])

    return [replace(entry, scores=tuple(map(only_shared, entry.scores))) for entry in entries]


def group_columns(rows: Sequence[Row]) -> tuple[str, ...]:
    """The group columns of a `metrics.csv` that tell its cases apart: at least two values, and no two columns that say the same."""
    columns = group_columns_of(rows[0]) if rows else ()
    found: dict[frozenset[frozenset[str]], str] = {}
    for column in sorted(columns, key=lambda name: (name != "vendor", name != "phase")):
        parts = by_value(rows, column)
        if len(parts) > 1:
            cases = frozenset(frozenset(str(row["case"]) for row in part) for part in parts.values())
            found.setdefault(cases, column)
    return tuple(found.values())


def _below(path: Path, home: Home) -> tuple[list[Entry], list[str]]:
    """The models at or below a path, and a line for each problem."""
    if not path.is_dir():
        what = "not a folder" if path.exists() else "not found"
        return [], [f"{path}: {what}; expected {EXPECTED}"]
    entries: list[Entry] = []
    problems: list[str] = []
    for folder, inner, files in os.walk(path):
        inner[:] = sorted(name for name in inner if not name.startswith(".") and name not in SKIPPED)
        if RUN_FILE not in files and METRICS_FILE not in files:
            continue
        inner.clear()
        try:
            entries.append(_entry(Path(folder), home))
        except UtsegError as error:
            problems += error.lines()
    if not entries and not problems:
        problems = [f"{path}: nothing to report; expected {EXPECTED}"]
    return entries, problems


def _entry(folder: Path, home: Home) -> Entry:
    """A run with the scores of its validation, or scores with the runs that made the masks."""
    if folder.name == VALIDATION_FOLDER and (folder.parent / RUN_FILE).is_file():
        folder = folder.parent
    if (folder / RUN_FILE).is_file():
        validation = folder / VALIDATION_FOLDER
        scored = all((validation / name).is_file() for name in (METRICS_FILE, SUMMARY_FILE))
        scores = (read_scores(validation),) if scored else ()
        return Entry("", scores, (read_one_run(folder),), folder)
    found = read_scores(folder)
    runs = []
    for use in found.prediction.models if found.prediction else ():
        run = home.results / use.name
        inside = run.resolve().is_relative_to(home.results.resolve())
        weights = run / WEIGHTS_FILE
        if inside and weights.is_file() and sha256(weights) == use.weights_sha256:
            runs.append(read_one_run(run))
    return Entry("", (found,), tuple(runs), folder)


def read_one_run(folder: Path) -> Run:
    """A run's record and history. Raises UtsegError naming the damaged file."""
    record, path = read_run(folder), folder / HISTORY_FILE
    if not path.is_file():
        return Run(folder, record, ())
    try:
        epochs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for epoch in epochs:
            epoch["epoch"] + epoch["loss"] + epoch["seconds"]
    except (OSError, UnicodeDecodeError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a {HISTORY_FILE}: {type(error).__name__} {error}") from None
    return Run(folder, record, tuple(epochs))


def read_scores(folder: Path) -> Scores:
    """All files of a scores folder that a report needs. Raises UtsegError naming the damaged file."""
    rows = read_metrics(folder / METRICS_FILE)
    if not rows:
        raise InputError(f"{folder / METRICS_FILE}: no case is in it; score again with utseg_evaluate")
    summary = read_json(folder / SUMMARY_FILE) if (folder / SUMMARY_FILE).is_file() else {}
    if not isinstance(summary, dict):
        raise InputError(f"{folder / SUMMARY_FILE}: expected an object, found {type(summary).__name__}")
    sources = read_sources(folder) if (folder / SOURCES_FILE).is_file() else None
    metrics = sha256(folder / METRICS_FILE)
    return Scores(folder, rows, summary, sources, *_prediction(folder, sources), metrics)


def _prediction(folder: Path, sources: Sources | None) -> tuple[PredictionRecord | None, Path | None]:
    """Where the masks came from, and their folder: the record lies beside the masks that were scored, or in the scores folder itself.

    A record that cannot be read costs its part of the provenance only, and the log says so.
    """
    first = next(iter(sources.cases.values()), None) if sources else None
    masks = (folder / first.prediction).parent if first else folder
    if not (masks / PREDICTION_FILE).is_file():
        return None, None
    try:
        return read_model(PredictionRecord, masks / PREDICTION_FILE), masks
    except UtsegError as error:
        logger.warning("%s; the report says nothing about how the masks were made", error)
        return None, masks


def _folds_together(entries: Iterable[Entry]) -> list[Entry]:
    """Runs of one model that differ in the fold, on different cases, become one entry, in the order of the folds."""
    merged: dict[Path, Entry] = {}
    for entry in entries:
        trained = [run.record.selection for run in entry.runs if run.folder == entry.folder]
        key = (entry.folder.parent if any(map(is_fold, trained)) else entry.folder).resolve()
        before = merged.get(key)
        if before is None:
            merged[key] = entry
        elif before.cases & entry.cases:
            merged[entry.folder.resolve()] = entry
        else:
            both = (*before.scores, *entry.scores), (*before.runs, *entry.runs)
            merged[key] = Entry("", *both, entry.folder.parent)
    return list(merged.values())


def _named(entries: list[Entry]) -> list[Entry]:
    """Names: the parts of the folders' paths in which they differ; of a single entry its model and what it was trained on."""
    if len(entries) == 1:
        return [replace(entries[0], name=_own_name(entries[0]))]
    paths = [list(entry.folder.absolute().parts) for entry in entries]
    for end in (0, -1):
        while min(map(len, paths)) > 1 and len({path[end] for path in paths}) == 1:
            for path in paths:
                path.pop(end)
    return [replace(entry, name="/".join(path)) for entry, path in zip(entries, paths, strict=True)]


def _own_name(entry: Entry) -> str:
    models = dict.fromkeys(run.record.model for run in entry.runs)
    if not models and entry.scores and entry.scores[0].prediction:
        models = dict.fromkeys(use.network for use in entry.scores[0].prediction.models)
    folder = entry.folder.absolute()
    return " + ".join(models) or (folder.name == GENERIC_NAME and folder.parent.name) or folder.name
