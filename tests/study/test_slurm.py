"""Runs as an array job: what is asked of Slurm, in its words, by a stand-in for its commands that runs the tasks here."""

import json
import os
import signal
import stat
import sys
import threading

import pytest

import utseg.study.slurm as slurm_module
from utseg.errors import InputError, SettingError, UsageError
from utseg.study.slurm import ArrayTask, SlurmOptions, parse_options, still_submitted, submit_array

pytest.importorskip("submitit", reason="the extra `slurm` is not installed")

SBATCH = """#!{python}
import os, re, subprocess, sys
from pathlib import Path
state = Path({state!r})
script = Path(sys.argv[-1])
text = script.read_text()
(state / "script").write_text(text)
if "account='no such'" in text:
    sys.exit("sbatch: error: Invalid account or account/partition combination specified")
array = re.search(r"--array=0-(\\d+)", text)
tasks = [f"77_{{number}}" for number in range(int(array[1]) + 1)] if array else ["77"]
(state / "queue").write_text(" ".join(tasks))
print("Submitted batch job 77")
"""
SQUEUE = """#!{python}
import sys
from pathlib import Path
if "--jobs=77" not in sys.argv:
    sys.exit("slurm_load_jobs error: Invalid job id specified")
print(Path({state!r}, "queue").read_text())
"""
SRUN = """#!{python}
import os, sys
words = sys.argv[1:]
while words[0].startswith("-"):
    words = words[2 if words[0] in ("--output", "--error") else 1:]
os.execvp(words[0], words)
"""
SCONTROL = """#!{python}
import sys
from pathlib import Path
with Path({state!r}, "requeued").open("a") as file:
    file.write(sys.argv[2] + "\\n")
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder where stand-ins for Slurm's commands, first on PATH, write what they were told."""
    state, commands = tmp_path / "state", tmp_path / "bin"
    state.mkdir()
    commands.mkdir()
    texts = {"sbatch": SBATCH, "squeue": SQUEUE, "srun": SRUN, "scontrol": SCONTROL}
    for name, text in texts.items():
        file = commands / name
        file.write_text(text.format(python=sys.executable, state=str(state)))
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    return state


def folders(root, count):
    return [root / "runs" / f"{number:012d}" for number in range(count)]


def test_options_are_slurms_words_and_wrong_ones_are_named():
    options = parse_options(
        ["partition=gpu", "time=1.5h", "cpus=8", "gpus=1", "memory=32", "parallel=3", "account=heart"]
    )
    assert options == SlurmOptions("gpu", 5400, 8, 1, 32, 3, {"account": "heart"})
    assert parse_options(["time=2d"]).time_s == 2 * 86400 and parse_options(["time=30"]).time_s == 1800
    wrong = ("cpus", "cpus=", "cpus=0", "cpus=2.5", "gpus=-1", "memory=much", "time=1m", "time=h", "time=nan")
    for word in wrong:
        with pytest.raises(SettingError, match=f"--slurm {word}: expected"):
            parse_options([word])


def test_a_slot_gives_the_time_where_none_is_named():
    assert SlurmOptions().for_slot(3600).time_s == 3600 + slurm_module.MARGIN_S
    assert SlurmOptions(time_s=600).for_slot(3600).time_s == 600
    assert SlurmOptions().for_slot(None).time_s is None


def test_one_array_job_asks_for_what_is_wanted_and_is_known_while_it_lasts(slurm, tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    runs = folders(tmp_path, 3)
    options = SlurmOptions("gpu", 5400, 8, 1, 32.5, 2, {"account": "heart"})
    job = submit_array(runs, options, study, "vendors")
    assert (job.job_id, job.tasks) == ("77", 3)
    script = job.script.read_text()
    for line in (
        *("--array=0-2%2", "--partition=gpu", "--time=90", "--cpus-per-task=8", "--gpus-per-node=1"),
        *("--mem=32500M", "--account=heart", "--job-name=vendors", "--signal=USR2@120"),
    ):
        assert f"#SBATCH {line}\n" in script
    assert f"#SBATCH --output={study}/slurm/%A_%a_0_log.out\n" in script
    assert still_submitted(study) == {run: f"77_{number}" for number, run in enumerate(runs)}
    (slurm / "queue").write_text("77_1")
    assert still_submitted(study) == {runs[1]: "77_1"}
    assert submit_array(runs[:1], SlurmOptions(), study).tasks == 1  # no array: Slurm knows it as 77
    assert still_submitted(study) == {runs[0]: "77"}
    (study / "slurm" / "submitted.json").write_text(json.dumps({"78": [str(runs[0])]}))
    assert still_submitted(study) == {}  # Slurm has forgotten it
    assert still_submitted(tmp_path) == {}


def test_what_sbatch_refuses_is_told_in_its_words(slurm, tmp_path):
    with pytest.raises(InputError, match=r"--slurm: sbatch refused the job: .*Invalid account"):
        submit_array(folders(tmp_path, 2), SlurmOptions(more={"account": "no such"}), tmp_path)
    assert still_submitted(tmp_path) == {}


def test_a_machine_without_slurm_or_submitit_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UsageError, match="no sbatch and srun on this machine; 2 runs are prepared: give the same"
    ):
        submit_array(folders(tmp_path, 2), SlurmOptions(), tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"pip install 'utseg\[slurm\]'"):
        submit_array(folders(tmp_path, 2), SlurmOptions(), tmp_path)


@pytest.fixture
def endless(monkeypatch):
    """Runs that go on until they are told to stop; an event for each of the two."""
    began, stopped = threading.Event(), threading.Event()

    def execute(folder):
        began.set()
        assert stopped.wait(20)
        return f"interrupted {folder}"

    monkeypatch.setattr(slurm_module, "execute_job", execute)
    monkeypatch.setattr(slurm_module, "stop_children", stopped.set)
    handler = signal.getsignal(signal.SIGTERM)
    yield began
    signal.signal(signal.SIGTERM, handler)


def test_sigterm_has_the_run_saved(endless):
    threading.Thread(target=lambda: endless.wait(20) and os.kill(os.getpid(), signal.SIGTERM)).start()
    assert ArrayTask()("a") == "interrupted a"


def test_the_announced_end_has_the_run_saved_and_the_same_done_again(endless):
    task, again = ArrayTask(), []
    signal.signal(signal.SIGUSR2, lambda number, frame: again.append(task.checkpoint("a")))
    threading.Thread(target=lambda: endless.wait(20) and os.kill(os.getpid(), signal.SIGUSR2)).start()
    assert task("a") == "interrupted a"
    (submission,) = again
    assert isinstance(submission.function, ArrayTask) and submission.args == ("a",)
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)
