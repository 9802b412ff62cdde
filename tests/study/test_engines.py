"""One study on each engine: processes of this machine, a cluster that loses a worker, jobs of Slurm, with equal results."""

import csv
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from commandline import SCRIPTS

pytest.importorskip("distributed", reason="the extra `dask` is not installed")
from distributed import LocalCluster

pytestmark = pytest.mark.slow
WORDS = (
    *("-pl", "cpu", "--epochs", "3"),
    *("--set", "network.base_channels=6", "iterations_per_epoch=16", "batch_size=4", "save_minutes=0.00001"),
)
FILE = """
name = "each"
networks = ["UNet"]
[train]
each = "vendor"
[test]
by = "vendor"
"""
TIMES = {"training_seconds"}
LIMIT_S = 240


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    from utseg.phantom.cohort import make_phantom
    from utseg.phantom.examination import PhantomSettings

    folder = tmp_path_factory.mktemp("raw") / "Phantom"
    make_phantom(folder, PhantomSettings(subjects=8, frames=2, matrix=48, slices=4), workers=1)
    return folder


class Study:
    """A study from nothing, in folders of its own."""

    def __init__(self, place, raw):
        self.place = place
        (place / "home" / "raw").mkdir(parents=True)
        (place / "each.toml").write_text(FILE)
        (place / "home" / "raw" / "Phantom").symlink_to(raw)
        self.runs = place / "home" / "results" / "study_runs"

    def run(self, *engine):
        return subprocess.run(
            [
                *(SCRIPTS / "utseg_study", self.place / "each.toml", *WORDS, "--home", self.place / "home"),
                *("-o", self.place / "study", *engine),
            ],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )

    def results(self):
        with (self.place / "study" / "results.csv").open(newline="") as handle:
            rows = list(csv.DictReader(handle))
        return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def here(raw, tmp_path_factory):
    study = Study(tmp_path_factory.mktemp("here"), raw)
    done = study.run("-np", "2")
    assert done.returncode == 0, done.stderr
    return study


def test_a_cluster_that_loses_a_worker_gives_the_results_of_this_machine(here, raw, tmp_path):
    study = Study(tmp_path, raw)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        killed = threading.Thread(target=kill_a_worker_in_training, args=(study,))
        killed.start()
        done = study.run("--dask", cluster.scheduler_address)
        killed.join()
    assert done.returncode == 0, done.stderr
    assert [log for log in study.runs.glob("*/run.log") if "resuming after iteration" in log.read_text()]
    assert study.results() == here.results()
    assert any(float(row["dice"] or 0) > 0.1 for row in here.results())  # there was something to differ in


def kill_a_worker_in_training(study):
    """Kills the worker whose run is the first to have saved an epoch; the run's own process ends with it."""
    import psutil

    folder = until(lambda: next(iter(in_training(study)), None))
    run = psutil.Process(holder(folder))
    worker = run.parent()
    assert worker.pid != os.getpid()
    worker.kill()
    assert until(lambda: not run.is_running() or run.status() == psutil.STATUS_ZOMBIE)


def holder(folder):
    """The process that works in a run's folder."""
    return int((folder / ".lock").read_text().split()[-1])


def in_training(study):
    """Folders of runs that have saved something and have not finished."""
    folders = [file.parents[1] for file in study.runs.glob("*/train/checkpoint_latest.pt")]
    return [folder for folder in folders if not (folder / "outcome.json").exists()]


def until(found):
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.01)
    raise AssertionError("nothing happened")


# Stand-ins for Slurm's commands: a job is a process group of this machine, and ends with it.
SBATCH = """#!/bin/bash
job="$(dirname "$0")/$$"
cp "${@: -1}" "$job.sh"
setsid bash "$job.sh" > "$job.log" 2>&1 < /dev/null &
echo $! > "$job.pid"
echo "Submitted batch job $$"
"""
SCANCEL = """#!/bin/bash
kill -TERM -- "-$(cat "$(dirname "$0")/$1.pid")"
"""
PAGE = Path(__file__).parents[2] / "docs" / "CLUSTER.md"


@pytest.fixture
def slurm(tmp_path):
    """A folder of jobs; workers as the page on clusters starts them, two at a time."""
    pytest.importorskip("dask_jobqueue", reason="the extra `slurm` is not installed")
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (jobs / name).write_text(text)
        (jobs / name).chmod(0o755)
    script = re.search(r"```python\n# workers\.py.*?```", PAGE.read_text(), re.DOTALL)
    text = script[0].removeprefix("```python").removesuffix("```")
    for shown, here in (('"32GB"', '"3GB"'), ('"--resources", "GPU=1", ', ""), ("_jobs=8", "_jobs=2")):
        assert shown in text
        text = text.replace(shown, here)
    (jobs / "workers.py").write_text(text)
    environment = {**os.environ, "PATH": f"{jobs}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "workers.py"], cwd=jobs, env=environment) as workers:
        until((jobs / "scheduler.json").exists)
        yield jobs
        workers.terminate()
    for file in jobs.glob("*.pid"):
        with suppress(ProcessLookupError):
            os.killpg(int(file.read_text()), signal.SIGKILL)


def test_runs_in_jobs_of_slurm_go_on_in_another_job_when_time_is_up(here, raw, slurm, tmp_path):
    study = Study(tmp_path / "study", raw)
    ended = threading.Thread(target=end_a_job_in_training, args=(study, slurm))
    ended.start()
    done = study.run("--dask", slurm / "scheduler.json")
    ended.join()
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --cpus-per-task=8" in next(slurm.glob("*.sh")).read_text()
    assert len(list(slurm.glob("*.sh"))) > 2
    assert [log for log in study.runs.glob("*/run.log") if "resuming after iteration" in log.read_text()]
    assert study.results() == here.results()


def end_a_job_in_training(study, slurm):
    """As Slurm does at a job's time limit: SIGTERM to all its processes."""
    import psutil

    run = psutil.Process(holder(until(lambda: next(iter(in_training(study)), None))))
    jobs = {int(file.read_text()) for file in slurm.glob("*.pid")}
    job = next(parent for parent in run.parents() if parent.pid in jobs)
    for process in (*job.children(recursive=True), job):
        with suppress(psutil.NoSuchProcess):
            process.terminate()
