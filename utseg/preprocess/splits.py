"""Which subjects train and which validate: subject-grouped, stratified folds, and selections on case metadata.

`splits.json` is made once and then kept, so that models of different plans and days are compared on the same subjects; a person may
edit it. nnU-Net's `splits_final.json` is read, too, and becomes it; no other file is read or written here.
"""

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from utseg.errors import ArtefactError, InputError, UsageError
from utseg.files import read_json, write_json
from utseg.home import is_fold

logger = logging.getLogger("utseg")
SPLITS_FILE = "splits.json"
NNUNETS_FILE = "splits_final.json"
FOLDS = 5
STRATA_COLUMNS = ("vendor", "pathology")
SHOWN = 8
Split = dict[str, list[str]]
SIDES = "training", "validation"


class HasSubject(Protocol):
    """What splitting needs of a case: `Case`, `CaseFingerprint` and `CaseRecord` all have it."""

    @property
    def case_id(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def phase(self) -> str: ...
    @property
    def groups(self) -> Mapping[str, str]: ...


def make_splits(
    cases: Sequence[HasSubject], *, folds: int = FOLDS, seed: int = 0, same: Mapping[str, str] | None = None
) -> list[Split]:
    """Folds of subjects: each validates in exactly one, and trains in the others. Sizes differ by one at most.

    Subjects are shuffled within vendor and pathology (as far as the cases have these columns), then handed out in that order: so the
    subjects of one vendor, and of one vendor and pathology, differ by one at most between folds too. With fewer subjects than `folds`
    there are as many folds as subjects; with a single one there is none. same: subjects who share a scan (`same_scans`) count as one.
    """
    same = same or {}
    names: dict[str, set[str]] = {}
    for case in cases:
        names.setdefault(same.get(case.subject, case.subject), set()).add(case.subject)
    strata = {same.get(case.subject, case.subject): _stratum(case) for case in reversed(cases)}
    subjects = np.array(sorted(strata), dtype=object)
    np.random.default_rng(seed).shuffle(subjects)
    ordered = sorted(subjects, key=lambda subject: strata[subject])
    count = min(folds, len(ordered))
    if count < 2:
        return []
    groups = [names[subject] for subject in ordered]
    return [
        {
            "training": sorted(name for i, group in enumerate(groups) if i % count != fold for name in group),
            "validation": sorted(name for group in groups[fold::count] for name in group),
        }
        for fold in range(count)
    ]


def _stratum(case: HasSubject) -> tuple[str, ...]:
    groups = {column.casefold(): value for column, value in case.groups.items()}
    return tuple(groups.get(column, "") for column in STRATA_COLUMNS)


def write_splits(splits: Sequence[Split], folder: Path) -> None:
    """Writes `splits.json` into `preprocessed/NAME`."""
    write_json(folder / SPLITS_FILE, list(splits))


def read_splits(folder: Path) -> list[Split]:
    """Reads `splits.json` from `preprocessed/NAME`. Raises InputError for what is no list of folds, and for a subject on both sides."""
    file = folder / SPLITS_FILE
    try:
        splits = read_json(file)
    except ArtefactError as error:
        raise ArtefactError(f"{error}; run utseg_plan_and_preprocess first") from None
    if not isinstance(splits, list):
        raise InputError(f"{file}: expected a list of folds; fix or delete it, and plan and preprocess again")
    for number, split in enumerate(splits):
        problem = _problem(split)
        if problem:
            raise InputError(f"{file}: fold{number}: {problem}; fix the file, or delete it and plan again")
    return splits


def splits_of_nnunet(file: Path, cases: Sequence[HasSubject]) -> list[Split]:
    """The folds of a `splits_final.json`, which names cases, as folds of subjects. Raises InputError for what is no such list, for
    cases that the dataset does not have, and for a subject on both sides.
    """
    subjects = {case.case_id: case.subject for case in cases}
    folds: Any = read_json(file)
    if not isinstance(folds, list):
        raise InputError(f"{file}: expected a list of folds")
    splits = []
    for number, fold in enumerate(folds):
        sides: list[Any] = [fold.get(side) for side in ("train", "val")] if isinstance(fold, dict) else []
        if not sides or not all(_is_list_of_texts(side) for side in sides):
            raise InputError(f'{file}: fold{number}: expected {{"train": [cases], "val": [cases]}}')
        if unknown := sorted({case for side in sides for case in side} - subjects.keys()):
            raise InputError(
                f"{file}: fold{number} names cases that the dataset does not have: {_some(unknown)}"
            )
        named = (sorted({subjects[case] for case in side}) for side in sides)
        split = dict(zip(SIDES, named, strict=True))
        if problem := _problem(split):
            raise InputError(f"{file}: fold{number}: {problem}; move it away to split anew, by subject")
        splits.append(split)
    return splits


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _problem(split: Any) -> str | None:
    if not isinstance(split, dict) or set(split) != set(SIDES):
        return 'expected {"training": [subjects], "validation": [subjects]}'
    for side in SIDES:
        named = split[side]
        if not _is_list_of_texts(named):
            return f"{side}: expected a list of subject names"
        if not named:
            return f"{side}: names no subject"
    both = sorted(set(split["training"]) & set(split["validation"]))
    return f"in training and in validation: {_some(both)}" if both else None


def check_splits(splits: Sequence[Split], cases: Sequence[HasSubject], folder: Path) -> None:
    """Raises InputError where a fold names a subject which no case has."""
    for number, split in enumerate(splits):
        if unknown := _unknown(split, cases):
            raise InputError(
                f"{folder / SPLITS_FILE}: fold{number} names subjects that the dataset does not have: {_some(unknown)}; "
                "fix the file, or delete it to split anew (models trained on the old folds are then not comparable)"
            )


def _unknown(split: Split, cases: Sequence[HasSubject]) -> list[str]:
    return sorted({*split["training"], *split["validation"]} - {case.subject for case in cases})


def check_same_scans(splits: Sequence[Split], same: Mapping[str, str], folder: Path) -> None:
    """Raises InputError where a fold trains on a scan that it validates on, under another name. same: as `same_scans` gives it."""
    for number, split in enumerate(splits):
        trains = {same[subject]: subject for subject in split["training"] if subject in same}
        for subject in split["validation"]:
            if (scan := same.get(subject)) in trains:
                raise InputError(
                    f"{folder / SPLITS_FILE}: fold{number}: {trains[scan]} (training) and {subject} (validation) are the same scan; "
                    "put both on one side, or delete the file to split anew"
                )


def held_back_twice(splits: Sequence[Split]) -> list[str]:
    """A line for subjects that several folds hold back: their out-of-fold scores would count twice."""
    counts = Counter(subject for split in splits for subject in set(split["validation"]))
    twice = sorted(subject for subject, count in counts.items() if count > 1)
    if not twice:
        return []
    return [f"{SPLITS_FILE}: several folds hold back {_some(twice)}; scores need each subject in one"]


def left_out(
    folds: Mapping[str, tuple[Collection[str], Collection[str]]], cases: Sequence[HasSubject]
) -> list[str]:
    """A line for subjects that a fold, or several, neither trains nor validates on. folds: case ids, by the fold's name."""
    lacking: dict[tuple[str, ...], list[str]] = {}
    for name, (training, validation) in folds.items():
        used = {*training, *validation}
        if subjects := tuple(sorted({case.subject for case in cases if case.case_id not in used})):
            lacking.setdefault(subjects, []).append(name)
    return [
        f"{SPLITS_FILE}: {_some(names)}: {len(subjects)} subjects neither train nor validate: {_some(subjects)}; add them to a side, or "
        "delete the file to split anew"
        for subjects, names in lacking.items()
    ]


def label_gaps(
    labels: Iterable[str],
    folds: Mapping[str, tuple[Collection[str], Collection[str]]],
    present: Mapping[str, Collection[str]],
) -> list[str]:
    """A line for each of the labels that no training case, or no validation case, of a fold has.

    folds: the case ids that train and validate, by the fold's name. present: the labels of each case.
    """
    consequences = "it cannot be learnt there", "its score there stays undefined"
    lines = []
    for label in labels:
        for side, (side_name, so) in enumerate(zip(SIDES, consequences, strict=True)):
            sides = {name: ids[side] for name, ids in folds.items() if ids[side]}
            lacking = [name for name, ids in sides.items() if not any(label in present[one] for one in ids)]
            if lacking:
                lines.append(f"label {label}: no {side_name} case of {_some(lacking)} has it; {so}")
    return lines


def select_cases(
    selection: str,
    records: Sequence[HasSubject],
    splits: Sequence[Split],
    *,
    seed: int = 0,
    same: Mapping[str, str] | None = None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Case ids to train on and to validate on, for the second word of `utseg_train`.

    `foldN` takes that fold of `splits`; `all` trains on every case and validates on none; `COLUMN=VALUE,VALUE` and `COLUMN!=VALUE` train
    on the cases whose group column (or phase, or subject) says so, a fifth of their subjects held back; cases without a value are in
    neither. Raises UsageError for what is not there, and InputError where too few subjects are left to hold any back. same: as for
    `make_splits`.
    """
    if selection == "all":
        return tuple(sorted(record.case_id for record in records)), ()
    if is_fold(selection):
        split = _fold(int(selection.removeprefix("fold")), splits)
        if unknown := _unknown(split, records):
            raise InputError(
                f"{SPLITS_FILE}: {selection} names subjects that are not preprocessed: {_some(unknown)}; "
                "run utseg_plan_and_preprocess again"
            )
        return cases_of(records, split)
    condition = re.fullmatch(r"([^=!]+)(!?=)(.+)", selection)
    if not condition:
        raise UsageError(
            f"{selection!r} is nothing to train on; there are: {_folds(splits)}all, all-folds, and selections such as {_example(records)}"
        )
    chosen = _matching(records, condition[1].strip(), condition[2] == "!=", condition[3])
    if not chosen:
        raise UsageError(f"{selection}: leaves no case of {len(records)} to train on")
    held_back = make_splits(chosen, folds=FOLDS, seed=seed, same=same)
    if not held_back:
        raise InputError(
            f"{selection}: only subject {chosen[0].subject} is left, at least two are needed to hold one back for validation"
        )
    return cases_of(chosen, held_back[0])


def _fold(number: int, splits: Sequence[Split]) -> Split:
    if number < len(splits):
        return splits[number]
    if not splits:
        raise UsageError(
            f"fold{number}: there are no folds, which takes at least two subjects; train on all of them with: all"
        )
    raise UsageError(f"fold{number}: not there; there are: {_folds(splits)}all")


def _folds(splits: Sequence[Split]) -> str:
    return "".join(f"fold{number}, " for number in range(len(splits)))


def cases_of(records: Sequence[HasSubject], split: Split) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Case ids of a fold's training and validation subjects."""

    def ids(side: str) -> tuple[str, ...]:
        subjects = set(split[side])
        return tuple(sorted(record.case_id for record in records if record.subject in subjects))

    return ids("training"), ids("validation")


def _values(record: HasSubject) -> dict[str, str]:
    """What a case can be selected by, group columns before the built-in ones."""
    return {"subject": record.subject, "phase": record.phase, **record.groups}


def _matching(records: Sequence[HasSubject], column: str, exclude: bool, values: str) -> list[HasSubject]:
    columns = {name.casefold(): name for record in records for name in _values(record)}
    name = columns.get(column.casefold())
    if name is None:
        raise UsageError(
            f"{column}: no case has this column; there are: {', '.join(sorted(columns.values()))}"
        )
    there = Counter(value for record in records if (value := _values(record).get(name)))
    wanted = {value.strip().casefold(): value.strip() for value in values.split(",")}
    unknown = sorted(wanted[key] for key in wanted.keys() - {value.casefold() for value in there})
    if unknown:
        listed = [f"{value} ({count} cases)" for value, count in sorted(there.items())]
        raise UsageError(f"{name}: no case has {', '.join(unknown)}; there are: {_some(listed)}")
    if not exclude:
        return [record for record in records if _values(record).get(name, "").casefold() in wanted]
    if unknown := [record.case_id for record in records if not _values(record).get(name)]:
        logger.warning(
            "cases without %s, which may be of %s, are left out: %s", name, values.strip(), _some(unknown)
        )
    return [
        record
        for record in records
        if (value := _values(record).get(name)) and value.casefold() not in wanted
    ]


def _example(records: Sequence[HasSubject]) -> str:
    for record in records:
        for column, value in record.groups.items():
            return f"{column}={value}"
    return "vendor=A"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
