"""What a run trains from: fingerprint, plan, one fold and slices of its own subjects alone, in `preprocessed/study_data/ID/`.

The folder is named after the subjects and the content of their scans, so that runs and studies share it. A case is measured once: what is
known of it from the whole dataset is taken over, case by case; what is concluded (aggregates, plan) is from the run's own subjects.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from utseg.case import Case, Dataset
from utseg.compute.pool import process_pool
from utseg.extensions import find
from utseg.files import sha256_json
from utseg.fingerprint import Fingerprint, make_fingerprint, write_fingerprint
from utseg.fingerprint.make import summarise
from utseg.fingerprint.model import FINGERPRINT_FILE, previous_fingerprint
from utseg.fingerprint.same_scan import in_words
from utseg.home import PLAN_FILE, plan_folder_name, split_plan_name
from utseg.planning.plan import PREPROCESSING_PREFIX, Plan, read_plan
from utseg.preprocess.dataset import PlanRequest, prepare_dataset
from utseg.preprocess.splits import SPLITS_FILE, Split, write_splits
from utseg.study.checksums import Checksums, code_sha256
from utseg.study.definition import Definition
from utseg.study.expand import PlannedRun, StudyPlan, expand
from utseg.trainer import planned_step

logger = logging.getLogger("utseg")
DATA_FOLDER = "study_data"
DATA_VERSION = 1


@dataclass(frozen=True)
class RunData:
    """Where a run's data are or will be. `plan_name`: as auto or auto_2.5d. `own`: the dataset with the run's cases only."""

    folder: Path
    plan_name: str
    own: Dataset
    fold: Split
    plan_settings: Mapping[str, Any]

    @property
    def plan_folder(self) -> Path:
        """The folder of the run's plan and slices."""
        return self.folder / plan_folder_name(*split_plan_name(self.plan_name))

    @property
    def request(self) -> PlanRequest:
        """What is asked of planning."""
        planner, configuration = split_plan_name(self.plan_name)
        return PlanRequest(planner, configuration, settings=self.plan_settings, step_kind=planned_step)


def run_data(run: PlannedRun, dataset: Dataset, checksums: Checksums, root: Path) -> RunData:
    """Where the data of a run belong, below `preprocessed`."""
    plan_settings = {
        key: value for key, value in run.settings.items() if key.startswith(PREPROCESSING_PREFIX)
    }
    sides = {side: checksums.identity(run.trained_on.of(side)) for side in ("training", "validation")}
    identity = {
        "version": DATA_VERSION,
        "dataset": dataset.name,
        "labels": dict(dataset.labels),
        "channels": list(dataset.channel_names),
        "cases": sides,
        "plan": plan_settings,
        "planner": code_sha256(find("planners", run.planner)),
    }
    folder = root / DATA_FOLDER / sha256_json(identity)[:12]
    # In one order, however the set was made: fingerprint and plan are those of the subjects.
    cases = tuple(sorted(run.trained_on.cases, key=lambda case: case.case_id))
    own = replace(dataset, cases=cases, warnings=())
    fold: Split = {
        "training": list(run.trained_on.training),
        "validation": list(run.trained_on.validation),
    }
    return RunData(folder, run.plan, own, fold, plan_settings)


def train_settings(run: PlannedRun) -> dict[str, Any]:
    """The settings that are training's, and not the slices'."""
    return {key: value for key, value in run.settings.items() if not key.startswith(PREPROCESSING_PREFIX)}


def measured(
    dataset: Dataset,
    root: Path,
    executor: Executor | None = None,
    workers: int | None = None,
    *,
    keep: bool = True,
) -> Fingerprint:
    """All labelled training cases of a dataset, measured; those that were before are not again. `root` is `preprocessed`."""
    file = root / DATA_FOLDER / f"{dataset.name}.{FINGERPRINT_FILE}"
    previous = previous_fingerprint(file) or previous_fingerprint(root / dataset.name / FINGERPRINT_FILE)
    with nullcontext(executor) if executor else process_pool(workers) as pool:
        fingerprint = make_fingerprint(dataset, pool, workers=workers, previous=previous)
    if keep and fingerprint != previous:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_fingerprint(fingerprint, file)
    return fingerprint


def prepare(
    data: RunData, known: Fingerprint, executor: Executor | None = None, workers: int | None = None
) -> Plan:
    """Makes plan and slices of a run's subjects, or keeps them where they are whole. `known`: measures of its cases, and of others."""
    data.folder.mkdir(parents=True, exist_ok=True)
    if not (data.folder / FINGERPRINT_FILE).is_file():
        write_fingerprint(own_fingerprint(data.own, known), data.folder / FINGERPRINT_FILE)
    if not (data.folder / SPLITS_FILE).is_file():
        write_splits([data.fold], data.folder)
    return prepare_dataset(data.own, data.folder, data.request, workers, executor).plan


def planned(data: RunData, known: Callable[[], Fingerprint]) -> Plan:
    """The plan of a run's data: as it is on disk, where a person may have changed it, else as `prepare` will make it."""
    if (data.plan_folder / PLAN_FILE).is_file():
        return read_plan(data.plan_folder)
    return data.request.new_plan(own_fingerprint(data.own, known()))


def own_fingerprint(own: Dataset, known: Fingerprint) -> Fingerprint:
    """The fingerprint of a part of a dataset, from the measures of the whole."""
    by_case = {case.case_id: case for case in known.cases}
    return summarise(own, tuple(by_case[case.case_id] for case in own.cases))


def expand_by_scans(
    definition: Definition, datasets: Mapping[str, Dataset], trained: str, where: str, checksums: Checksums
) -> StudyPlan:
    """All runs of a study (`expand`); subjects who share a scan are on one side of each. Their names are said once."""
    plan = expand(definition, datasets, trained, where)
    checksums.learn(cases_of(plan))
    same = {}
    for name in datasets:
        used = {
            case.case_id: case
            for run in plan.runs
            for case in (*(run.trained_on.cases if name == trained else ()), *run.testing.get(name, ()))
        }
        if same_here := checksums.same(used.values()):
            same[name] = same_here
            logger.warning(
                "%s: the same scan is there under several names, which count as one subject: %s",
                name,
                in_words(same_here),
            )
    return expand(definition, datasets, trained, where, same) if same else plan


def cases_of(study: StudyPlan) -> list[Case]:
    """Every case that a run trains, validates or is tested on, once each."""
    found = {
        (name, case.case_id): case
        for run in study.runs
        for name, cases in ((study.trained, run.trained_on.cases), *run.testing.items())
        for case in cases
    }
    return list(found.values())
