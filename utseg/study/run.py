"""A study from its runs to its tables: settle what each run is, make its data, run what is not known yet, write after each what is known.

Runs are told apart by the checksum of all that determines them; one that has finished, in this study or another, is not run again. The
executor is any `concurrent.futures.Executor`: threads that start a process each, unless the caller brings another. Nothing is drawn here.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utseg.compute.children import stop_children
from utseg.compute.pool import available_cores, run_each
from utseg.errors import InputError, Interrupted, UtsegError
from utseg.evaluate.tables import number
from utseg.files import folder_lock, remove_leftovers, require_writable, write_text
from utseg.home import Home
from utseg.study.checksums import Checksums
from utseg.study.data import DATA_FOLDER, RunData, cases_of, measured, prepare, run_data, train_settings
from utseg.study.definition import to_toml
from utseg.study.execute import INTERRUPTED, execute_job
from utseg.study.expand import PlannedRun, StudyPlan
from utseg.study.jobs import (
    ID_DIGITS,
    Job,
    JobTest,
    Outcome,
    finished_outcome,
    identity_checksum,
    read_outcome,
    run_folder,
    write_job,
    write_outcome,
)
from utseg.study.record import (
    DEFINITION_FILE,
    SEEN,
    STUDY_FILE,
    UNSEEN,
    Role,
    State,
    StudyDataset,
    StudyRecord,
    StudyRun,
    read_study,
    write_study,
)
from utseg.study.subjects import labelled
from utseg.study.tables import Tables

logger = logging.getLogger("utseg")
SHARED_OUT = 0.9
"""Of the whole study's time: the rest is for preparing the data and for the report."""


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
class SettledRun:
    """A planned run with what it is known by: checksum, folder, and where its data are."""

    planned: PlannedRun
    data: RunData
    checksum: str
    folder: Path


@dataclass(frozen=True)
class SettledStudy:
    """A study whose runs are settled. `slot_s`: seconds for each run where the study has a time. Equal runs share a folder."""

    plan: StudyPlan
    runs: tuple[SettledRun, ...]
    slot_s: float | None

    @property
    def distinct(self) -> list[SettledRun]:
        """The first of each, in order."""
        found: dict[str, SettledRun] = {}
        for run in self.runs:
            found.setdefault(run.checksum, run)
        return list(found.values())


def slot_seconds(max_time_s: float, runs: int, parallel: int) -> float:
    """Whole seconds for each of so many runs, of which `parallel` go on at once, all together in the time. Raises InputError below 1."""
    rounds = math.ceil(runs / parallel)
    slot = math.floor(SHARED_OUT * max_time_s / rounds)
    if slot < 1:
        raise InputError(
            f"--max-time: {max_time_s:g} s are less than a second for each of {runs} runs; expected more time, or fewer runs"
        )
    return float(slot)


def settle(plan: StudyPlan, request: StudyRequest, checksums: Checksums | None = None) -> SettledStudy:
    """What each run is, by the content of all files that it needs. Raises InputError where a scan is on two sides of a run.

    checksums: of files that are known already.
    """
    checksums = checksums or Checksums(request.home.preprocessed / DATA_FOLDER)
    checksums.learn(cases_of(plan))
    identities, apart = [], set()
    for run in plan.runs:
        key = (run.trained_on.name, run.trained_on.fold)
        if key not in apart:
            sides = {side: run.trained_on.of(side) for side in ("training", "validation")}
            tested = [case for cases in run.testing.values() for case in cases]
            checksums.check_apart({**sides, "testing": tested}, run.name)
            apart.add(key)
        identities.append(_identity(run, plan, checksums))
    slot_s = None
    if request.max_time_s is not None:
        count = len({identity_checksum(identity) for identity in identities})
        slot_s = _slot_on_record(plan, request) or slot_seconds(request.max_time_s, count, request.parallel)
    epochs = plan.definition.epochs if slot_s is None else None
    settled = []
    for run, identity in zip(plan.runs, identities, strict=True):
        checksum = identity_checksum({**identity, "epochs": epochs, "slot_s": slot_s})
        data = run_data(run, plan.dataset, checksums, request.home.preprocessed)
        settled.append(SettledRun(run, data, checksum, run_folder(request.home.results, checksum)))
    return SettledStudy(plan, tuple(settled), slot_s)


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


def run_study(
    study: SettledStudy,
    request: StudyRequest,
    executor: Executor | None = None,
    submit: Callable[[Sequence[Path]], None] | None = None,
) -> StudyRecord:
    """Runs what is not known yet and writes `study.json`, `cases.csv` and `results.csv` after each run. Returns the record.

    executor: prepares the data and does the runs, instead of processes of this machine. submit: takes the folders of the runs that are
    to be done, when their data are there, and has them done elsewhere; they are not waited for.
    Failed runs are in the record, each with its error; they are tried again by the next call. Raises CaseErrors for scans that cannot be
    read, before any run; Interrupted on Ctrl-C and SIGTERM, with everything saved: the same call goes on.
    """
    require_writable(request.output)
    with folder_lock(request.output):
        remove_leftovers(request.output, recursive=False)
        _check_same_study(study, request.output)
        write_text(request.output / DEFINITION_FILE, to_toml(study.plan.definition))
        progress = _Progress(study, request)
        todo = [run for run in study.distinct if finished_outcome(run.folder, run.checksum) is None]
        known = len(study.distinct) - len(todo)
        logger.info("%d runs: %d have finished, %d are to be done", len(study.distinct), known, len(todo))
        progress.write()
        try:
            ready = list(_prepared(todo, study, request, progress, executor))
            if submit is not None:
                submit([run.folder for run in ready])
                return progress.record
            with _engine(request, executor) as engine:
                _execute(ready, engine, progress)
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted after {progress.done} of {len(study.distinct)} runs, all is saved; run the same command again to go on"
            ) from None
        finally:
            progress.write()
    return progress.record


def _check_same_study(study: SettledStudy, output: Path) -> None:
    if (output / STUDY_FILE).is_file():
        name = read_study(output).name
        if name != study.plan.definition.name:
            raise InputError(
                f"{output}: the study {name!r} is there, not {study.plan.definition.name!r}; choose another folder with -o"
            )


def _prepared(
    todo: Sequence[SettledRun],
    study: SettledStudy,
    request: StudyRequest,
    progress: "_Progress",
    executor: Executor | None,
) -> Iterator[SettledRun]:
    """The runs whose data and jobs are made. Where a plan cannot be made, the runs that need it have failed."""
    if not todo:
        return
    known = measured(study.plan.dataset, request.home.preprocessed, executor, request.workers)
    made: dict[Path, UtsegError | None] = {}
    for run in todo:
        place = run.data.plan_folder
        if place not in made:
            logger.info("preparing the data of %s: %s", run.planned.trained_on.name, place)
            try:
                prepare(run.data, known, executor, request.workers)
                made[place] = None
            except UtsegError as error:
                made[place] = error
        problem = made[place]
        write_job(_job(run, study, request), run.folder)
        if problem is None:
            yield run
        else:
            line = " ".join(problem.lines()[0].split())
            write_outcome(Outcome(checksum=run.checksum, state="failed", error=line), run.folder)
            progress.ended(run)


def _job(run: SettledRun, study: SettledStudy, request: StudyRequest) -> Job:
    planned, dataset = run.planned, study.plan.dataset
    return Job(
        checksum=run.checksum,
        network=planned.network,
        planner=planned.planner,
        settings=train_settings(planned),
        seed=planned.seed,
        epochs=study.plan.definition.epochs if study.slot_s is None else None,
        slot_s=study.slot_s,
        dataset=dataset.name,
        raw=str(dataset.folder.absolute()),
        preprocessed=str(run.data.folder),
        plan_folder=str(run.data.plan_folder),
        subjects=planned.subjects,
        training_cases=tuple(case.case_id for case in planned.trained_on.of("training")),
        validation_cases=tuple(case.case_id for case in planned.trained_on.of("validation")),
        tests={
            name: JobTest(
                raw=str(study.plan.datasets[name].folder.absolute()),
                cases=tuple(case.case_id for case in cases),
            )
            for name, cases in planned.testing.items()
        },
        device=request.device,
        threads=request.threads or max(1, available_cores() // request.parallel),
    )


@contextmanager
def _engine(request: StudyRequest, executor: Executor | None) -> Iterator[Executor]:
    """The executor of the runs. Ours asks its processes to save and end when it is left early."""
    if executor is not None:
        yield executor
        return
    threads = ThreadPoolExecutor(request.parallel)
    try:
        yield threads
    except BaseException:
        threads.shutdown(wait=False, cancel_futures=True)
        stop_children()
        raise
    finally:
        threads.shutdown()


def _execute(ready: Sequence[SettledRun], engine: Executor, progress: "_Progress") -> None:
    by_folder = {str(run.folder): run for run in ready}
    outcomes = run_each(execute_job, by_folder, engine, name=lambda folder: by_folder[folder].planned.name)
    for each in outcomes:
        run = by_folder[each.item]
        if each.error is not None:
            line = " ".join(each.error.lines()[0].split())
            write_outcome(Outcome(checksum=run.checksum, state="failed", error=line), run.folder)
        if each.result == INTERRUPTED:
            logger.info("%s: was stopped; run the study again to go on", run.planned.name)
            continue
        progress.ended(run)


class _Progress:
    """What is known of all runs, on disk after each."""

    def __init__(self, study: SettledStudy, request: StudyRequest) -> None:
        self._study = study
        self._output = request.output
        self._max_time_s = request.max_time_s
        self._tables = Tables(request.output, study.plan.by)
        self.record = self._look()
        self.done = len({run.id for run in self.record.runs if run.state == "finished"})
        """Runs that had finished before, and those that have finished or failed since; equal ones are one."""

    def ended(self, run: SettledRun) -> None:
        """Writes what is known now, and says what became of the run."""
        self.write()
        self.done += 1
        entry = next(one for one in self.record.runs if one.id == run.checksum[:ID_DIGITS])
        place = f"[{self.done}/{len(self._study.distinct)}]"
        if entry.state == "failed":
            logger.warning("%s %s: failed: %s", place, entry.run, entry.error)
            return
        scores = [
            f"{kind} {number(row['dice'], 3)}"
            for kind in (SEEN, UNSEEN)
            for row in self._tables.of(entry)
            if row["tested_on"] == kind
            and row["group"] == "all"
            and row["label"] == "mean"
            and row["dice"] is not None
        ]
        logger.info("%s %s: mean Dice %s", place, entry.run, ", ".join(scores) or "undefined")

    def write(self) -> None:
        """Writes `study.json` and, once a run has finished, the tables."""
        self.record = self._look()
        write_study(self.record, self._output)
        finished = [run for run in self.record.runs if run.state == "finished"]
        for run in finished:
            self._tables.add(run)
        if finished:
            self._tables.write(finished)

    def _look(self) -> StudyRecord:
        study = self._study
        definition, plan = study.plan.definition, study.plan
        tested = definition.test.datasets or (plan.trained,)
        return StudyRecord(
            name=definition.name,
            question=definition.question,
            by=plan.by,
            definition=definition.model_dump(mode="json"),
            datasets={
                name: StudyDataset(
                    cases=len(labelled(dataset)),
                    subjects=len({case.subject for case in labelled(dataset)}),
                    role=_roles(name == plan.trained, name in tested),
                    folder=str(dataset.folder.absolute()),
                )
                for name, dataset in plan.datasets.items()
            },
            labels=dict(plan.dataset.labels),
            max_time_s=self._max_time_s,
            slot_s=study.slot_s,
            runs=tuple(entry(run, study) for run in study.runs),
        )


def _roles(train: bool, test: bool) -> tuple[Role, ...]:
    roles: dict[Role, bool] = {"train": train, "test": test}
    return tuple(role for role, has in roles.items() if has)


def entry(run: SettledRun, study: SettledStudy) -> StudyRun:
    """The run as `study.json` has it, with what has become of it so far."""
    planned, by = run.planned, study.plan.by
    outcome = finished_outcome(run.folder, run.checksum) or read_outcome(run.folder, run.checksum)
    facts = {
        key: getattr(outcome, key)
        for key in (
            "parameters",
            "gmac",
            "iterations",
            "training_seconds",
            "testing_seconds",
            "peak_memory_gb",
        )
        if outcome is not None
    }
    state: State = "waiting"
    error = None
    if outcome is not None and outcome.state == "failed":
        state, error = "failed", outcome.error
    elif outcome is not None and finished_outcome(run.folder, run.checksum):
        state = "finished"
    return StudyRun(
        run=planned.name,
        id=run.checksum[:ID_DIGITS],
        folder=str(run.folder),
        network=planned.network,
        plan=planned.planner,
        seed=planned.seed,
        fold=planned.trained_on.fold,
        dataset=study.plan.trained,
        trained_on=planned.trained_on.name,
        variant=planned.variant,
        part=planned.part,
        settings=dict(planned.settings),
        seen=tuple(
            sorted({value for case in planned.trained_on.cases if (value := case.groups.get(by, ""))})
        ),
        subjects=planned.subjects,
        state=state,
        error=error,
        **facts,
    )
