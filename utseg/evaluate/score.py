"""Scores a folder of predictions against the references of cases, in parallel, and writes `metrics.csv` and `summary.json`.

What is missing, mis-placed or mislabelled is refused as a whole, one line each, before anything is written. Which references there are is
decided elsewhere (`references.py`), how they are summarised too (`summary.py`).
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utseg.case import Case
from utseg.errors import CaseErrors, InputError
from utseg.evaluate.metrics import evaluate_pair
from utseg.evaluate.summary import METRICS, summarise
from utseg.files import folder_lock, require_writable, write_json, write_text
from utseg.parallel import process_pool, run_each
from utseg.progress import progress

METRICS_FILE = "metrics.csv"
SUMMARY_FILE = "summary.json"
SUFFIXES = (".nii.gz", ".nii")
Row = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """One case with the file that predicts it."""

    case: Case
    prediction: Path
    labels: Mapping[str, int]


def evaluate_cases(
    cases: Sequence[Case],
    predictions: Path,
    labels: Mapping[str, int],
    output: Path,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Scores `predictions/CASE.nii.gz` of every case against its label, writes both files into `output`, returns the summary.

    Raises CaseErrors that lists every missing, mis-sized, mis-placed or mislabelled file, UtsegError where another run works in `output`;
    then nothing is written.
    """
    pairs = match(cases, predictions, labels)
    require_writable(output)
    with folder_lock(output):
        rows = _score_all(pairs, executor, workers)
        order = {case.case_id: position for position, case in enumerate(cases)}
        rows.sort(key=lambda row: (order[row["case"]], row["label"]))
        columns = group_columns(cases)
        summary = summarise(rows, columns)
        write_text(output / METRICS_FILE, to_csv(rows, columns))
        write_json(output / SUMMARY_FILE, summary)
    return summary


def _score_all(pairs: list[Pair], executor: Executor | None, workers: int | None) -> list[Row]:
    """The rows of all pairs, in any order. Raises CaseErrors for all that cannot be scored."""
    rows: list[Row] = []
    problems: list[str] = []
    inline = executor is None and len(pairs) <= 2
    with nullcontext(executor) if executor or inline else process_pool(workers) as pool:
        outcomes = map(_score_inline, pairs) if pool is None else _scored(pairs, pool, workers)
        with progress("evaluate", len(pairs)) as advance:
            for scored, errors in outcomes:
                rows += scored
                problems += errors
                advance()
    if problems:
        raise CaseErrors(sorted(problems))
    return rows


def match(cases: Sequence[Case], predictions: Path, labels: Mapping[str, int]) -> list[Pair]:
    """Each case with its prediction's file. Raises CaseErrors that lists all cases without one, or without a reference."""
    if not predictions.is_dir():
        raise InputError(f"{predictions}: no folder with predictions is there")
    pairs, problems, unlabelled, missing = [], [], [], []
    for case in cases:
        found = [path for suffix in SUFFIXES if (path := predictions / f"{case.case_id}{suffix}").is_file()]
        if case.label is None:
            unlabelled.append(case.case_id)
        elif not found:
            missing.append(case.case_id)
        elif len(found) > 1:
            problems.append(
                f"case {case.case_id}: two predictions, {found[0].name} and {found[1].name}; keep one"
            )
        else:
            pairs.append(Pair(case, found[0], labels))
    if unlabelled:
        problems.append(
            f"{len(unlabelled)} of {len(cases)} cases have no reference label: {', '.join(unlabelled)}"
        )
    if missing:
        problems.append(
            f"{predictions}: no prediction CASE{SUFFIXES[0]} for {len(missing)} of {len(cases)} cases: {', '.join(missing)}; "
            "predict them, or score only what is there with --only-predicted"
        )
    if problems:
        raise CaseErrors(problems)
    if not pairs:
        raise InputError(f"{predictions}: nothing to evaluate: no labelled case was found")
    return pairs


def group_columns(cases: Sequence[Case]) -> tuple[str, ...]:
    """The columns to group by: phase where one is known, then the cases' own."""
    own = dict.fromkeys(column for case in cases for column in case.groups if column != "phase")
    phase = ("phase",) if any(case.phase for case in cases) else ()
    return (*phase, *own)


def score_pair(pair: Pair) -> list[Row]:
    """One row a label, as they stand in `metrics.csv`. Raises InputError on a mis-placed or mislabelled prediction."""
    from utseg.rawdata.gate import read_label

    assert pair.case.label is not None
    reference, geometry = read_label(pair.case.label, pair.labels, pair.case.frame)
    prediction, placed = read_label(pair.prediction, pair.labels)
    differences = placed.differences(geometry)
    if differences:
        raise InputError(
            f"{pair.prediction}: does not lie on the grid of its reference {pair.case.label}: {'; '.join(differences)}"
        )
    scores = evaluate_pair(prediction, reference, geometry.spacing_zyx_mm, pair.labels)
    own = {
        "case": pair.case.case_id,
        "subject": pair.case.subject,
        "phase": pair.case.phase,
        **pair.case.groups,
    }
    return [
        own
        | {"label": pair.labels[name], "label_name": name}
        | dict(values)
        | {"difference_ml": values["prediction_ml"] - values["reference_ml"]}
        for name, values in scores.items()
    ]


def to_csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Tidy CSV, one row a case and label. An undefined value is an empty field; `status` says why."""
    buffer = io.StringIO()
    head = ["case", "subject", *columns, "label", "label_name", *METRICS, "status"]
    writer = csv.DictWriter(buffer, head, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _field(value) for key, value in row.items()})
    return buffer.getvalue()


def _field(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value


def _score_inline(pair: Pair) -> tuple[list[Row], list[str]]:
    try:
        return score_pair(pair), []
    except InputError as error:
        return [], error.lines()


def _scored(pairs: list[Pair], pool: Executor, workers: int | None) -> Any:
    for outcome in run_each(score_pair, pairs, pool, name=lambda pair: pair.case.case_id, workers=workers):
        yield (outcome.result or []), (outcome.error.lines() if outcome.error else [])
