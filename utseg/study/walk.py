"""Execute one run of a study: train, check who was trained on, predict the test cases, score them, write the outcome.

    python -m utseg.study.walk RUN_FOLDER

A run has a process of its own, here or on a worker of a cluster: a path is all it takes. The same again goes on where it stopped.
"""

import json
import logging
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from utseg.case import Dataset
from utseg.compute.children import SAVE_S, as_child, run_child
from utseg.compute.pool import THREAD_VARIABLES
from utseg.errors import ArtefactError, InputError, TimeTooShort, UtsegError, explained_by
from utseg.files import folder_lock
from utseg.fingerprint import read_fingerprint
from utseg.fingerprint.model import FINGERPRINT_FILE
from utseg.networks import count_parameters
from utseg.planning.memory import forward_gmac
from utseg.planning.plan import read_plan
from utseg.planning.task import planned_task
from utseg.rawdata import open_dataset
from utseg.study.estimate import measure, testing_seconds
from utseg.study.jobs import (
    LOG_FILE,
    TRAIN_FOLDER,
    Job,
    JobTest,
    RunOutcome,
    finished_outcome,
    read_job,
    test_folder,
    write_outcome,
)
from utseg.study.subjects import check_disjoint
from utseg.trainer import find_trainer
from utseg.training.record import RUN_FILE, RunRecord, is_finished, read_run
from utseg.training.request import TrainRequest

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("utseg")
MODULE = "utseg.study.walk"
FOLD = "fold0"
TRAINING_LOG = "training.jsonl"
LEAST_TRAINING_SHARE = 0.2
"""Of a slot, training gets at least this much, and testing takes longer than shared out, which is better than a run of nothing."""


def execute_job(run_folder: str) -> None:
    """Runs the job in a run's folder to its end, unless it has finished. Its output is appended to `run.log`.

    Raises Interrupted where it was stopped, FolderBusy where another study does this very run, UtsegError where it failed.
    """
    folder = Path(run_folder)
    job = read_job(folder)
    if finished_outcome(folder, job.checksum) is None:
        threads = {name: str(job.threads) for name in THREAD_VARIABLES}
        environment = threads | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
        run_child(MODULE, [str(folder)], folder / LOG_FILE, environment=environment)


def _run(folder: Path) -> None:
    with folder_lock(folder, patience_s=SAVE_S):  # a process whose worker is gone may still be saving
        run_job(read_job(folder), folder)


def run_job(job: Job, folder: Path) -> RunOutcome:
    """Trains, tests and records. Raises UtsegError where the run cannot be done, Interrupted or KeyboardInterrupt where it was stopped."""
    began = time.monotonic()
    from utseg.device import resolve_device

    device = resolve_device(job.device)
    if device.type == "cuda":
        from torch import cuda

        cuda.reset_peak_memory_stats(device)
    check_disjoint(job.subjects, job.dataset, str(folder))
    train = folder / TRAIN_FOLDER
    _train(job, train, device, began)
    record = read_run(train)
    dataset = open_dataset(Path(job.raw), job.dataset)
    with explained_by(dataset.warnings):
        check_trained(record, job, dataset, train)
    began = time.monotonic()
    for name, test in job.tests.items():
        _test(job, name, test, folder, device)
    task = planned_task(record.plan)
    outcome = RunOutcome(
        checksum=job.checksum,
        state="finished",
        parameters=count_parameters(task.build("meta")),
        gmac=forward_gmac(task),
        iterations=record.epochs * record.iterations_per_epoch,
        training_seconds=_training_seconds(train),
        testing_seconds=time.monotonic() - began,
        peak_memory_gb=_peak_memory_gb(device),
    )
    write_outcome(outcome, folder)
    return outcome


def _train(job: Job, train: Path, device: "torch.device", began: float) -> None:
    if is_finished(train):
        logger.info("%s: trained already", train)
        return
    resume = (train / RUN_FILE).is_file()
    max_time_s = None
    if job.slot_s is not None and not resume:
        reserved = _testing_estimate(job, device)
        max_time_s = max(
            job.slot_s - reserved - (time.monotonic() - began), LEAST_TRAINING_SHARE * job.slot_s
        )
        logger.info(
            "%.0f s for this run: about %.0f s to test, %.0f s to train", job.slot_s, reserved, max_time_s
        )
    request = TrainRequest(
        model=job.network,
        selection=FOLD,
        raw=Path(job.raw),
        preprocessed=Path(job.preprocessed),
        plan_folder=Path(job.plan_folder),
        output=train,
        epochs=job.epochs,
        max_time_s=max_time_s,
        seed=job.seed,
        device=job.device,
        resume=resume,
        settings=dict(job.settings),
    )
    try:
        find_trainer(job.network)(request)
    except TimeTooShort as error:
        raise TimeTooShort(
            f"this run's share of the study's --max-time is {job.slot_s:.0f} s: {error}; give the study more time, or fewer runs"
        ) from None


def _testing_estimate(job: Job, device: "torch.device") -> float:
    from utseg.training.recipe import apply_settings, find_recipe

    recipe = find_recipe(job.network)
    recipe, plan = apply_settings(recipe, read_plan(Path(job.plan_folder)), job.settings)
    _, patch_s = measure(plan, recipe, device, training=False)
    fingerprint = read_fingerprint(Path(job.preprocessed) / FINGERPRINT_FILE)
    return testing_seconds(patch_s, plan, fingerprint, sum(len(test.cases) for test in job.tests.values()))


def check_trained(record: RunRecord, job: Job, dataset: Dataset, train: Path) -> None:
    """Raises ArtefactError unless the run was trained and validated on the subjects of its job, all of them and nobody else, to its end."""
    if ended := record.ended_early:
        raise ArtefactError(
            f"{train}: ended early ({ended.why}), and runs of a study are compared at their planned length: remove its folder, and run the "
            "study again"
        )
    owners = {case.case_id: case.subject for case in dataset.cases}
    sides = (
        ("training", record.training_cases, job.subjects.training),
        ("validation", record.validation_cases, job.subjects.validation),
    )
    for side, cases, wanted in sides:
        found = {owners.get(case_id, case_id) for case_id in cases}
        if found != set(wanted):
            differing = sorted(found ^ set(wanted))
            where = "only in the study" if differing[0] in wanted else "not in the study"
            raise ArtefactError(
                f"{train / RUN_FILE}: {side}: subject {differing[0]} is {where} (of {len(differing)} that differ); the run was trained on "
                "others than it should: remove its folder, and run the study again"
            )
        tested = set(job.subjects.testing.get(job.dataset, ())) & found
        if tested:
            raise ArtefactError(
                f"{train / RUN_FILE}: {side}: test subject {sorted(tested)[0]} takes part; remove the folder, and run the study again"
            )


def _test(job: Job, name: str, test: JobTest, folder: Path, device: "torch.device") -> None:
    """Masks and scores of one test dataset."""
    from utseg.evaluate.score import evaluate_cases
    from utseg.predict.model import load_model
    from utseg.predict.pipeline import predict_cases

    dataset = open_dataset(Path(test.raw), name)
    there = {case.case_id: case for case in dataset.cases if case.label is not None}
    with explained_by(dataset.warnings):
        if missing := [name for name in test.cases if name not in there]:
            raise InputError(
                f"{dataset.folder}: {len(missing)} of {len(test.cases)} test cases are not there any more "
                f"({', '.join(missing[:5])}); put them back, or run the study again"
            )
    cases = [there[name] for name in test.cases]
    model = load_model(folder / TRAIN_FOLDER, device)
    labels, output = model.record.plan.preprocessing.labels, test_folder(folder, name)
    predict_cases(cases, [model], output, workers=job.threads, resume=True)
    evaluate_cases(cases, output, labels, output, reference_labels=dataset.labels, workers=job.threads)


def _training_seconds(train: Path) -> float | None:
    """Seconds of all training and validation, in however many attempts, as the last line of the training's log says."""
    try:
        lines = (train / TRAINING_LOG).read_text(encoding="utf-8").splitlines()
        return float(json.loads(lines[-1])["total_seconds"])
    except (OSError, IndexError, KeyError, ValueError) as error:
        raise UtsegError(f"{train / TRAINING_LOG}: could not be read ({error})") from None


def _peak_memory_gb(device: "torch.device") -> float:
    """The most that was held: of a GPU's memory, else by this process."""
    if device.type == "cuda":
        from torch import cuda

        return cuda.max_memory_reserved(device) / 1e9
    import resource  # which Windows has not

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    sys.exit(as_child(partial(_run, Path(sys.argv[1]))))
