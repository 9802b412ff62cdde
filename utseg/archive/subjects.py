"""What is told about the subjects of a run: counts and validation scores per label and group, and no name of a case or subject.

A column of groups goes along if it is one of the field (vendor, centre, …), or if each of its values has at least two subjects: others,
such as an age or a hospital's number, can point at a person.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from utseg.archive.manifest import SUMMARY, Cohort, GroupScores, Scores, ScoreTable
from utseg.errors import UtsegError
from utseg.evaluate.records import METRIC_KEYS, METRICS_FILE, read_metrics
from utseg.evaluate.summary import summarise
from utseg.files import read_json
from utseg.fingerprint.model import FINGERPRINT_FILE, CaseFingerprint, read_fingerprint
from utseg.settings import validate
from utseg.training.record import VALIDATION_FOLDER

logger = logging.getLogger("utseg")
COMMON_COLUMNS = (
    *("phase", "vendor", "vendor_name", "manufacturer", "scanner", "field_strength"),
    *("centre", "center", "country", "pathology", "sex"),
)
LEAST_TO_SHARE = 2
NO_SCORES = Scores(all=GroupScores(cases=0, subjects=0, mean_dice=None, labels={}), groups={})


def shareable_columns(subjects: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The columns that point at nobody, of `subjects` per column and value."""
    return [
        column
        for column, values in subjects.items()
        if column.casefold() in COMMON_COLUMNS or (values and min(values.values()) >= LEAST_TO_SHARE)
    ]


def known_cases(preprocessed: Path) -> dict[str, CaseFingerprint]:
    """The cases of a dataset's fingerprint by id; empty, and a warning, where there is none to read."""
    path = preprocessed / FINGERPRINT_FILE
    if not path.is_file():
        return {}
    try:
        return {case.case_id: case for case in read_fingerprint(path).cases}
    except UtsegError as error:
        logger.warning("%s; subjects and groups are not counted", error)
        return {}


def count_cohort(case_ids: Sequence[str], known: Mapping[str, CaseFingerprint]) -> Cohort:
    """Cases, subjects, and subjects per group; cases alone where one of them is not known."""
    if any(case_id not in known for case_id in case_ids):
        return Cohort(cases=len(case_ids))
    members: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for case in (known[case_id] for case_id in case_ids):
        for column, value in case.groups.items():
            if value:
                members[column][value].add(case.subject)
    counts = {
        column: {value: len(subjects) for value, subjects in sorted(values.items())}
        for column, values in sorted(members.items())
    }
    groups = {column: counts[column] for column in shareable_columns(counts)}
    subjects = {known[case_id].subject for case_id in case_ids}
    return Cohort(cases=len(case_ids), subjects=len(subjects), groups=groups)


def run_scores(run: Path) -> Scores:
    """The scores of a run that has finished; empty ones, and a warning, where they cannot be read."""
    try:
        return _shareable(read_json(run / SUMMARY), str(run / SUMMARY))
    except UtsegError:
        logger.warning("%s: has no scores that can be read; the model goes without them", run / SUMMARY)
        return NO_SCORES


def score_tables(runs: Mapping[str, tuple[Path, Scores]]) -> list[ScoreTable]:
    """Scores of the finished runs of one model: of all folds together where no case was scored by two of them.

    runs: folder and `run_scores` by name (PLAN_2d/MODEL/FOLD).
    """
    files = [folder / VALIDATION_FOLDER / METRICS_FILE for folder, _ in runs.values()]
    if len(files) > 1 and all(file.is_file() for file in files):
        rows = [read_metrics(file) for file in files]
        cases = [{row["case"] for row in of_run} for of_run in rows]
        if sum(map(len, cases)) == len(set().union(*cases)) > 0:
            together = [row for of_run in rows for row in of_run]
            fixed = {"case", "subject", "label", "label_name", "status", *METRIC_KEYS}
            columns = [column for column in together[0] if column not in fixed]
            scores = _shareable(summarise(together, columns), "the scores")
            return [ScoreTable(runs=tuple(runs), scores=scores)]
    return [ScoreTable(runs=(name,), scores=scores) for name, (_, scores) in runs.items() if scores.all.cases]


def _shareable(summary: object, shown: str) -> Scores:
    """What may be shown of a summary."""
    scores = validate(Scores, summary, shown)
    subjects = {
        column: {value: group.subjects for value, group in values.items()}
        for column, values in scores.groups.items()
    }
    groups = {column: scores.groups[column] for column in shareable_columns(subjects)}
    return scores.model_copy(update={"groups": groups})
