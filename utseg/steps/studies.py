"""`study`: train on some, test on others, many times; what comes out as tables and one HTML file."""

import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

from utseg.errors import (
    LONGEST_S,
    MOST_WORKERS,
    CaseErrors,
    InputError,
    Interrupted,
    UsageError,
    UtsegError,
)
from utseg.home import FilePath, Home
from utseg.rawdata import open_dataset, require_outside_datasets
from utseg.report import write_study_report
from utseg.study.checksums import Checksums
from utseg.study.data import DATA_FOLDER, expand_by_scans
from utseg.study.definition import Definition, definition_text, read_definition, with_values
from utseg.study.expand import StudyPlan, dataset_names
from utseg.study.images import measure_study
from utseg.study.record import StudyRecord
from utseg.study.resolve import StudyRequest, resolve
from utseg.study.run import run_study

logger = logging.getLogger("utseg")
REPORT_FILE = "report.html"


def study(
    definition: Definition | str,
    output: FilePath,
    *,
    dataset: str | None = None,
    home: FilePath | None = None,
    max_time_s: float | None = None,
    parallel: int = 1,
    device: str = "auto",
    executor: Executor | None = None,
) -> StudyRecord:
    """Runs a study, or goes on with it, in `output`: study.json, results.csv, cases.csv, report.html. Returns the content of study.json.

    definition: a built-in name, a TOML file, or a `Definition`. dataset: raw, below `home`, to train on where the study names none.
    max_time_s: of the whole study, in place of its epochs. parallel: runs at once. executor: does the runs, as that of a Dask cluster.
    Raises UsageError for a study that cannot be, CaseErrors with a line for each run that failed, after the others; Interrupted on Ctrl-C.
    """
    require_outside_datasets(Path(output))
    if not 1 <= parallel <= MOST_WORKERS:
        raise UsageError(f"parallel: expected a whole number from 1 to {MOST_WORKERS}, found {parallel!r}")
    if max_time_s is not None and not 0 < max_time_s <= LONGEST_S:
        raise UsageError(f"max_time_s: expected seconds above 0, found {max_time_s!r}")
    where = definition if isinstance(definition, str) else f"study {definition.name}"
    if isinstance(definition, str):
        definition = read_definition(definition)
        where = definition_text(where)[0]
    if max_time_s is not None:
        definition = with_values(definition, {"epochs": None}, where)
    places = Home.locate(home)
    plan, checksums = open_study(definition, where, places, dataset)
    request = StudyRequest(Path(output).absolute(), places, max_time_s, parallel, device)
    record = run_study(resolve(plan, request, checksums, executor), request, executor)
    report_study(record, request.output)
    require_finished(record)
    return record


def open_study(
    definition: Definition, where: str, home: Home, dataset: str | None = None, *, keep: bool = True
) -> tuple[StudyPlan, Checksums]:
    """The runs of a study on the datasets that it names, and the checksums of their files.

    where: the study, for messages. dataset: to train on where the study names none. keep: checksums are written down.
    """
    if definition.train.dataset is None:
        dataset, _ = home.raw_dataset(dataset)
    datasets = {}
    for name in dataset_names(definition, dataset):
        _, folder = home.raw_dataset(name)
        datasets[name] = open_dataset(folder, name)
        for warning in datasets[name].warnings:
            logger.warning("%s", warning)
    trained = next(iter(datasets))
    definition = with_values(definition, {"train.dataset": trained}, where)
    checksums = Checksums(home.preprocessed / DATA_FOLDER, keep=keep)
    with wrong_study():
        plan = expand_by_scans(definition, datasets, trained, where, checksums)
    for remark in plan.remarks:
        logger.info("%s", remark)
    return plan, checksums


@contextmanager
def wrong_study() -> Iterator[None]:
    """A study that cannot be is wrong usage, whether its file says so or who asks for it."""
    try:
        yield
    except CaseErrors:
        raise  # scans that cannot be read
    except InputError as error:
        raise UsageError(str(error)) from None


def report_study(record: StudyRecord, output: Path) -> Path | None:
    """Measures the images of a study's vendors and writes its report, whose path is returned; None where no run has finished."""
    if all(run.state != "finished" for run in record.runs):
        return None
    try:
        measure_study(output)
    except UtsegError as error:
        for line in error.lines():
            logger.warning("%s; the report lacks what images are like", line)
    write_study_report(output, output / REPORT_FILE)
    return output / REPORT_FILE


def require_finished(record: StudyRecord) -> None:
    """Raises CaseErrors with a line for each run that failed, else Interrupted where runs were stopped."""
    failed = {run.id: run for run in reversed(record.runs) if run.state == "failed"}
    if failed:
        raise CaseErrors(
            f"{run.run}: {run.error} (the same command tries it again)" for run in reversed(failed.values())
        )
    if waiting := sum(run.state == "waiting" for run in record.runs):
        raise Interrupted(f"{waiting} runs were stopped; run the same command again to go on")
