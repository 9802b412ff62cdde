"""One run of a study on disk, `results/study_runs/ID/`: what it is to do (`job.json`), who takes part (`subjects.json`), what came of it.

    job.json  subjects.json  run.log  outcome.json
    train/            what utseg_train writes
    test/DATASET/     masks, prediction.json, metrics.csv, summary.json, … of each test dataset

The folder is named after the checksum of everything that determines the run, so that another study finds it. Nothing is run here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from utseg.errors import UtsegError
from utseg.evaluate.records import METRICS_FILE
from utseg.files import sha256_json, write_text
from utseg.settings import AnyValues, Settings, read_model
from utseg.study.record import Subjects
from utseg.training.record import is_finished

RUNS_FOLDER = "study_runs"
JOB_FILE = "job.json"
SUBJECTS_FILE = "subjects.json"
OUTCOME_FILE = "outcome.json"
LOG_FILE = "run.log"
TRAIN_FOLDER = "train"
TEST_FOLDER = "test"
ID_DIGITS = 12
IDENTITY_VERSION = 1
"""Part of every run's checksum: another value makes all runs new."""


class JobTest(Settings):
    """The raw dataset that a run is tested on, and which of its cases."""

    raw: str
    cases: tuple[str, ...]


class Job(Settings):
    """All that a run needs, paths in full. `epochs` None: the plan's, or, with `slot_s`, what fits into so many seconds, tests included.

    `checksum` covers everything but paths, device and threads.
    """

    format: Literal["utseg-study-job-1"] = "utseg-study-job-1"
    checksum: str
    network: str
    settings: AnyValues
    seed: int
    epochs: int | None
    slot_s: float | None
    dataset: str
    raw: str
    preprocessed: str
    plan_folder: str
    subjects: Subjects
    tests: dict[str, JobTest]
    device: str = "auto"
    threads: int = 1


class RunOutcome(Settings):
    """What became of a run. `error` is one line where it failed. `gmac`: 10⁹ multiply-accumulates of one patch.

    `peak_memory_gb` (10⁹ bytes): the most that the run held of its GPU's memory, on a CPU its process of main memory, in its last attempt.
    """

    format: Literal["utseg-study-outcome-1"] = "utseg-study-outcome-1"
    checksum: str
    state: Literal["finished", "failed"]
    error: str | None = None
    parameters: int | None = None
    gmac: float | None = None
    iterations: int | None = None
    training_seconds: float | None = None
    testing_seconds: float | None = None
    peak_memory_gb: float | None = None


def identity_checksum(identity: Mapping[str, Any]) -> str:
    """SHA-256 of what determines a run, numbers of equal value being equal (1 and 1.0)."""
    return sha256_json([IDENTITY_VERSION, _plain(identity)])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def run_folder(results: Path, checksum: str) -> Path:
    """Where the run of a checksum is, below `results`."""
    return results / RUNS_FOLDER / checksum[:ID_DIGITS]


def write_job(job: Job, folder: Path) -> None:
    """Writes `job.json` and `subjects.json`, and removes the outcome of an earlier attempt.

    Raises UtsegError where another run has the folder (the same twelve digits).
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / JOB_FILE).is_file() and (there := read_job(folder)).checksum != job.checksum:
        raise UtsegError(
            f"{folder}: another run is there (checksum {there.checksum}, expected {job.checksum}); move it away"
        )
    write_text(folder / SUBJECTS_FILE, job.subjects.model_dump_json(indent=1) + "\n")
    write_text(folder / JOB_FILE, job.model_dump_json(indent=1) + "\n")
    (folder / OUTCOME_FILE).unlink(missing_ok=True)


def read_job(folder: Path) -> Job:
    """Reads `job.json`."""
    return read_model(Job, folder / JOB_FILE)


def write_outcome(outcome: RunOutcome, folder: Path) -> None:
    """Writes `outcome.json`."""
    write_text(folder / OUTCOME_FILE, outcome.model_dump_json(indent=1) + "\n")


def read_outcome(folder: Path, checksum: str) -> RunOutcome | None:
    """What became of the run of that checksum; None where nothing is known of it."""
    if not (folder / OUTCOME_FILE).is_file():
        return None
    try:
        outcome = read_model(RunOutcome, folder / OUTCOME_FILE)
    except UtsegError:
        return None  # damaged: the run is taken up again, which keeps what is whole
    return outcome if outcome.checksum == checksum else None


def finished_outcome(folder: Path, checksum: str) -> RunOutcome | None:
    """The outcome of a run that has finished and whose model and scores are there; else None."""
    outcome = read_outcome(folder, checksum)
    if outcome is None or outcome.state != "finished" or not (folder / JOB_FILE).is_file():
        return None
    tested = all((test_folder(folder, name) / METRICS_FILE).is_file() for name in read_job(folder).tests)
    return outcome if tested and is_finished(folder / TRAIN_FOLDER) else None


def test_folder(folder: Path, dataset: str) -> Path:
    """Where masks and scores of a test dataset are."""
    return folder / TEST_FOLDER / dataset


test_folder.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's
