"""The one parallel pass over a dataset's training cases: each goes through the gate and is measured.

All bad cases are reported at once. Workers never import torch, so that they start quickly and stay small.
"""

import logging
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from utseg.case import Case, Dataset
from utseg.compute.pool import run_each
from utseg.errors import CaseErrors, InputError, UnknownValues, UtsegError, listing
from utseg.files import sha256, stamp
from utseg.fingerprint.aggregate import aggregate_cases, aggregate_groups
from utseg.fingerprint.model import CaseFingerprint, Fingerprint
from utseg.fingerprint.same_scan import same_scans
from utseg.fingerprint.warnings import dataset_warnings
from utseg.label_map import LabelValue
from utseg.notices import notice_lines
from utseg.progress import progress

logger = logging.getLogger("utseg")


@dataclass(frozen=True)
class _Task:
    case: Case
    folder: Path
    labels: dict[str, LabelValue]
    channel_names: tuple[str, ...]
    known: CaseFingerprint | None


def make_fingerprint(
    dataset: Dataset, executor: Executor, *, workers: int | None = None, previous: Fingerprint | None = None
) -> Fingerprint:
    """Reads every training case through the gate and measures it.

    A case of `previous` (whose cases all passed the gate) with unchanged files is not read again, only its files' checksums are taken.
    Raises CaseErrors with a line for every problem of every case, and InputError where there is nothing to train on.
    """
    cases = dataset.training_cases()
    if not cases:
        raise InputError(
            f"{dataset.folder}: no training case with a label among {len(dataset.cases)} cases; "
            "labels are needed to plan and train"
        )
    known = _reusable(dataset, previous)
    tasks = [
        _Task(case, dataset.folder, dict(dataset.labels), dataset.channel_names, known.get(case.case_id))
        for case in cases
    ]
    measured: dict[str, CaseFingerprint] = {}
    problems: dict[str, UtsegError] = {}
    with progress(f"reading {dataset.name}", len(tasks)) as advance:
        for outcome in run_each(
            _measure, tasks, executor, name=lambda task: task.case.case_id, workers=workers
        ):
            case_id = outcome.item.case.case_id
            if outcome.error is not None:
                problems[case_id] = outcome.error
            elif outcome.result is not None:
                measured[case_id] = outcome.result
            advance()
    if problems:
        raise CaseErrors(
            _lines({case.case_id: problems[case.case_id] for case in cases if case.case_id in problems})
        )
    return summarise(dataset, tuple(measured[case.case_id] for case in cases))


def _lines(problems: Mapping[str, UtsegError]) -> list[str]:
    """A line a problem of a case. Values that no label has, in several cases, are a fault of the dataset: one line."""
    unknown = {name: error for name, error in problems.items() if isinstance(error, UnknownValues)}
    if len(unknown) < 2:
        unknown = {}
    lines = [line for name, error in problems.items() if name not in unknown for line in error.lines()]
    if unknown:
        values = list(dict.fromkeys(value for error in unknown.values() for value in error.values))
        first = next(iter(unknown.values())).problems[0]
        lines.append(
            f"{len(unknown)} cases ({listing([*unknown])}): their label maps have values that no label has: {listing(values)}; "
            f"first {first}"
        )
    return lines


def summarise(dataset: Dataset, cases: tuple[CaseFingerprint, ...]) -> Fingerprint:
    """The fingerprint of a dataset from its measured cases. Its aggregates count subjects that share a scan once."""
    same = same_scans(cases)
    counted = [case.model_copy(update={"subject": same.get(case.subject, case.subject)}) for case in cases]
    return Fingerprint(
        dataset=dataset.name,
        layout=dataset.layout,
        channel_names=dataset.channel_names,
        labels=dict(dataset.labels),
        cases=cases,
        overall=aggregate_cases(counted),
        by_group=aggregate_groups(counted),
        warnings=(
            *dataset.warnings,
            *notice_lines(notice for case in cases for notice in case.warnings),
            *dataset_warnings(cases, dataset),
        ),
    )


def _reusable(dataset: Dataset, previous: Fingerprint | None) -> dict[str, CaseFingerprint]:
    """What is known of cases measured before; nothing where labels or channels, which the gate checks against, are others."""
    checked_against = dict(dataset.labels), dataset.channel_names
    if previous is None or (previous.labels, previous.channel_names) != checked_against:
        return {}
    return {case.case_id: case for case in previous.cases}


def _measure(task: _Task) -> CaseFingerprint:
    from utseg.fingerprint.case import measure_case
    from utseg.rawdata.gate import read_case

    case, known = task.case, task.known
    if not all(path.is_file() for path in case.files):
        read_case(case, task.labels)  # says what is missing
    stamps, checksums = {}, {}
    for path in case.files:
        name = relative_name(path, task.folder)
        try:
            stamps[name] = stamp(path)  # before the content, which may change meanwhile
            checksums[name] = sha256(path)
        except OSError as error:
            raise InputError(
                f"case {case.case_id}: {path}: not readable ({error.strerror or error})"
            ) from None
    if known is not None and known.checksums == checksums and known.frame == case.frame:
        told = {"subject": case.subject, "phase": case.phase, "groups": dict(case.groups)}
        return known.model_copy(update={**told, "stamps": stamps})
    return measure_case(read_case(case, task.labels), task.labels, task.channel_names, checksums, stamps)


def relative_name(path: Path, folder: Path) -> str:
    """What a raw file is called in fingerprint and slices: relative to the dataset's folder where it lies in it."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix()
