"""Runs of a study as an array job of Slurm, for clusters that have nothing else. submitit writes the job and speaks with Slurm.

Each task of the array runs one run's folder. Before its time is up, and when it is preempted, its training saves, and the task is put back
into the queue. Nobody waits here: the same study command, given later, finds what has finished, and what is still queued or running.
`submitit` is an extra of this package and is imported here only, when Slurm is asked for.
"""

import math
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from utseg.compute.children import stop_children
from utseg.errors import InputError, SettingError, UsageError
from utseg.files import read_json, write_json
from utseg.study.execute import execute_job

SLURM_FOLDER = "slurm"
"""In the study's folder: scripts, logs and submitit's files, and `submitted.json`, which run is in which job."""
SUBMITTED_FILE = "submitted.json"
SAVING_S = 120
"""So long before its end a task is told to save."""
LOOK_S = 1.0
REQUEUES = 20
"""So often a task that ran out of time is put back into the queue; one that was preempted always is."""
DAY_S = 86400.0
MARGIN_S = 900.0
"""For starting, reading the data and evaluation, where a study's slot gives the time."""


@dataclass(frozen=True)
class SlurmOptions:
    """What each task asks for. `time_s`: its limit, None for a day; a run that is not done by then is put back into the queue.

    `parallel`: tasks at once, None for as many as there are places. `more`: options of sbatch by their long names, as account or qos.
    """

    partition: str | None = None
    time_s: float | None = None
    cpus: int = 4
    gpus: int = 0
    memory_gb: float | None = None
    parallel: int | None = None
    more: Mapping[str, str] = field(default_factory=dict)

    def for_slot(self, slot_s: float | None) -> "SlurmOptions":
        """With the time that runs of so many seconds need, where no time is named."""
        if slot_s is None or self.time_s is not None:
            return self
        return replace(self, time_s=slot_s + MARGIN_S)

    def as_submitit(self, name: str, tasks: int) -> dict[str, Any]:
        """The parameters of submitit's executor."""
        chosen = {
            "partition": self.partition,
            "gpus_per_node": self.gpus or None,
            "mem": None if self.memory_gb is None else f"{self.memory_gb * 1000:.0f}M",
        }
        return {
            "job_name": name,
            "time": math.ceil((self.time_s or DAY_S) / 60),
            "cpus_per_task": self.cpus,
            "array_parallelism": self.parallel or tasks,
            "signal_delay_s": SAVING_S,
            "stderr_to_stdout": True,
            "additional_parameters": dict(self.more),
            **{key: value for key, value in chosen.items() if value is not None},
        }


@dataclass(frozen=True)
class JobDescription:
    """An array job that was submitted: its number and its script."""

    job_id: str
    script: Path
    tasks: int


def parse_options(words: Iterable[str]) -> SlurmOptions:
    """`KEY=VALUE` words: partition, time (minutes, or as 6h or 90m), cpus, gpus, memory (GB), parallel; others are sbatch's own.

    Raises SettingError naming the word.
    """
    values: dict[str, Any] = {}
    more: dict[str, str] = {}
    for word in words:
        key, found, text = word.partition("=")
        if not found or not text or not key:
            raise SettingError(
                f"--slurm {word}: expected KEY=VALUE, as partition=gpu, time=6h, cpus=8, gpus=1"
            )
        if key == "time":
            values["time_s"] = _seconds(word, text)
        elif key in ("cpus", "gpus", "parallel"):
            values[key] = int(_number(word, text, whole=True, least=0 if key == "gpus" else 1))
        elif key == "memory":
            values["memory_gb"] = _number(word, text)
        elif key == "partition":
            values[key] = text
        else:
            more[key] = text
    return SlurmOptions(**values, more=more)


def _number(word: str, text: str, *, whole: bool = False, least: float = 0) -> float:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = -1
    if not least <= value < 1e6:
        raise SettingError(f"--slurm {word}: expected a {'whole ' * whole}number of at least {least:g}")
    return value


def _seconds(word: str, text: str) -> float:
    units = {"d": DAY_S, "h": 3600, "m": 60}
    number, unit = (text[:-1], text[-1]) if text[-1] in units else (text, "m")
    seconds = _number(word, number) * units[unit]
    if seconds < SAVING_S * 2:
        raise SettingError(f"--slurm {word}: expected at least 4m, or a task could not save before its end")
    return seconds


def submit_array(
    run_folders: Sequence[Path], options: SlurmOptions, folder: Path, name: str = "utseg"
) -> JobDescription:
    """Submits one array job, a task for each run, whose `job.json` is there, and notes it. Nothing is waited for.

    `folder`: the study's, which the cluster's machines must share, as the runs' folders. Raises UsageError where submitit or sbatch is not
    there, InputError in sbatch's own words where it refuses.
    """
    try:
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--slurm: the package `{error.name}` is not installed; install it with: pip install 'utseg[slurm]'"
        ) from None
    if not all(map(shutil.which, ("sbatch", "srun"))):
        raise UsageError(
            f"--slurm: no sbatch and srun on this machine; {len(run_folders)} runs are prepared: give the same command on a machine "
            "of the cluster that submits jobs and shares these folders"
        )
    place = folder.absolute() / SLURM_FOLDER
    place.mkdir(exist_ok=True)
    executor = SlurmExecutor(place, max_num_timeout=REQUEUES)
    executor.update_parameters(**options.as_submitit(name, len(run_folders)))
    try:
        jobs = executor.map_array(ArrayTask(), [str(run) for run in run_folders])
    except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
        raise InputError(f"--slurm: sbatch refused the job: {_last_line(error)}") from None
    job_id = jobs[0].job_id.partition("_")[0]
    _note(folder, job_id, run_folders)
    return JobDescription(job_id, Path(jobs[0].paths.submission_file), len(jobs))


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "sbatch" in line.lower()), lines[-1] if lines else "?")


class ArrayTask:
    """What a task of the array does. submitit calls `checkpoint` when Slurm announces the task's end, then puts it back into the queue."""

    def __init__(self) -> None:
        self._running: Future[str] | None = None

    def __call__(self, run_folder: str) -> str:
        """The state that the run is in afterwards, in words of `execute_job`, which is called in a thread: signals come to this one.

        SIGTERM, which comes of `scancel` and before a preemption, has the run saved and ended too; it is not put back by us then.
        """
        signal.signal(signal.SIGTERM, lambda number, frame: stop_children())
        with ThreadPoolExecutor(1) as thread:
            self._running = thread.submit(execute_job, run_folder)
            while not self._running.done():
                wait(
                    [self._running], timeout=LOOK_S
                )  # a signal just before a wait without end would be seen at its end
            return self._running.result()

    def checkpoint(self, run_folder: str) -> Any:
        """Has the run saved and ended; the same is done again."""
        from submitit.helpers import DelayedSubmission

        stop_children()
        if self._running is not None:
            wait([self._running], timeout=SAVING_S)
        return DelayedSubmission(ArrayTask(), run_folder)


def _note(folder: Path, job_id: str, run_folders: Sequence[Path]) -> None:
    file = folder / SLURM_FOLDER / SUBMITTED_FILE
    submitted = read_json(file) if file.is_file() else {}
    write_json(file, submitted | {job_id: [str(run) for run in run_folders]})


def still_submitted(folder: Path) -> dict[Path, str]:
    """Run folders of a study that wait or run in an array job, with the task, `JOB_NUMBER`. Empty where Slurm knows of none any more."""
    file = folder / SLURM_FOLDER / SUBMITTED_FILE
    if not file.is_file() or shutil.which("squeue") is None:
        return {}
    found: dict[Path, str] = {}
    for job_id, runs in read_json(file).items():
        queued = _queued_tasks(job_id)
        tasks = [job_id] if len(runs) == 1 else [f"{job_id}_{number}" for number in range(len(runs))]
        found.update({Path(run): task for task, run in zip(tasks, runs, strict=True) if task in queued})
    return found


def _queued_tasks(job_id: str) -> set[str]:
    """Tasks of a job that wait or run; squeue fails for a job that it has forgotten."""
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={job_id}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return set(answer.stdout.split()) if answer.returncode == 0 else set()
