"""Runs one run of a study in a process of its own: from a thread here, or on a worker of a cluster, which is why a path is all it takes.

    python -m utseg.study.execute RUN_FOLDER

Doing the same again goes on where it stopped.
"""

import sys
from functools import partial
from pathlib import Path

from utseg.compute.children import SAVE_S, as_child, run_child
from utseg.compute.pool import THREAD_VARIABLES
from utseg.files import folder_lock
from utseg.study.jobs import LOG_FILE, finished_outcome, read_job

MODULE = "utseg.study.execute"


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
        from utseg.study.walk import run_job

        run_job(read_job(folder), folder)


if __name__ == "__main__":
    sys.exit(as_child(partial(_run, Path(sys.argv[1]))))
