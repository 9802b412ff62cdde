"""Who a run was trained and validated on, in counts: the fingerprint knows subject and groups of the cases that the run's record names."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from utseg.archive.manifest import Cohort
from utseg.archive.scores import shareable_columns
from utseg.errors import UtsegError
from utseg.fingerprint.model import FINGERPRINT_FILE, CaseFingerprint, read_fingerprint

logger = logging.getLogger("utseg")


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
    for case_id in case_ids:
        for column, value in known[case_id].groups.items():
            if value:
                members[column][value].add(known[case_id].subject)
    counts = {
        column: {value: len(subjects) for value, subjects in sorted(values.items())}
        for column, values in sorted(members.items())
    }
    return Cohort(
        cases=len(case_ids),
        subjects=len({known[case_id].subject for case_id in case_ids}),
        groups={column: counts[column] for column in sorted(shareable_columns(counts))},
    )
