"""Whether models may be scored on the subjects that they held back: nobody who trains validates, test cases take no part, folds agree.

What a run trained and validated on is in its `run.json`; which case is whose, and of which partition, is in the raw dataset; which fold
holds whom back is in `splits.json`. The first thing that is wrong ends the work with one line that names the subject.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from utseg.case import Case, Dataset
from utseg.errors import InputError
from utseg.fingerprint.same_scan import same_subjects
from utseg.predict.record import predicted_cases
from utseg.preprocess.splits import SPLITS_FILE, Split
from utseg.selection.models import FoldRun, TrainedModel
from utseg.training.record import RUN_FILE, VALIDATION_FOLDER

AGAIN = "restore the file, or train again with --overwrite"


def check_leakage(trained: Sequence[TrainedModel], dataset: Dataset, splits: Sequence[Split] | None) -> None:
    """Raises InputError naming the subject: in training and validation of one run; not a labelled training case of the dataset; held back
    in two folds; held back in other folds by another model, or than `splits.json` says (None: there is none). And naming the run that
    began from weights which saw subjects that it holds back, or that trained on a scan under another name than it holds back.
    """
    cases = {case.case_id: case for case in dataset.cases}
    for model in trained:
        for run in model.folds.values():
            for problem in _problems(run, cases, dataset):
                raise InputError(f"{run.folder / RUN_FILE}: {problem}")
        for run, problem in _fold_problems(model, cases, splits):
            raise InputError(f"{run.folder / RUN_FILE}: {problem}")
    for other, model in combinations(trained, 2):
        _check_against(model, other, cases)


def _problems(run: FoldRun, cases: Mapping[str, Case], dataset: Dataset) -> Iterator[str]:
    """What speaks against scoring a run on whom it held back."""
    sides = {"training": run.record.training_cases, "validation": run.record.validation_cases}
    for side, case_ids in sides.items():
        for case_id in case_ids:
            case = cases.get(case_id)
            if case is None:
                yield f"{side} case {case_id} is not in {dataset.folder}; put it back, or train again"
            elif case.partition != "training" or case.label is None:
                tested = case.partition != "training"
                of = f"of the {case.partition} partition" if tested else "without a label"
                yield (
                    f"subject {case.subject} is among the {side} cases ({case_id}), but {of} of "
                    f"{dataset.folder}; test cases take no part in training or selection: {AGAIN}"
                )
    trains = {cases[case_id].subject: case_id for case_id in reversed(run.record.training_cases)}
    known = predicted_cases(run.folder / VALIDATION_FOLDER)
    for case_id in run.record.validation_cases:
        subject = cases[case_id].subject
        if subject in trains:
            yield (
                f"subject {subject} is among the training cases ({trains[subject]}) and among the validation "
                f"cases that score the model ({case_id}); its scores would be of what it has seen: {AGAIN}"
            )
        if case_id in known and not set(known[case_id].scans).isdisjoint(run.record.training_scans):
            yield (
                f"subject {subject} ({case_id}) is held back, and the run trained on the same scan "
                "under another name; its scores would be of what it has seen: train again with --overwrite, on folds made anew"
            )
    initial = run.record.initial_weights
    if initial is not None and initial.saw:
        yield (
            f"training began from {initial.file}, which was trained on {initial.saw} of the subjects that "
            f"{run.name} holds back; its scores would be of what it has seen: train again from other weights, or leave it out with -m"
        )


def _fold_problems(
    model: TrainedModel, cases: Mapping[str, Case], splits: Sequence[Split] | None
) -> Iterator[tuple[FoldRun, str]]:
    """Subjects that two folds hold back, or another one than `splits.json` says."""
    held_in: dict[str, FoldRun] = {}
    for fold, run in model.folds.items():
        subjects = _held_back(run, cases)
        for subject in sorted(subjects & held_in.keys()):
            yield (
                run,
                f"subject {subject} is held back there and in {held_in[subject].name}; were the splits edited between them? {AGAIN}",
            )
        held_in |= dict.fromkeys(subjects, run)
        if splits is None:
            continue
        number = int(fold.removeprefix("fold"))
        planned = set(splits[number]["validation"]) if number < len(splits) else set()
        for subject in sorted(planned ^ subjects):
            yield (
                run,
                f"subject {subject} is {'only' if subject in planned else 'not'} in {SPLITS_FILE} among those that {fold} holds back; "
                f"were the splits edited since {run.name} was trained? {AGAIN}",
            )


def _held_back(run: FoldRun, cases: Mapping[str, Case]) -> set[str]:
    return {cases[case_id].subject for case_id in run.record.validation_cases}


def _check_against(model: TrainedModel, other: TrainedModel, cases: Mapping[str, Case]) -> None:
    ours, theirs = (
        {subject: fold for fold, run in one.folds.items() for subject in _held_back(run, cases)}
        for one in (model, other)
    )
    for subject in sorted(ours.keys() | theirs.keys()):
        mine, its = ours.get(subject), theirs.get(subject)
        missing_here = mine is None and its in model.folds
        missing_there = its is None and mine in other.folds
        if missing_here or missing_there or (mine and its and mine != its):
            raise InputError(
                f"{model.name} and {other.name} cannot be compared: subject {subject} is held back in {mine or 'no fold'} of the one and "
                f"in {its or 'no fold'} of the other; were the splits edited between them? {AGAIN}"
            )


def one_subject_a_scan(trained: Sequence[TrainedModel], dataset: Dataset) -> tuple[Dataset, dict[str, str]]:
    """The dataset with one subject for all names of a scan, as the records of the validations know them; and those names."""
    owners = {case.case_id: case.subject for case in dataset.cases}
    known = [
        (owners[case_id], entry.scans)
        for model in trained
        for run in model.folds.values()
        for case_id, entry in predicted_cases(run.folder / VALIDATION_FOLDER).items()
        if case_id in owners
    ]
    same = same_subjects(known)
    cases = tuple(replace(case, subject=same.get(case.subject, case.subject)) for case in dataset.cases)
    return replace(dataset, cases=cases), same
