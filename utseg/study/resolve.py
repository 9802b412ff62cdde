"""What each run of a study is: a checksum of all that determines it, which names its folder. Equal runs of any study are one."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utseg.errors import InputError
from utseg.home import Home
from utseg.study.checksums import Checksums
from utseg.study.data import DATA_FOLDER, RunData, cases_of, run_data
from utseg.study.expand import PlannedRun, StudyPlan
from utseg.study.jobs import identity_checksum, run_folder
from utseg.study.record import STUDY_FILE, read_study

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
    """A planned run with its checksum, its folder, and where its data are."""

    planned: PlannedRun
    data: RunData
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


def resolve(plan: StudyPlan, request: StudyRequest, checksums: Checksums | None = None) -> ResolvedStudy:
    """What each run is, by the content of all files that it needs. Raises InputError where a scan is on two sides of a run.

    checksums: of files that are known already.
    """
    checksums = checksums or Checksums(request.home.preprocessed / DATA_FOLDER)
    checksums.learn(cases_of(plan))
    for run in {(run.trained_on.name, run.trained_on.fold): run for run in reversed(plan.runs)}.values():
        sides = {side: run.trained_on.of(side) for side in ("training", "validation")}
        tested = [case for cases in run.testing.values() for case in cases]
        checksums.check_apart({**sides, "testing": tested}, run.name)
    identities = [_identity(run, plan, checksums) for run in plan.runs]
    slot_s = None
    if request.max_time_s is not None:
        count = len({identity_checksum(identity) for identity in identities})
        slot_s = _slot_on_record(plan, request) or slot_seconds(request.max_time_s, count, request.parallel)
    epochs = plan.definition.epochs if slot_s is None else None
    runs = []
    for run, identity in zip(plan.runs, identities, strict=True):
        checksum = identity_checksum({**identity, "epochs": epochs, "slot_s": slot_s})
        data = run_data(run, plan.dataset, checksums, request.home.preprocessed)
        runs.append(ResolvedRun(run, data, checksum, run_folder(request.home.results, checksum)))
    return ResolvedStudy(plan, tuple(runs), slot_s)


def _slot_on_record(plan: StudyPlan, request: StudyRequest) -> float | None:
    """The seconds that each run of this very study was given when it began, however many are at work today."""
    if not (request.output / STUDY_FILE).is_file():
        return None
    before = read_study(request.output)
    same = before.definition == plan.definition.model_dump(mode="json")
    return before.slot_s if same and before.max_time_s == request.max_time_s else None


def _identity(run: PlannedRun, plan: StudyPlan, checksums: Checksums) -> dict[str, Any]:
    return {
        "dataset": plan.trained,
        "labels": dict(plan.dataset.labels),
        "training": checksums.identity(run.trained_on.of("training")),
        "validation": checksums.identity(run.trained_on.of("validation")),
        "testing": {name: checksums.identity(cases) for name, cases in run.testing.items()},
        "network": run.network,
        "planner": run.planner,
        "settings": dict(run.settings),
        "seed": run.seed,
    }
