"""A study from its runs to its tables: make each run's data, do the runs that are not known yet, write after each what is known.

The executor of the runs is any `concurrent.futures.Executor`: threads that start a process each, unless the caller brings another.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from utseg.compute.children import stop_children
from utseg.compute.pool import available_cores, run_each
from utseg.errors import FolderBusy, InputError, Interrupted, UtsegError
from utseg.evaluate.tables import number
from utseg.files import folder_lock, remove_leftovers, require_writable, write_text
from utseg.study.data import measured, prepare, train_settings
from utseg.study.definition import to_toml
from utseg.study.jobs import (
    ID_DIGITS,
    LOG_FILE,
    Job,
    JobTest,
    RunOutcome,
    finished_outcome,
    read_outcome,
    write_job,
    write_outcome,
)
from utseg.study.record import (
    ALL,
    DEFINITION_FILE,
    MEAN_LABEL,
    SEEN,
    STUDY_FILE,
    UNSEEN,
    Role,
    StudyDataset,
    StudyRecord,
    StudyRun,
    read_study,
    write_study,
)
from utseg.study.resolve import ResolvedRun, ResolvedStudy, StudyRequest
from utseg.study.subjects import labelled
from utseg.study.tables import Tables
from utseg.study.walk import execute_job

logger = logging.getLogger("utseg")


def run_study(study: ResolvedStudy, request: StudyRequest, executor: Executor | None = None) -> StudyRecord:
    """Runs what is not known yet and writes `study.json`, `cases.csv` and `results.csv` after each run. Returns the record.

    executor: prepares the data and does the runs, instead of processes of this machine.
    Failed runs are in the record, each with its error; they are tried again by the next call. Raises CaseErrors for scans that cannot be
    read, before any run; Interrupted on Ctrl-C and SIGTERM, with everything saved: the same call goes on.
    """
    require_writable(request.output)
    with folder_lock(request.output):
        remove_leftovers(request.output, recursive=False)
        name = study.plan.definition.name
        if (request.output / STUDY_FILE).is_file() and (there := read_study(request.output).name) != name:
            raise InputError(
                f"{request.output}: the study {there!r} is there, not {name!r}; choose another folder with -o"
            )
        write_text(request.output / DEFINITION_FILE, to_toml(study.plan.definition))
        running = _Running(study, request, executor)
        todo = [run for run in study.distinct if finished_outcome(run.folder, run.checksum) is None]
        known = len(study.distinct) - len(todo)
        logger.info("%d runs: %d have finished, %d are to be done", len(study.distinct), known, len(todo))
        running.write()
        try:
            ready = list(running.prepared(todo))
            running.execute(ready)
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted after {running.done} of {len(study.distinct)} runs, all is saved; run the same command again to go on"
            ) from None
        finally:
            running.write()
    return running.record


class _Running:
    """A study that is running. `done`: distinct runs that had finished before, or have finished or failed since."""

    def __init__(self, study: ResolvedStudy, request: StudyRequest, executor: Executor | None) -> None:
        self._study, self._request, self._executor = study, request, executor
        cases = {
            (name, case.case_id): case
            for name, dataset in study.plan.datasets.items()
            for case in dataset.cases
        }
        self._tables = Tables(request.output, study.plan.by, cases)
        self.record = study_record(study, request)
        self.done = len({run.id for run in self.record.runs if run.state == "finished"})

    def write(self) -> None:
        """Writes `study.json` and, once a run has finished, the tables."""
        self.record = study_record(self._study, self._request)
        write_study(self.record, self._request.output)
        if finished := [run for run in self.record.runs if run.state == "finished"]:
            self._tables.write(finished)

    def prepared(self, todo: Sequence[ResolvedRun]) -> Iterator[ResolvedRun]:
        """The runs whose data and jobs are made. Where a plan cannot be made, the runs that need it have failed."""
        if not todo:
            return
        preparing = self._executor, self._request.workers
        known = measured(self._study.plan.dataset, self._request.home.preprocessed, *preparing)
        problems: dict[Path, UtsegError | None] = {}
        for run in todo:
            folder = run.data.plan_folder
            problem = run.setup if isinstance(run.setup, UtsegError) else problems.get(folder)
            if problem is None and folder not in problems:
                logger.info("preparing the data of %s: %s", run.planned.trained_on.name, folder)
                try:
                    prepare(run.data, known, *preparing)
                except UtsegError as error:
                    problem = error
                problems[folder] = problem
            write_job(_job(run, self._study, self._request), run.folder)
            if problem is None:
                yield run
            else:
                self._failed(run, problem)

    def execute(self, ready: Sequence[ResolvedRun]) -> None:
        """Does the runs, and writes after each what is known."""
        runs = {str(run.folder): run for run in ready}
        with _engine(self._request, self._executor) as engine:
            for each in run_each(execute_job, runs, engine, name=lambda folder: runs[folder].planned.name):
                run = runs[each.item]
                if each.error is None:
                    self._ended(run)
                elif isinstance(each.error, FolderBusy | Interrupted):
                    logger.info("%s: %s; run the study again to go on", run.planned.name, each.error)
                else:
                    self._failed(run, each.error)

    def _failed(self, run: ResolvedRun, error: UtsegError) -> None:
        first, *others = error.lines()
        more = f" (and {len(others)} more, see {run.folder / LOG_FILE})" if others else ""
        write_outcome(RunOutcome(checksum=run.checksum, state="failed", error=first + more), run.folder)
        self._ended(run)

    def _ended(self, run: ResolvedRun) -> None:
        self.write()
        self.done += 1
        entry = next(one for one in self.record.runs if one.id == run.checksum[:ID_DIGITS])
        count = f"[{self.done}/{len(self._study.distinct)}]"
        if entry.state == "failed":
            logger.warning("%s %s: failed: %s", count, entry.run, entry.error)
            return
        dice = {
            row["tested_on"]: row["dice"]
            for row in self._tables.of(entry)
            if row["group"] == ALL and row["label"] == MEAN_LABEL and row["dice"] is not None
        }
        scores = [f"{kind} {number(dice[kind], 3)}" for kind in (SEEN, UNSEEN) if kind in dice]
        logger.info("%s %s: mean Dice %s", count, entry.run, ", ".join(scores) or "undefined")


def _job(run: ResolvedRun, study: ResolvedStudy, request: StudyRequest) -> Job:
    planned, dataset = run.planned, study.plan.dataset
    return Job(
        checksum=run.checksum,
        network=planned.network,
        settings=train_settings(planned),
        seed=planned.seed,
        epochs=study.epochs,
        slot_s=study.slot_s,
        dataset=dataset.name,
        raw=str(dataset.folder.absolute()),
        preprocessed=str(run.data.folder),
        plan_folder=str(run.data.plan_folder),
        subjects=planned.subjects,
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


def study_record(study: ResolvedStudy, request: StudyRequest) -> StudyRecord:
    """What is known of a study and all its runs now."""
    plan = study.plan
    tested = plan.definition.test.datasets or (plan.trained,)
    datasets = {}
    for name, dataset in plan.datasets.items():
        roles: dict[Role, bool] = {"train": name == plan.trained, "test": name in tested}
        cases = labelled(dataset)
        datasets[name] = StudyDataset(
            cases=len(cases),
            subjects=len({case.subject for case in cases}),
            role=tuple(role for role, has in roles.items() if has),
            folder=str(dataset.folder.absolute()),
        )
    return StudyRecord(
        name=plan.definition.name,
        question=plan.definition.question,
        by=plan.by,
        definition=plan.definition.model_dump(mode="json"),
        datasets=datasets,
        labels=dict(plan.dataset.labels),
        max_time_s=request.max_time_s,
        slot_s=study.slot_s,
        runs=tuple(_study_run(run, study) for run in study.runs),
    )


def _study_run(run: ResolvedRun, study: ResolvedStudy) -> StudyRun:
    planned, by = run.planned, study.plan.by
    outcome = read_outcome(run.folder, run.checksum)
    if outcome is not None and outcome.state == "finished":
        outcome = finished_outcome(run.folder, run.checksum)  # None where its model or scores are gone
    return StudyRun(
        run=planned.name,
        id=run.checksum[:ID_DIGITS],
        folder=str(run.folder),
        network=planned.network,
        plan=planned.plan,
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
        **(outcome.model_dump(exclude={"format", "checksum"}) if outcome else {}),
    )
