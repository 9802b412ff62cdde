"""Compute the checksum of all that determines a study's run, which names its folder, so that equal runs of any study are shared."""

import math
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utseg.device import device_name, resolve_device
from utseg.errors import ArtefactError, CaseErrors, InputError, SettingError, UtsegError
from utseg.extensions import find
from utseg.fingerprint import Fingerprint
from utseg.home import Home
from utseg.study.checksums import Checksums, code_sha256
from utseg.study.data import DATA_FOLDER, RunData, cases_of, measured, planned, run_data, train_settings
from utseg.study.expand import PlannedRun, StudyPlan
from utseg.study.jobs import identity_checksum, run_folder
from utseg.study.record import STUDY_FILE, read_study

if TYPE_CHECKING:
    from utseg.planning.plan import Plan
    from utseg.training.recipe import Recipe

NOT_TRAINED_BY = {
    "format",
    "dataset",
    "planner",
    "fingerprint_sha256",
    "memory_gb",
    "estimated_memory_gb",
    "reasons",
}
SHARED_OUT = 0.9  # of the whole study's time: the rest is for preparing the data and for the report


@dataclass(frozen=True)
class StudyRequest:
    """`output`: the study's folder. `max_time_s`: the whole study's. `parallel`: runs at once. `workers`: processes that prepare data.

    `threads`: of a run; None: its share of this machine's cores.
    """

    output: Path
    home: Home
    max_time_s: float | None = None
    parallel: int = 1
    device: str = "auto"
    workers: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class ResolvedRun:
    """A planned run with its checksum, its folder, and where its data are.

    `setup`: the recipe and plan that it trains by, with its settings; or why it cannot be done.
    """

    planned: PlannedRun
    data: RunData
    setup: "tuple[Recipe, Plan] | UtsegError"
    checksum: str
    folder: Path


@dataclass(frozen=True)
class ResolvedStudy:
    """A study with all its runs. `slot_s`: seconds for each run where the study has a time. Equal runs share a folder."""

    plan: StudyPlan
    runs: tuple[ResolvedRun, ...]
    slot_s: float | None

    @property
    def distinct(self) -> list[ResolvedRun]:
        """The first of each, in order."""
        found: dict[str, ResolvedRun] = {}
        for run in self.runs:
            found.setdefault(run.checksum, run)
        return list(found.values())

    @property
    def epochs(self) -> int | None:
        """Of each training; None: the plan's, or what fits into `slot_s`."""
        return self.plan.definition.epochs if self.slot_s is None else None


def slot_seconds(max_time_s: float, runs: int, parallel: int) -> float:
    """Whole seconds for each of so many runs, of which `parallel` go on at once, all together in the time. Raises InputError below 1."""
    slot = math.floor(SHARED_OUT * max_time_s / math.ceil(runs / parallel))
    if slot < 1:
        raise InputError(
            f"--max-time: {max_time_s:g} s are less than a second for each of {runs} runs; expected more time, or fewer runs"
        )
    return float(slot)


def resolve(
    plan: StudyPlan,
    request: StudyRequest,
    checksums: Checksums | None = None,
    executor: Executor | None = None,
    *,
    keep: bool = True,
) -> ResolvedStudy:
    """What each run is, by the content of all files that it needs and of the code that trains it.

    checksums: of files that are known already. executor: measures cases. keep: what is measured is written down.
    Raises InputError where a scan is on two sides of a run, CaseErrors for scans that cannot be read.
    """
    checksums = checksums or Checksums(request.home.preprocessed / DATA_FOLDER)
    checksums.learn(cases_of(plan))
    for run in {(run.trained_on.name, run.trained_on.fold): run for run in reversed(plan.runs)}.values():
        sides = {side: run.trained_on.of(side) for side in ("training", "validation")}
        tested = [case for cases in run.testing.values() for case in cases]
        checksums.check_sides({**sides, "testing": tested}, run.name)

    @cache
    def known() -> Fingerprint:
        return measured(plan.dataset, request.home.preprocessed, executor, request.workers, keep=keep)

    plans: dict[Path, Plan | UtsegError] = {}
    found = []
    for run in plan.runs:
        data = run_data(run, plan.dataset, checksums, request.home.preprocessed)
        if data.plan_folder not in plans:
            try:
                plans[data.plan_folder] = planned(data, known)
            except CaseErrors:
                raise
            except (InputError, ArtefactError) as error:
                # A failing disk is not caught: without its plan the run would be known by another checksum.
                plans[data.plan_folder] = error
        setup = _setup(run, plans[data.plan_folder])
        found.append((run, data, setup, _identity(run, plan, setup, checksums)))
    slot_s = None
    if request.max_time_s is not None:
        count = len({identity_checksum(identity) for *_, identity in found})
        slot_s = _slot_on_record(plan, request) or slot_seconds(request.max_time_s, count, request.parallel)
    length = _length(plan, request, slot_s)
    runs = []
    for run, data, setup, identity in found:
        checksum = identity_checksum(identity | length)
        runs.append(ResolvedRun(run, data, setup, checksum, run_folder(request.home.results, checksum)))
    return ResolvedStudy(plan, tuple(runs), slot_s)


def _setup(run: PlannedRun, plan: "Plan | UtsegError") -> "tuple[Recipe, Plan] | UtsegError":
    from utseg.training.recipe import apply_settings, find_recipe

    if isinstance(plan, UtsegError):
        return plan
    try:
        return apply_settings(find_recipe(run.network), plan, train_settings(run))
    except SettingError as error:
        return error


def _length(plan: StudyPlan, request: StudyRequest, slot_s: float | None) -> dict[str, Any]:
    """What of a run's identity says how long it trains: with a time, the device too, whose speed decides."""
    if slot_s is None:
        return {"epochs": plan.definition.epochs}
    return {"slot_s": slot_s, "device": device_name(resolve_device(request.device))}


def _slot_on_record(plan: StudyPlan, request: StudyRequest) -> float | None:
    """The seconds that each run of this very study was given when it began, however many are at work today."""
    if not (request.output / STUDY_FILE).is_file():
        return None
    before = read_study(request.output)
    same = before.definition == plan.definition.model_dump(mode="json")
    return before.slot_s if same and before.max_time_s == request.max_time_s else None


def _identity(
    run: PlannedRun, plan: StudyPlan, setup: "tuple[Recipe, Plan] | UtsegError", checksums: Checksums
) -> dict[str, Any]:
    from utseg.training.recipe import find_recipe, trainer_of

    if isinstance(setup, UtsegError):
        trained_by: dict[str, Any] = {"settings": dict(run.settings)}
    else:
        recipe, run_plan = setup
        trained_by = {
            "recipe": recipe.model_dump(mode="json"),
            "plan": run_plan.model_dump(mode="json", exclude=NOT_TRAINED_BY),
        }
    return trained_by | {
        "dataset": plan.trained,
        "labels": dict(plan.dataset.labels),
        "training": checksums.identity(run.trained_on.of("training")),
        "validation": checksums.identity(run.trained_on.of("validation")),
        "testing": {name: checksums.identity(cases) for name, cases in run.testing.items()},
        "network": run.network,
        "planner": run.plan,
        "seed": run.seed,
        "versions": {package: version(package) for package in ("utseg", "torch")},
        "code": {
            "planner": code_sha256(find("planners", run.planner)),
            "recipe": code_sha256(find("trainers", trainer_of(run.network))),
            "network": code_sha256(find("networks", find_recipe(run.network).network_name)),
        },
    }
