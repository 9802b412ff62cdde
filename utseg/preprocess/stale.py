"""Whether slices are still those of the raw data: labels, images, tables may have changed since they were made.

A file whose size and time of change are those on record is not read; any other is, and only its content counts. Nothing is written.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from utseg.case import Case, Dataset
from utseg.errors import ArtefactError, InputError, listing
from utseg.files import sha256, stamp
from utseg.fingerprint.make import relative_name
from utseg.labels import changed_labels
from utseg.planning.plan import Plan
from utseg.preprocess.slices import CaseRecord


def check_current(
    dataset: Dataset, plan: Plan, records: Sequence[CaseRecord], used: Collection[str], advice: str
) -> list[str]:
    """Raises ArtefactError where labels, channels, or files and table of a used case are others than when it was preprocessed.

    Returns remarks: cases that the dataset has and the slices do not, and the other way round. advice: the command that makes them anew.
    """
    planned = plan.preprocessing
    if problem := changed_labels(planned.labels, dataset.labels):
        raise ArtefactError(f"{dataset.folder}: {problem}; {advice}")
    if planned.channel_names != dataset.channel_names:
        names, then = (", ".join(each) for each in (dataset.channel_names, planned.channel_names))
        raise ArtefactError(f"{dataset.folder}: channel_names are {names}, the slices have {then}; {advice}")
    there = {case.case_id: case for case in dataset.training_cases()}
    known = {record.case_id: record for record in records}
    read: dict[Path, str] = {}
    stale = {
        case_id: what
        for case_id in sorted(used)
        if case_id in there
        and (what := next(_differences(there[case_id], known[case_id], dataset, read), None))
    }
    if stale:
        first, what = next(iter(stale.items()))
        raise ArtefactError(
            f"{dataset.folder}: {len(stale)} cases changed since their slices were made: {first}: {what}"
            f"{'; ' + listing([*stale][1:]) if len(stale) > 1 else ''}; {advice}"
        )
    sides = (
        (there.keys() - known.keys(), "is in the raw data and has no slices: nothing is learnt from it"),
        (known.keys() - there.keys(), "has slices and is not in the raw data any more"),
    )
    return [f"{listing(sorted(names))} {said}; {advice}" for names, said in sides if names]


def _differences(case: Case, record: CaseRecord, dataset: Dataset, read: dict[Path, str]) -> Iterator[str]:
    for what in ("subject", "phase", "frame", "groups"):
        now, then = getattr(case, what), getattr(record, what)
        if now != then:
            yield f"{what} is {now or 'none'}, was {then or 'none'}"
    names = {relative_name(path, dataset.folder): path for path in case.files}
    for name in record.input_checksums.keys() - names.keys():
        yield f"{name} is not there any more"
    for name, path in names.items():
        if name not in record.input_checksums or not _is_same(path, name, record, read):
            yield f"{name} has another content"


def _is_same(path: Path, name: str, record: CaseRecord, read: dict[Path, str]) -> bool:
    """read: checksums of files that had to be read, for the frames of a cine are of one file."""
    try:
        found = stamp(path)
        if found == record.stamps.get(name):
            return True
        if found[0] != record.stamps[name][0]:
            return False
        if path not in read:
            read[path] = sha256(path)
    except OSError as error:
        raise InputError(f"case {record.case_id}: {path}: not readable ({error.strerror or error})") from None
    return read[path] == record.input_checksums[name]
