"""Make fingerprint, plan, splits and slices of a raw dataset, each reused where it is there and still true.

The gate and the planner run before anything is written. What a person edited (`plan.json`, `splits.json`) is never overwritten silently.
Nothing is measured, decided or resampled here.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from utseg.case import Dataset
from utseg.compute.pool import process_pool
from utseg.errors import InputError, UsageError, UtsegError
from utseg.extensions import find, names
from utseg.files import folder_lock, remove_leftovers, require_writable, write_text
from utseg.fingerprint import Fingerprint, make_fingerprint, write_fingerprint
from utseg.fingerprint.model import FINGERPRINT_FILE, previous_fingerprint
from utseg.fingerprint.same_scan import same_scans
from utseg.home import DEFAULT_CONFIGURATION, DEFAULT_PLANNER, PLAN_FILE, Configuration, plan_folder_name
from utseg.planning.like import Source, plan_like
from utseg.planning.memory import StepKind, training_memory
from utseg.planning.override import override
from utseg.planning.plan import Plan, read_plan, write_plan
from utseg.planning.target import (
    AS_BY_DEFAULT,
    DEFAULT_MEMORY_GB,
    DEFAULT_NETWORK,
    Target,
    recorded_memory,
)
from utseg.planning.task import NetworkTask, planned_task
from utseg.preprocess.run import Counts, preprocess_dataset
from utseg.preprocess.splits import (
    NNUNETS_FILE,
    SPLITS_FILE,
    Split,
    cases_of,
    check_same_scans,
    check_splits,
    held_back_twice,
    label_gaps,
    left_out,
    make_splits,
    read_splits,
    splits_of_nnunet,
    write_splits,
)

logger = logging.getLogger("utseg")
# With fewer cases, reading them takes less than the warming up.
WARM_UP_FROM_CASES = 24


@dataclass(frozen=True)
class PlanRequest:
    """What is asked of planning. `settings` are plan values by dotted key, put on top. `replan`: do not keep the plan that is there.

    `memory_gb`, `network_name`: None where nobody asked for one; a new plan is then made for the default.
    `step_kind`: how the network of a name is trained; asked when memory is counted.
    `like`: a model's plan that the new one keeps to; `planner` is the new one's name then.
    """

    planner: str = DEFAULT_PLANNER
    configuration: Configuration = DEFAULT_CONFIGURATION
    memory_gb: float | None = None
    network_name: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    replan: bool = False
    step_kind: Callable[[str], StepKind] = lambda _: AS_BY_DEFAULT
    like: Source | None = None

    @property
    def folder_name(self) -> str:
        """Name of the plan's folder."""
        return plan_folder_name(self.planner, self.configuration)

    def new_plan(self, fingerprint: Fingerprint) -> Plan:
        """Has the planner decide, or keeps to another plan, and puts the settings on top."""
        if self.like:
            kind = self.step_kind(self.like.plan.network_name)
            return self.with_settings(plan_like(self.like, fingerprint, self.planner, kind))
        network_name = self.network_name or DEFAULT_NETWORK
        target = Target(
            self.memory_gb or DEFAULT_MEMORY_GB,
            self.configuration,
            network_name,
            self.step_kind(network_name),
        )
        plan: Plan = find("planners", self.planner)(fingerprint, target)
        return self.with_settings(plan)

    def with_settings(self, plan: Plan) -> Plan:
        """The settings on top of a plan; reasons change with values only, and the estimated memory with what it was counted on."""
        changed = override(plan, self.settings)
        if changed.model_copy(update={"reasons": plan.reasons}) == plan:
            return plan
        task = planned_task(changed)
        if "estimated_memory_gb" in self.settings or task == planned_task(plan):
            return changed
        kind = self.step_kind(plan.network_name)
        total, reason = recorded_memory(training_memory(task, kind), plan.network_name, kind)
        reasons = {**changed.reasons, "estimated_memory_gb": f"{reason}; with the values set by the user"}
        return changed.model_copy(update={"estimated_memory_gb": total, "reasons": reasons})


@dataclass(frozen=True)
class Prepared:
    """What training needs is there now: these, and the slices in `plan_folder`, unless only the plan was wanted."""

    fingerprint: Fingerprint
    plan: Plan
    plan_folder: Path
    splits: list[Split]
    counts: Counts


def prepare_dataset(
    dataset: Dataset,
    folder: Path,
    request: PlanRequest,
    workers: int | None = None,
    executor: Executor | None = None,
    *,
    plan_only: bool = False,
) -> Prepared:
    """Fingerprint, plan, splits and, unless `plan_only`, slices of a dataset, in `folder`, which is `preprocessed/NAME`.

    Cases are read and made by the `executor`, else by a pool of `workers` processes, else by one process a core.

    Raises CaseErrors for all bad cases at once before anything is written; InputError for a folder that cannot be written, a wrong plan
    or splits file; UtsegError where another run works in the folder or the disk fails. The same call again goes on with what is whole.
    """
    check_planner(request, folder)  # before anything is there
    require_writable(folder)
    with folder_lock(folder), nullcontext(executor) if executor else process_pool(workers) as pool:
        remove_leftovers(folder)
        plan_folder = folder / request.folder_name
        fingerprint, plan = _look_and_plan(dataset, folder, request, pool, workers)
        splits = _splits(dataset, fingerprint, folder)
        _write_changed(fingerprint, plan, folder, plan_folder)
        counts = (
            Counts(0, 0, 0)
            if plan_only
            else preprocess_dataset(dataset, plan, plan_folder, fingerprint, pool, workers)
        )
    return Prepared(fingerprint, plan, plan_folder, splits, counts)


def check_planner(request: PlanRequest, folder: Path) -> None:
    """Raises UsageError where nobody makes the plan that is asked for, or where it is there and like another model than is named now."""
    file = folder / request.folder_name / PLAN_FILE
    if request.like is None and request.planner in names("planners"):
        return
    there = read_plan(file.parent).like if file.is_file() else None
    if request.like is None:
        if there is None:
            find("planners", request.planner)
        elif request.replan:
            raise UsageError(f"{file}: was made like {there.name}; to plan it anew, name a model with --like")
    elif file.is_file() and there != request.like.run and not request.replan:
        was = there.name if there else "no model"
        changed = ", whose plan was another then" if was == request.like.run.name else ""
        raise UsageError(
            f"{file}: was made like {was}{changed}, --like names {request.like.run.name}; --replan plans it anew, -pl NAME makes "
            "another plan"
        )


def look_at(
    dataset: Dataset, folder: Path, workers: int | None = None, executor: Executor | None = None
) -> Fingerprint:
    """The fingerprint of a dataset, written into `folder`, which is `preprocessed/NAME`. Raises as `prepare_dataset`."""
    require_writable(folder)
    with folder_lock(folder), nullcontext(executor) if executor else process_pool(workers) as pool:
        previous = previous_fingerprint(folder / FINGERPRINT_FILE)
        fingerprint = make_fingerprint(dataset, pool, workers=workers, previous=previous)
        if fingerprint != previous:
            write_fingerprint(fingerprint, folder / FINGERPRINT_FILE)
    return fingerprint


def preview_plan(
    dataset: Dataset,
    folder: Path,
    request: PlanRequest,
    workers: int | None = None,
    executor: Executor | None = None,
) -> tuple[Fingerprint, Plan]:
    """The fingerprint and plan that `prepare_dataset` would work with. Nothing is written."""
    check_planner(request, folder)
    with nullcontext(executor) if executor else process_pool(workers) as pool:
        return _look_and_plan(dataset, folder, request, pool, workers)


def _look_and_plan(
    dataset: Dataset, folder: Path, request: PlanRequest, executor: Executor, workers: int | None
) -> tuple[Fingerprint, Plan]:
    plan_file = folder / request.folder_name / PLAN_FILE
    existing = read_plan(plan_file.parent) if plan_file.is_file() and not request.replan else None
    previous = previous_fingerprint(folder / FINGERPRINT_FILE)
    with ThreadPoolExecutor(1) as thread:
        if existing is None and previous is None and len(dataset.training_cases()) >= WARM_UP_FROM_CASES:
            thread.submit(_warm_up)
        fingerprint = make_fingerprint(dataset, executor, workers=workers, previous=previous)
    if existing is not None and existing.fingerprint_sha256 == fingerprint.sha256:
        _require_same_data(existing, fingerprint, plan_file)
        logger.info("keeping %s, made from the same data (--replan makes it anew)", plan_file)
        for option, asked, there in (
            ("--memory-gb", request.memory_gb, existing.memory_gb),
            ("-m", request.network_name, existing.network_name),
        ):
            if asked not in (None, there):
                logger.warning(
                    "%s %s has no effect: %s is kept, which was made for %s; --replan makes it anew",
                    option,
                    asked,
                    plan_file,
                    there,
                )
        return fingerprint, request.with_settings(existing)
    if existing is not None:
        logger.info("planning anew: the data changed since %s was made", plan_file)
        if request.like is None and existing.like is not None:
            request = replace(request, like=Source.again(existing))
    return fingerprint, request.new_plan(fingerprint)


def _warm_up() -> None:
    """Planners count memory with torch. What it imports for that takes seconds, and may as well pass while the workers read.

    An error here would meet the planner too, and is left to it.
    """
    training_memory(NetworkTask(DEFAULT_NETWORK, 1, 2, (16, 16), 1, {"base_channels": 4}), AS_BY_DEFAULT)


def _require_same_data(plan: Plan, fingerprint: Fingerprint, plan_file: Path) -> None:
    """A plan that was edited may not contradict the data in what is no choice."""
    for key, planned, found in (
        ("labels", plan.preprocessing.labels, fingerprint.labels),
        ("channel_names", plan.preprocessing.channel_names, fingerprint.channel_names),
        ("dataset", plan.dataset, fingerprint.dataset),
    ):
        if planned != found:
            raise InputError(
                f"{plan_file}: {key} is {planned}, the dataset has {found}; fix it, or plan anew with --replan"
            )


def _write_changed(fingerprint: Fingerprint, plan: Plan, folder: Path, plan_folder: Path) -> None:
    """Writes what differs from what is there. The plan that is replaced stays beside it, and so do those replaced before."""
    if previous_fingerprint(folder / FINGERPRINT_FILE) != fingerprint:
        write_fingerprint(fingerprint, folder / FINGERPRINT_FILE)
    file = plan_folder / PLAN_FILE
    plan_folder.mkdir(exist_ok=True)
    if file.is_file():
        if _is_plan(plan, plan_folder):
            return
        names = (plan_folder / f"plan_previous_{number}.json" for number in count(1))
        kept = next(name for name in names if not name.exists())
        write_text(kept, file.read_text(encoding="utf-8", errors="replace"))
        logger.info("the plan before is kept in %s", kept)
    write_plan(plan, plan_folder)


def _is_plan(plan: Plan, plan_folder: Path) -> bool:
    try:
        return read_plan(plan_folder) == plan
    except UtsegError:
        return False


def _splits(dataset: Dataset, fingerprint: Fingerprint, folder: Path) -> list[Split]:
    """The splits that are there, checked against the cases; made where there are none. What a fold lacks is a warning."""
    splits = _kept_or_made_splits(dataset, fingerprint, folder)
    present = {case.case_id: list(case.labels) for case in fingerprint.cases}
    folds = {f"fold{number}": cases_of(fingerprint.cases, split) for number, split in enumerate(splits)}
    labels = [name for name, cases in fingerprint.overall.label_cases.items() if cases]
    lines = (*held_back_twice(splits), *left_out(folds, fingerprint.cases))
    for line in (*lines, *label_gaps(labels, folds, present)):
        logger.warning("%s", line)
    return splits


def _kept_or_made_splits(dataset: Dataset, fingerprint: Fingerprint, folder: Path) -> list[Split]:
    cases, same = dataset.training_cases(), same_scans(fingerprint.cases)
    # Without folds, of a single subject, there is nothing to keep: there may be more subjects now.
    if not (folder / SPLITS_FILE).is_file() or not read_splits(folder):
        given = next(
            (file for place in (folder, dataset.folder) if (file := place / NNUNETS_FILE).is_file()), None
        )
        splits = splits_of_nnunet(given, cases) if given else make_splits(cases, same=same)
        write_splits(splits, folder)
        if given:
            logger.info("folds are those of %s", given)
            check_same_scans(splits, same, folder)
        if not splits:
            logger.warning(
                "%s: a single subject cannot be split into training and validation; train on: all",
                dataset.name,
            )
        return splits
    splits = read_splits(folder)
    check_splits(splits, cases, folder)
    check_same_scans(splits, same, folder)
    return splits
