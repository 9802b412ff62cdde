"""One study on this machine and in jobs of Slurm, which are lost in two ways, with equal results."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from commandline import SCRIPTS
from made_studies import run_study_here

pytest.importorskip("dask_jobqueue", reason="the extra `slurm` is not installed")
pytestmark = pytest.mark.slow
WORDS = (
    *("-pl", "cpu", "--epochs", "3"),
    *("--set", "network.base_channels=6", "iterations_per_epoch=16", "batch_size=4", "save_minutes=0.00001"),
)
FILE = """
name = "two"
networks = ["UNet"]
seeds = [0, 1]
[train]
selections = ["vendor=A"]
[test]
by = "vendor"
"""
TIMES = {"training_seconds"}
LIMIT_S = 500


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
        (place / "two.toml").write_text(FILE)
        (place / "home" / "raw" / "Phantom").symlink_to(raw)
        self.runs = place / "home" / "results" / "study_runs"
        self.words = (place / "two.toml", *WORDS, "-o", place / "study")

    def run(self, *engine):
        return subprocess.run(
            [
                *(SCRIPTS / "utseg_study", *self.words, "--home", self.place / "home", *engine),
            ],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            env={**os.environ, "OMP_NUM_THREADS": "1", "DASK_UTSEG__WAIT_FOR_WORKERS": "4m"},
            check=False,
        )

    def results(self):
        with (self.place / "study" / "results.csv").open(newline="") as handle:
            rows = list(csv.DictReader(handle))
        return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def here(raw, tmp_path_factory):
    study = Study(tmp_path_factory.mktemp("here"), raw)
    with pytest.MonkeyPatch.context() as patch:
        done = run_study_here(patch, *study.words, "-np", "2", home=study.place / "home")
    assert done.returncode == 0, done.stderr
    return study


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
        # Both are there before a study begins: by how many share a machine it counts the threads of a run, and bits follow from those.
        until(lambda: sum("Registered to" in log.read_text() for log in jobs.glob("*.log")) == 2)
        yield jobs
        workers.terminate()
    for file in jobs.glob("*.pid"):
        with suppress(ProcessLookupError):
            os.killpg(int(file.read_text()), signal.SIGKILL)


def test_jobs_of_slurm_that_are_lost_give_the_results_of_this_machine(here, raw, slurm, tmp_path):
    study = Study(tmp_path / "study", raw)
    with ThreadPoolExecutor(1) as thread:
        lost = thread.submit(lose_both, study, slurm)
        done = study.run("--dask", slurm / "scheduler.json")
        lost.result()
    assert done.returncode == 0, done.stderr
    scripts = [file.read_text() for file in slurm.glob("*.sh")]
    assert len(scripts) > 2 and all("#SBATCH --cpus-per-task=8\n" in text for text in scripts)
    logs = [log.read_text() for log in study.runs.glob("*/run.log")]
    assert [log.count("resuming after iteration") > 0 for log in logs] == [True, True]
    assert study.results() == here.results()
    assert any(float(row["dice"] or 0) > 0.1 for row in here.results())  # there was something to differ in


def lose_both(study, slurm):
    """Kills the worker of the first run that has saved, and ends the job of the other as Slurm does when its time is up."""
    import psutil

    first = until(lambda: next(iter(in_training(study)), None))
    run = psutil.Process(holder(first))
    run.parent().kill()
    assert until(lambda: not run.is_running() or run.status() == psutil.STATUS_ZOMBIE)
    other = until(lambda: next((folder for folder in in_training(study) if folder != first), None))
    jobs = {int(file.read_text()) for file in slurm.glob("*.pid")}
    job = next(parent for parent in psutil.Process(holder(other)).parents() if parent.pid in jobs)
    for process in (*job.children(recursive=True), job):
        with suppress(psutil.NoSuchProcess):
            process.terminate()
