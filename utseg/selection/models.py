"""The trained models of a dataset that can be compared: networks × plans with finished cross-validation folds, and whom they held back.

Only records and checksums are read here. Whether the folds are honest is checked elsewhere (`leakage.py`).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from utseg.case import Case, Dataset
from utseg.device import Precision
from utseg.errors import InputError, listing
from utseg.files import sha256
from utseg.home import check_name, is_fold, plan_folder_name, split_plan_name
from utseg.label_map import Labels
from utseg.labels import match_network_labels
from utseg.planning.memory import forward_gmac
from utseg.planning.task import planned_task
from utseg.predict.record import read_record
from utseg.training.differences import unlike_folds
from utseg.training.record import (
    RUN_FILE,
    VALIDATION_FOLDER,
    WEIGHTS_FILE,
    RunRecord,
    is_finished,
    read_run,
)

logger = logging.getLogger("utseg")
FIELD_MM = 320.0
DEFAULT_TTA_SUBJECTS = 20


@dataclass(frozen=True)
class SelectionRequest:
    """`raw`, `preprocessed` and `results` are the dataset's folders. `planners`, `models`: these only; all where empty.

    `pairs`: whether pairs of models are tried too. `tta_subjects`: on how many at most test-time augmentation is measured.
    `options`: words that `utseg_predict` needs to find the dataset.
    """

    dataset: str
    raw: Path
    preprocessed: Path
    results: Path
    planners: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    pairs: bool = True
    tta_subjects: int = DEFAULT_TTA_SUBJECTS
    device: str = "auto"
    workers: int | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoldRun:
    """One finished fold: its folder, its record, and the SHA-256 of its weights' file."""

    folder: Path
    record: RunRecord
    weights_sha256: str

    @property
    def name(self) -> str:
        """PLAN_2d/MODEL/FOLD, below `results/NAME`."""
        return "/".join(self.folder.parts[-3:])

    @cached_property
    def precision(self) -> Precision:
        """What its validation computed in, as what is compared with that has to. float32 where that is not on record."""
        record = read_record(self.folder / VALIDATION_FOLDER)
        return next(iter(record.precisions), "float32") if record else "float32"

    @property
    def gmac(self) -> float:
        """10⁹ multiply-accumulates for a slice of 320 × 320 mm, all mirrorings included, overlap of windows not.

        Plans of other spacings and patches are so compared on the same field of view.
        """
        plan = self.record.plan
        height, width = (
            size * mm for size, mm in zip(plan.patch_size, plan.preprocessing.spacing_yx_mm, strict=True)
        )
        views = plan.augmentation.mirrored_views
        return forward_gmac(planned_task(plan)) * (FIELD_MM**2 / (height * width)) * views


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network trained from a plan, called PLAN_2d/MODEL, and its finished folds by name."""

    name: str
    folds: Mapping[str, FoldRun]

    def held_back(self) -> dict[str, str]:
        """The fold that held each case back, by case id."""
        return {case_id: fold for fold, run in self.folds.items() for case_id in run.record.validation_cases}


@dataclass(frozen=True)
class Comparable:
    """What all models are compared on: cases by the fold that held them back, and the subjects that some model lacks, by model.

    `labels`: those of the references.
    """

    cases: Mapping[str, tuple[Case, ...]]
    lacking: Mapping[str, tuple[str, ...]]
    labels: Labels

    @property
    def all_cases(self) -> tuple[Case, ...]:
        """The cases of all folds, fold after fold."""
        return tuple(case for cases in self.cases.values() for case in cases)


def find_models(
    dataset: Path, planners: Sequence[str] = (), models: Sequence[str] = ()
) -> tuple[TrainedModel, ...]:
    """The models below `results/NAME` that have finished folds, sorted by name; of some plans or networks only where those are named.

    Folds that have not finished are left out with a warning. Raises InputError where nothing is left, where something named is not there,
    and where labels or channels of two models differ.
    """
    plans = [plan_folder_name(*split_plan_name(check_name(each, "plan"))) for each in planners]
    folders = [
        file.parent
        for file in sorted(dataset.glob(f"*/*/fold*/{RUN_FILE}"))
        if not file.parts[-4].startswith(".") and is_fold(file.parts[-2])
    ]
    finished = {folder for folder in folders if is_finished(folder)}
    found: dict[str, dict[str, FoldRun]] = {}
    for folder in folders:
        plan, model, fold = folder.parts[-3:]
        if (plans and plan not in plans) or (models and model not in models):
            continue
        if folder in finished:
            run = FoldRun(folder, read_run(folder), sha256(folder / WEIGHTS_FILE))
            found.setdefault(f"{plan}/{model}", {})[fold] = run
        else:
            logger.warning("%s: left out, its training has not finished", folder)
    trained = tuple(TrainedModel(name, folds) for name, folds in sorted(found.items()))
    for part, what, wanted in ((0, "plan", plans), (1, "model", models)):
        missing = [name for name in wanted if name not in {one.name.split("/")[part] for one in trained}]
        if missing:
            there = ", ".join(sorted({folder.parts[part - 3] for folder in finished}))
            raise InputError(
                f"{dataset}: no {what} {', '.join(missing)} with a finished cross-validation fold; there are: {there or 'none'}"
            )
    if not trained:
        raise InputError(
            f"{dataset}: no model with a finished cross-validation fold is there; run utseg_train 2d all-folds first"
        )
    _require_same_task(trained)
    for one in trained:
        for fold, words in unlike_folds([run.record for run in one.folds.values()]).items():
            logger.warning("%s/%s: %s: train all its folds alike with --overwrite", one.name, fold, words)
    return trained


def _require_same_task(trained: Sequence[TrainedModel]) -> None:
    runs = [run for model in trained for run in model.folds.values()]
    for run in runs[1:]:
        ours, theirs = runs[0].record.plan.preprocessing, run.record.plan.preprocessing
        match_network_labels(ours.labels, theirs.labels, we=runs[0].name, they=run.name)
        if ours.channel_names != theirs.channel_names:
            raise InputError(
                f"{run.name} and {runs[0].name} cannot be compared: channel_names are {theirs.channel_names} and {ours.channel_names}; "
                "choose with -m and -pl"
            )


def comparable_cases(trained: Sequence[TrainedModel], dataset: Dataset) -> Comparable:
    """The out-of-fold cases that all models have. Raises InputError where there is none.

    The folds have been checked: two models that held the same subject back did so in the same fold.
    """
    by_id = {case.case_id: case for case in dataset.cases}
    held_back = [model.held_back() for model in trained]
    everything = {case_id: fold for held in held_back for case_id, fold in held.items()}
    common = [case_id for case_id in sorted(everything) if all(case_id in held for held in held_back)]
    lacking = {
        model.name: tuple(sorted({by_id[case_id].subject for case_id in everything if case_id not in held}))
        for model, held in zip(trained, held_back, strict=True)
    }
    lacking = {name: subjects for name, subjects in lacking.items() if subjects}
    if not common:
        said = "; ".join(f"{name} lacks {listing(list(subjects))}" for name, subjects in lacking.items())
        raise InputError(
            f"no subject was held back by all of {', '.join(model.name for model in trained)}: {said or 'none was held back at all'}; "
            "train the same folds of each, or choose with -m and -pl"
        )
    cases: dict[str, list[Case]] = {}
    for case_id in common:
        cases.setdefault(everything[case_id], []).append(by_id[case_id])
    return Comparable({fold: tuple(cases[fold]) for fold in sorted(cases)}, lacking, dataset.labels)
