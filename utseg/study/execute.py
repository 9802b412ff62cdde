"""Runs one run of a study in a process of its own: from a thread here, or on a worker of a cluster, which is why a path is all it takes.

    python -m utseg.study.execute RUN_FOLDER

The process ends itself when the one that started it is gone. Whatever goes wrong in it is its own affair: one line in `outcome.json`.
Doing the same again goes on where it stopped.
"""

import logging
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utseg.compute.children import live_as_child, run_child
from utseg.compute.pool import THREAD_VARIABLES
from utseg.errors import FolderBusy, Interrupted, UtsegError
from utseg.files import folder_lock
from utseg.study.jobs import (
    LOG_FILE,
    Job,
    Outcome,
    finished_outcome,
    read_job,
    read_outcome,
    write_outcome,
)

FINISHED, FAILED, INTERRUPTED = "finished", "failed", "interrupted"
EXIT_INTERRUPTED = 75
MODULE = "utseg.study.execute"
LOCK_WAIT_S = 15.0
LOCK_LOOK_S = 0.5


def execute_job(run_folder: str) -> str:
    """Runs the job in a run's folder to its end and returns its state: "finished", "failed" or "interrupted" (to be called again).

    A run that has finished is left as it is. Its output is appended to `run.log`.
    """
    folder = Path(run_folder)
    job = read_job(folder)
    if finished_outcome(folder, job.checksum) is not None:
        return FINISHED
    before = read_outcome(folder, job.checksum)
    if before is not None and before.state == FAILED:
        write_outcome(
            before.model_copy(update={"error": None}), folder
        )  # what is there now is of this attempt
    threads = {name: str(job.threads) for name in THREAD_VARIABLES}
    code = run_child(
        MODULE,
        [str(folder)],
        folder / LOG_FILE,
        environment=threads | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"},
    )
    if code in (EXIT_INTERRUPTED, -signal.SIGTERM, -signal.SIGINT):
        return INTERRUPTED
    if code == 0 and finished_outcome(folder, job.checksum) is not None:
        return FINISHED
    after = read_outcome(folder, job.checksum)
    if after is None or after.error is None:
        write_outcome(Outcome(checksum=job.checksum, state="failed", error=_ended(code, folder)), folder)
    return FAILED


def _ended(code: int, folder: Path) -> str:
    """Why a run that says nothing of itself may have ended."""
    if code < 0:
        name = signal.Signals(-code).name
        why = (
            ", most often for lack of memory: run fewer at once (-np), or plan smaller" if code == -9 else ""
        )
        return f"its process was killed by {name}{why}; see {folder / LOG_FILE}"
    return f"its process ended with code {code}; see {folder / LOG_FILE}"


def main(argv: list[str]) -> int:
    """What the started process does. Returns its exit code."""
    folder = Path(argv[0])
    live_as_child()
    logger = logging.getLogger("utseg")
    logger.setLevel(logging.INFO)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    job = read_job(folder)
    try:
        with _held(folder):
            from utseg.study.walk import run_job

            run_job(job, folder)
        return 0
    except (Interrupted, KeyboardInterrupt, FolderBusy) as error:  # another study may be doing this very run
        logger.info("stopped: %s", error)
        return EXIT_INTERRUPTED
    except UtsegError as error:
        lines = error.lines()
        more = f" (and {len(lines) - 1} more, see {folder / LOG_FILE})" if len(lines) > 1 else ""
        return _failed(job, folder, lines[0] + more)
    except Exception as error:  # noqa: BLE001 — a defect of ours, or of somebody's network: this run failed, the others go on
        traceback.print_exc()
        return _failed(job, folder, f"unexpected {type(error).__name__}: {error}; see {folder / LOG_FILE}")


def _failed(job: Job, folder: Path, line: str) -> int:
    error = " ".join(line.split())
    logging.getLogger("utseg").info("error: %s", error)
    write_outcome(Outcome(checksum=job.checksum, state="failed", error=error), folder)
    return 1


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The lock of the run's folder; one that a process just killed still holds is waited for."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        lock = folder_lock(folder)
        try:
            lock.__enter__()
            break
        except FolderBusy:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOCK_LOOK_S)
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
