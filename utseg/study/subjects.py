"""Choose a study's training, validation and test subjects, and prove that no subject is on two sides.

Only what a raw dataset says of its cases is used: subject, partition, group columns, whether there is a label. Every choice is seeded
and stratified; the same dataset gives the same lists. No pixel is read here; that two subjects are one and the same scan is found by
checksum elsewhere (`checksums.py`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from utseg.case import Case, Dataset
from utseg.errors import InputError, UsageError, listing
from utseg.home import is_fold
from utseg.preprocess.splits import FOLDS, make_splits, select_cases
from utseg.study.definition import Definition, TrainOn
from utseg.study.record import Subjects

SEED = 0
WHOLE = "all"
VALUES_IN_NAME = 6
TESTED_PARTITIONS = ("testing", "validation")


@dataclass(frozen=True)
class TrainingSet:
    """Cases of the training dataset under a name (`trained_on`), and which subjects of theirs train and validate.

    `left_out`: of these subjects, who are none of the set's, all labelled cases are tested too.
    """

    name: str
    cases: tuple[Case, ...]
    fold: int = 0
    training: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def of(self, side: str) -> tuple[Case, ...]:
        """The cases that train, or validate."""
        subjects = set(self.training if side == "training" else self.validation)
        return tuple(case for case in self.cases if case.subject in subjects)


def labelled(dataset: Dataset) -> tuple[Case, ...]:
    """The cases that can be scored, of every partition."""
    return tuple(case for case in dataset.cases if case.label is not None)


def held_out_cases(dataset: Dataset, by: str, share: float, where: str) -> tuple[Case, ...]:
    """The test cases of the training dataset: those of its testing and validation partition, else those of a share of its subjects.

    The share is taken of every value of the column `by`, at least one subject of each that has two. Raises InputError where none is left.
    """
    partition = tuple(case for case in labelled(dataset) if case.partition in TESTED_PARTITIONS)
    if partition:
        both = {case.subject for case in partition} & {case.subject for case in dataset.training_cases()}
        if both:
            raise InputError(
                f"{dataset.folder}: {len(both)} subjects are in the training and in a testing partition: {listing(sorted(both))}; "
                "they would be trained and tested on: keep one of them"
            )
        return partition
    cases = dataset.training_cases()
    strata: dict[str, list[str]] = {}
    for subject in stratified_order(cases, lambda case: (case.groups.get(by, ""),)):
        value = next(case.groups.get(by, "") for case in cases if case.subject == subject)
        strata.setdefault(value, []).append(subject)
    taken = {
        subject
        for subjects in strata.values()
        if len(subjects) > 1
        for subject in subjects[: max(1, round(share * len(subjects)))]
    }
    if not taken:
        raise InputError(
            f"{where}: test: no subject of {dataset.name} can be set aside for testing: it has no labelled testing or validation "
            f"partition, and {len(strata)} labelled subjects to train on; add scans, or name test.datasets"
        )
    return tuple(case for case in cases if case.subject in taken)


def training_sets(
    definition: Definition, dataset: Dataset, held_out: Iterable[str], where: str
) -> tuple[list[TrainingSet], list[str]]:
    """All training sets with their folds, and remarks for the user. `held_out`: subjects that are tested and take no part.

    Raises InputError that names the key of the study where a selection leaves nobody, or too few to hold anyone back for validation.
    """
    train, out = definition.train, set(held_out)
    cases = tuple(case for case in dataset.training_cases() if case.subject not in out)
    if not cases:
        raise InputError(
            f"{where}: train: no labelled subject of {dataset.name} is left to train on ({len(dataset.training_cases())} labelled cases "
            f"in the training partition, {len(out)} subjects are set aside for testing)"
        )
    whole = _distinct([*_selected(train, cases, where), *_by_value(train, cases, where)])
    whole = whole or [TrainingSet(WHOLE, cases)]
    sized, remarks = [], _without_value(train, cases)
    for each in whole:
        subsets = _subsets(each, train.subjects)
        sized += [*subsets, each]
        count = len({case.subject for case in each.cases})
        if too_many := [str(size) for size in train.subjects if size >= count]:
            remarks.append(f"{each.name}: has {count} subjects; there is no subset of {', '.join(too_many)}")
    return [_split(each, fold, where) for each in sized for fold in train.folds], remarks


def _without_value(train: TrainOn, cases: Sequence[Case]) -> list[str]:
    """A remark for each column that makes training sets and that some subjects have no value of: they may be of the one that is tested."""
    remarks = []
    for column in dict.fromkeys(filter(None, (train.each, train.leave_out))):
        if unknown := sorted({case.subject for case in cases if not case.groups.get(column)}):
            remarks.append(
                f"subjects without {column} are in no training set that is made by it: {listing(unknown)}"
            )
    return remarks


def _selected(train: TrainOn, cases: tuple[Case, ...], where: str) -> list[TrainingSet]:
    sets = []
    for number, selection in enumerate(train.selections):
        path = f"{where}: train.selections.{number}"
        if is_fold(selection) or selection == "all-folds":
            raise InputError(f"{path}: {selection}: a study makes its own folds; use train.folds = [0, 1, …]")
        try:
            sides = select_cases(selection, cases, [])
        except (UsageError, InputError) as error:
            raise InputError(f"{path}: {error}") from None
        wanted = {*sides[0], *sides[1]}
        sets.append(TrainingSet(selection, tuple(case for case in cases if case.case_id in wanted)))
    return sets


def _by_value(train: TrainOn, cases: tuple[Case, ...], where: str) -> list[TrainingSet]:
    """The sets of `each`, `together` and `leave_out`."""
    sets = []
    if train.each is not None:
        values = column_values(train.each, cases, f"{where}: train.each")
        parts = [tuple(case for case in cases if case.groups.get(train.each) == value) for value in values]
        sets += [
            TrainingSet(f"{train.each}={value}", part) for value, part in zip(values, parts, strict=True)
        ]
        if train.together:
            name = f"{train.each}={','.join(values)}" if len(values) <= VALUES_IN_NAME else WHOLE
            sets.append(TrainingSet(name, tuple(case for part in parts for case in part)))
    if train.leave_out is not None:
        column = train.leave_out
        values = column_values(column, cases, f"{where}: train.leave_out")
        if len(values) < 2:
            raise InputError(
                f"{where}: train.leave_out: the labelled training cases have one {column} only ({values[0]}); nobody is left to train on"
            )
        for value in values:
            left = {case.subject for case in cases if case.groups.get(column) == value}
            others = tuple(case for case in cases if case.groups.get(column) and case.subject not in left)
            if others:
                sets.append(TrainingSet(f"{column}!={value}", others, left_out=tuple(sorted(left))))
    return sets


def column_values(column: str, cases: Sequence[Case], where: str) -> list[str]:
    """The values of a group column, sorted; cases without one are left out. Raises InputError where there is none, and lists columns."""
    values = sorted({value for case in cases if (value := case.groups.get(column, ""))})
    if not values:
        there = sorted({name for case in cases for name, value in case.groups.items() if value})
        raise InputError(
            f"{where}: no labelled case has a {column!r}; columns there are: {', '.join(there) or 'none'}"
        )
    return values


def _distinct(sets: list[TrainingSet]) -> list[TrainingSet]:
    """The first of those with the same cases and tests: all of one vendor's are not trained on again as all together."""
    found: dict[tuple[frozenset[str], tuple[str, ...]], TrainingSet] = {}
    for each in sets:
        found.setdefault((frozenset(case.case_id for case in each.cases), each.left_out), each)
    return list(found.values())


def _subsets(whole: TrainingSet, sizes: Sequence[int]) -> list[TrainingSet]:
    """Nested subsets of the subjects, smallest first, each of the strata in the proportions of the whole."""
    order = stratified_order(whole.cases, _stratum)
    sets = []
    for size in sorted(size for size in sizes if size < len(order)):
        chosen = set(order[:size])
        cases = tuple(case for case in whole.cases if case.subject in chosen)
        sets.append(replace(whole, name=f"{whole.name} · {size} subjects", cases=cases))
    return sets


def _stratum(case: Case) -> tuple[str, ...]:
    return case.groups.get("vendor", ""), case.groups.get("pathology", "")


def stratified_order(
    cases: Sequence[Case], stratum: Callable[[Case], tuple[str, ...]], seed: int = SEED
) -> list[str]:
    """All subjects, shuffled, in an order whose every beginning has the strata in about the proportions of the whole."""
    strata: dict[tuple[str, ...], list[str]] = {}
    for subject, value in sorted({case.subject: stratum(case) for case in reversed(cases)}.items()):
        strata.setdefault(value, []).append(subject)
    generator = np.random.default_rng(seed)
    placed: list[tuple[float, float, str]] = []
    for _, subjects in sorted(strata.items()):
        shuffled = [subjects[index] for index in generator.permutation(len(subjects))]
        ties = generator.random(len(shuffled))
        placed += [
            ((index + 0.5) / len(shuffled), float(tie), subject)
            for index, (subject, tie) in enumerate(zip(shuffled, ties, strict=True))
        ]
    return [subject for _, _, subject in sorted(placed)]


def _split(whole: TrainingSet, fold: int, where: str) -> TrainingSet:
    splits = make_splits(whole.cases, folds=FOLDS, seed=SEED)
    if not splits:
        only = whole.cases[0].subject
        raise InputError(
            f"{where}: train: {whole.name}: only subject {only} is left; at least two are needed to hold one back for validation"
        )
    if fold >= len(splits):
        raise InputError(
            f"{where}: train.folds: {whole.name} has {len(splits)} folds, 0 … {len(splits) - 1}; found {fold}"
        )
    split = splits[fold]
    return replace(whole, fold=fold, training=tuple(split["training"]), validation=tuple(split["validation"]))


def check_disjoint(subjects: Subjects, dataset: str, where: str) -> None:
    """Raises InputError that names the subject who is in two of training, validation and testing, or where one of the three is empty."""
    sides: Mapping[str, Sequence[str]] = {
        "training": subjects.training,
        "validation": subjects.validation,
        "testing": subjects.testing.get(dataset, ()),
    }
    for side, named in sides.items():
        if not named and (side != "testing" or not any(subjects.testing.values())):
            raise InputError(f"{where}: no subject is left for {side}")
    pairs = (("training", "validation"), ("training", "testing"), ("validation", "testing"))
    for one, other in pairs:
        if both := sorted(set(sides[one]) & set(sides[other])):
            raise InputError(
                f"{where}: {len(both)} subjects of {dataset} are in {one} and in {other}: {listing(both)}; "
                "scores would be of what was seen"
            )
