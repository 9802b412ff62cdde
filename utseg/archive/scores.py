"""Validation scores as they go with a model: per label and group, over subjects that the model was not trained on; no case, no subject.

A column of groups goes along if it is one of the field (vendor, centre, …), or if each of its values has at least two subjects: others,
such as an age or a hospital's number, can point at a person. Scores are computed in `utseg.evaluate`; here they are only gathered.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat

from utseg.errors import UtsegError
from utseg.evaluate.records import METRICS, METRICS_FILE, read_metrics
from utseg.evaluate.summary import STATUSES, summarise
from utseg.files import read_json
from utseg.planning.settings import Settings, validate
from utseg.runs import SUMMARY_FILE, VALIDATION_FOLDER

logger = logging.getLogger("utseg")

KEPT_METRICS = ("dice", "hd95_mm", "assd_mm", "difference_ml")
COMMON_COLUMNS = frozenset(
    {
        "phase",
        "vendor",
        "vendor_name",
        "manufacturer",
        "scanner",
        "field_strength",
        "centre",
        "center",
        "country",
        "pathology",
        "sex",
    }
)
LEAST_TO_SHARE = 2
Count = Annotated[int, Field(ge=0)]


class Statistics(Settings):
    """One metric over `n` subjects, each with the mean of its cases; the other counts are of cases. None where nothing is defined."""

    n: Count
    cases: Count
    undefined: Count
    mean: FiniteFloat | None
    sd: FiniteFloat | None
    median: FiniteFloat | None
    interval95: tuple[FiniteFloat, FiniteFloat] | None


class LabelScores(Settings):
    """The scores of one label. `empty` counts the cases in which prediction, reference or both lack it."""

    dice: Statistics
    hd95_mm: Statistics | None = None
    assd_mm: Statistics | None = None
    difference_ml: Statistics | None = None
    empty: dict[Literal["both_empty", "prediction_empty", "reference_empty"], Count]


class GroupScores(Settings):
    """The scores of a group of cases, by the label's name."""

    cases: Count
    subjects: Count
    mean_dice: FiniteFloat | None
    labels: dict[str, LabelScores]


class Scores(Settings):
    """Part of a `summary.json`: over all cases, and by column and value."""

    format: Literal["utseg-summary-1"] = "utseg-summary-1"
    unit: Literal["subjects"] = "subjects"
    all: GroupScores
    groups: dict[str, dict[str, GroupScores]]


class ScoreTable(Settings):
    """Scores over the held-back subjects of these runs (PLAN_2d/MODEL/FOLD); each subject was scored by a run that did not train on it."""

    runs: tuple[str, ...]
    scores: Scores


NO_SCORES = Scores(all=GroupScores(cases=0, subjects=0, mean_dice=None, labels={}), groups={})


def shareable_columns(subjects: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The columns that point at nobody, of `subjects` per column and value."""
    return [
        column
        for column, values in subjects.items()
        if column.casefold() in COMMON_COLUMNS or (values and min(values.values()) >= LEAST_TO_SHARE)
    ]


def scores_of_rows(rows: Sequence[Mapping[str, Any]]) -> Scores:
    """The scores of rows of `metrics.csv`."""
    own = {"case", "subject", "label", "label_name", "status", *METRICS}
    columns = [column for column in rows[0] if column not in own] if rows else []
    kept = {"case", "subject", "label_name", "status", *columns, *KEPT_METRICS}
    slim = [{key: value for key, value in row.items() if key in kept} for row in rows]
    return _shareable(summarise(slim, columns), "the scores")


def run_scores(folder: Path) -> Scores:
    """The scores of a run that has finished; empty ones where it held no subject back, or what is there cannot be read (a warning)."""
    validation = folder / VALIDATION_FOLDER
    if (validation / METRICS_FILE).is_file():
        return scores_of_rows(read_metrics(validation / METRICS_FILE))
    path = validation / SUMMARY_FILE
    try:
        return _shareable(read_json(path), str(path))
    except (UtsegError, KeyError, TypeError, AttributeError):
        logger.warning("%s: has no scores that can be read; the model goes without them", path)
        return NO_SCORES


def score_tables(
    runs: Mapping[str, Path], single: Mapping[str, Scores], known: Sequence[ScoreTable] = ()
) -> tuple[ScoreTable, ...]:
    """Scores of finished runs (by PLAN_2d/MODEL/FOLD): of one model's folds together where no case was scored by two of them.

    single: the `run_scores` of each. known: tables that came with an imported model; they stand for the runs that they are of.
    """
    tables = [table for table in known if table.runs and set(table.runs) <= set(runs)]
    covered = {name for table in tables for name in table.runs}
    by_model: dict[str, list[str]] = {}
    for name in runs:
        if name not in covered:
            by_model.setdefault(name.rpartition("/")[0], []).append(name)
    for names in by_model.values():
        tables += _tables_of_model({name: runs[name] for name in names}, single)
    return tuple(sorted(tables, key=lambda table: table.runs))


def _tables_of_model(runs: Mapping[str, Path], single: Mapping[str, Scores]) -> list[ScoreTable]:
    files = {name: folder / VALIDATION_FOLDER / METRICS_FILE for name, folder in runs.items()}
    rows = {name: read_metrics(file) for name, file in files.items() if file.is_file()}
    cases = [{row["case"] for row in own} for own in rows.values()]
    if len(rows) == len(runs) and sum(map(len, cases)) == len(set().union(*cases)) > 0:
        together = [row for own in rows.values() for row in own]
        return [ScoreTable(runs=tuple(runs), scores=scores_of_rows(together))]
    return [ScoreTable(runs=(name,), scores=single[name]) for name in runs if single[name].all.cases]


def _shareable(summary: Mapping[str, Any], where: str) -> Scores:
    """What of a summary goes along. Raises SettingError, KeyError, TypeError or AttributeError where it is none."""
    subjects = {
        column: {value: group["subjects"] for value, group in values.items()}
        for column, values in summary["groups"].items()
    }
    groups = {
        column: {value: _group(group) for value, group in summary["groups"][column].items()}
        for column in shareable_columns(subjects)
    }
    return validate(Scores, {"all": _group(summary["all"]), "groups": groups}, where)


def _group(group: Mapping[str, Any]) -> dict[str, Any]:
    labels = {
        name: {
            "empty": {status: label["empty"][status] for status in STATUSES},
            **{metric: label[metric] for metric in KEPT_METRICS if metric in label},
        }
        for name, label in group["labels"].items()
    }
    return {key: group[key] for key in ("cases", "subjects", "mean_dice")} | {"labels": labels}
