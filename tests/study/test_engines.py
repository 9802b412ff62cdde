"""One study on each engine: processes of this machine, a cluster that loses a worker, and an array job, with equal results."""

import csv
import os
import subprocess
import sys
import threading
import time

import pytest
from commandline import SCRIPTS

from utseg.compute.pool import available_cores

pytest.importorskip("distributed", reason="the extra `dask` is not installed")
pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
from distributed import LocalCluster

pytestmark = pytest.mark.slow
WORDS = (
    *("-m", "UNet", "-pl", "cpu", "--epochs", "3"),
    *("--set", "network.base_channels=6", "iterations_per_epoch=16", "batch_size=4", "save_minutes=0.00001"),
)
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
        (place / "home" / "raw" / "Phantom").symlink_to(raw)
        self.runs = place / "home" / "results" / "study_runs"

    def run(self, *engine, file="vendors", environment=None):
        return subprocess.run(
            [
                *(SCRIPTS / "utseg_study", file, *WORDS, "--home", self.place / "home"),
                *("-o", self.place / "study", *engine),
            ],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
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
    run = psutil.Process(int((folder / ".lock").read_text().split()[-1]))
    worker = run.parent()
    assert worker.pid != os.getpid()
    worker.kill()
    assert until(lambda: not run.is_running() or run.status() == psutil.STATUS_ZOMBIE)


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


# Stand-ins for Slurm's commands. The job's tasks run here, one after the other; the first is told of its end when it has saved an epoch,
# and runs again when it was put back into the queue.
SBATCH = """#!{python}
import subprocess, sys
print("Submitted batch job 77", flush=True)
subprocess.Popen([sys.executable, "{state}/cluster.py", sys.argv[-1]], stdin=-3, stdout=-3, stderr=-3, start_new_session=True)
"""
CLUSTER = """
import os, signal, subprocess, sys, time
from pathlib import Path
state, runs = Path("{state}"), Path("{runs}")
queue, requeued, task_pid = state / "queue", state / "requeued", state / "pid"
tasks = ["77_0", "77_1"]
told = False
while tasks:
    queue.write_text(" ".join(tasks))
    environment = dict(os.environ, SLURM_JOB_ID="77", SLURM_ARRAY_JOB_ID="77", SLURM_ARRAY_TASK_ID=tasks[0][-1])
    task = subprocess.Popen(["bash", sys.argv[1]], env=environment)
    while task.poll() is None:
        time.sleep(0.01)
        if not told and any(runs.glob("*/train/checkpoint_latest.pt")):
            os.kill(int(task_pid.read_text()), signal.SIGUSR2)
            told = True
    if requeued.exists():
        requeued.rename(state / "requeued once")
    else:
        tasks.pop(0)
(state / "done").touch()
"""
SRUN = """#!{python}
import os, sys
words = sys.argv[1:]
while words[0].startswith("-"):
    option = words.pop(0)
    if option in ("--output", "--error"):
        log = words.pop(0).replace("%A", "77").replace("%a", os.environ["SLURM_ARRAY_TASK_ID"]).replace("%t", "0")
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), 1)
        os.dup2(1, 2)
with open("{state}/pid", "w") as file:
    file.write(str(os.getpid()))
os.execvp(words[0], words)
"""
SCONTROL = """#!{python}
import sys
from pathlib import Path
Path("{state}", "requeued").write_text(" ".join(sys.argv[1:]))
"""
SQUEUE = """#!{python}
from pathlib import Path
print("" if Path("{state}", "done").exists() else Path("{state}", "queue").read_text())
"""


def test_an_array_job_gives_the_same_results_and_goes_on_when_its_time_was_up(here, raw, tmp_path):
    study = Study(tmp_path, raw)
    state = tmp_path / "slurm state"
    state.mkdir()
    texts = {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL, "squeue": SQUEUE, "cluster.py": CLUSTER}
    for name, text in texts.items():
        values = {"python": sys.executable, "state": str(state), "runs": str(study.runs)}
        for key, value in values.items():
            text = text.replace(f"{{{key}}}", value)
        (state / name).write_text(text)
        (state / name).chmod(0o755)
    (state / "queue").write_text("77_0 77_1")
    environment = {"PATH": f"{state}{os.pathsep}{os.environ['PATH']}"}
    file = tmp_path / "each.toml"
    file.write_text(
        'name = "vendors"\nnetworks = ["UNet"]\n[train]\neach = "vendor"\n[test]\nby = "vendor"\n'
    )
    slurm = ("--slurm", f"cpus={max(1, available_cores() // 2)}", "time=1h")
    submitted = study.run(*slurm, file=file, environment=environment)
    assert submitted.returncode == 75, submitted.stderr
    assert "2 runs submitted as job 77" in submitted.stdout
    until((state / "done").exists)
    collected = study.run(*slurm, file=file, environment=environment)
    assert collected.returncode == 0, collected.stderr + (study.place / "study").as_posix()
    assert (state / "requeued once").read_text() == "requeue 77_0"
    assert [log for log in study.runs.glob("*/run.log") if "resuming after iteration" in log.read_text()]
    of_these = {row["run"] for row in study.results()}
    assert study.results() == [row for row in here.results() if row["run"] in of_these] != []
