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
from utseg.files import folder_lock, remove_leftovers, require_writable, write_text
from utseg.fingerprint import Fingerprint
from utseg.study.data import measured, prepare, train_settings
from utseg.study.definition import to_toml
from utseg.study.execute import execute_job
from utseg.study.jobs import LOG_FILE, Job, JobTest, RunOutcome, finished_outcome, write_job, write_outcome
from utseg.study.progress import StudyProgress
from utseg.study.record import DEFINITION_FILE, STUDY_FILE, StudyRecord, read_study
from utseg.study.resolve import ResolvedRun, ResolvedStudy, StudyRequest

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
        _check_same_study(study, request.output)
        write_text(request.output / DEFINITION_FILE, to_toml(study.plan.definition))
        progress = StudyProgress(study, request)
        todo = [run for run in study.distinct if finished_outcome(run.folder, run.checksum) is None]
        known = len(study.distinct) - len(todo)
        logger.info("%d runs: %d have finished, %d are to be done", len(study.distinct), known, len(todo))
        progress.write()
        try:
            ready = list(_prepared(todo, study, request, progress, executor))
            with _engine(request, executor) as engine:
                _execute(ready, engine, progress)
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted after {progress.done} of {len(study.distinct)} runs, all is saved; run the same command again to go on"
            ) from None
        finally:
            progress.write()
    return progress.record


def _check_same_study(study: ResolvedStudy, output: Path) -> None:
    if (output / STUDY_FILE).is_file():
        name = read_study(output).name
        if name != study.plan.definition.name:
            raise InputError(
                f"{output}: the study {name!r} is there, not {study.plan.definition.name!r}; choose another folder with -o"
            )


def _prepared(
    todo: Sequence[ResolvedRun],
    study: ResolvedStudy,
    request: StudyRequest,
    progress: StudyProgress,
    executor: Executor | None,
) -> Iterator[ResolvedRun]:
    """The runs whose data and jobs are made. Where a plan cannot be made, the runs that need it have failed."""
    if not todo:
        return
    known = measured(study.plan.dataset, request.home.preprocessed, executor, request.workers)
    made: dict[Path, UtsegError | None] = {}
    for run in todo:
        folder = run.data.plan_folder
        problem = run.setup if isinstance(run.setup, UtsegError) else None
        if problem is None:
            if folder not in made:
                logger.info("preparing the data of %s: %s", run.planned.trained_on.name, folder)
                made[folder] = _prepare(run, known, request, executor)
            problem = made[folder]
        write_job(_job(run, study, request), run.folder)
        if problem is None:
            yield run
        else:
            _failed(run, problem, progress)


def _prepare(
    run: ResolvedRun, known: Fingerprint, request: StudyRequest, executor: Executor | None
) -> UtsegError | None:
    try:
        prepare(run.data, known, executor, request.workers)
    except UtsegError as error:
        return error
    return None


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


def _execute(ready: Sequence[ResolvedRun], engine: Executor, progress: StudyProgress) -> None:
    by_folder = {str(run.folder): run for run in ready}
    for each in run_each(execute_job, by_folder, engine, name=lambda folder: by_folder[folder].planned.name):
        run = by_folder[each.item]
        if each.error is None:
            progress.ended(run)
        elif isinstance(each.error, FolderBusy | Interrupted):
            logger.info("%s: %s; run the study again to go on", run.planned.name, each.error)
        else:
            _failed(run, each.error, progress)


def _failed(run: ResolvedRun, error: UtsegError, progress: StudyProgress) -> None:
    first, *others = error.lines()
    more = f" (and {len(others)} more, see {run.folder / LOG_FILE})" if others else ""
    write_outcome(RunOutcome(checksum=run.checksum, state="failed", error=first + more), run.folder)
    progress.ended(run)
