"""Training under torchrun: as one process with the whole batch; however often it was killed, with the very same weights.

Two launches, as each process takes seconds to import torch: one that is killed and stopped; and one whose two processes check what they
agree on, and give all other commands one after the other.
"""

import json
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torchrun
from commandline import SCRIPTS, temporary_files
from tiny_runs import make_home

from utseg.commands.train import main
from utseg.files import read_json
from utseg.training.record import is_finished, read_run, read_weights

pytestmark = pytest.mark.slow
TRAIN = ("2d", "fold0", "-d", "Tiny", "--device", "cpu")
FOLDER = ("results", "Tiny", "tiny_2d", "UTNet", "fold0")
# The losses of the first 20 iterations. Each process would draw its own dropout: of a network without.
AS_ONE = ("iterations_per_epoch=1", "validate_every=10", "optimizer.learning_rate=0.02", "amp=off")
AS_ONE = (*TRAIN, "-m", "UNet", "--epochs", "20", "--set", *AS_ONE, "network.aux_loss=true")
SAVED_OFTEN = ("save_minutes=0.00001", "iterations_per_epoch=2", "validate_every=10")
SAVED_OFTEN = (*TRAIN, "--epochs", "14", "--set", *SAVED_OFTEN, "orthogonal_updates=true")


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "training.jsonl").read_text().splitlines()]


def copied(home, folder):
    return Path(shutil.copytree(home, folder))


def train_here(home, *words):
    return main([*words, "--home", str(home)])


def wait_for_epochs(folder, count, process):
    """Until the log has so many epochs."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (folder / "training.jsonl").exists() and len(losses(folder)) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(process.communicate(timeout=60))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home") / "home")


@pytest.fixture(scope="module")
def stopped(home):
    """A home with a run of the installed command: rank 1 killed, both started again by torchrun, and stopped by SIGTERM."""
    broken = copied(home, home.with_name("stopped"))
    folder = broken.joinpath(*FOLDER)
    words = (SCRIPTS / "utseg_train", *SAVED_OFTEN, "--home", broken)
    process = torchrun.start(*words, options=("--no-python", "--max-restarts", 1))
    wait_for_epochs(folder, 2, process)
    ranks = [torchrun.rank_process(process, number) for number in (0, 1)]
    os.kill(ranks[1], signal.SIGKILL)
    killed = time.monotonic()
    while any(map(torchrun.is_running, ranks)) and time.monotonic() < killed + 30:
        time.sleep(0.02)
    assert not any(map(torchrun.is_running, ranks)), "both end, and torchrun starts both again"
    wait_for_epochs(folder, len(losses(folder)) + 2, process)
    process.send_signal(signal.SIGTERM)
    result = torchrun.finish(process)
    assert "error: another process of this run has ended" in result.stderr
    assert result.stderr.count("all is saved; the same command with --resume goes on") == 1, result.stderr
    assert result.returncode not in (0, None)
    return broken


@dataclass(frozen=True)
class Launch:
    """What torchrun said of two processes, and the homes of the commands that they gave."""

    returncode: int
    stdout: str
    stderr: str
    homes: dict[str, Path]

    def said(self, name):
        """Exit codes, output and errors of a command, of both ranks."""
        ranks = [read_json(self.homes["checks"] / f"{name}.{rank}.json") for rank in (0, 1)]
        return tuple([rank[key] for rank in ranks] for key in ("code", "out", "err"))


@pytest.fixture(scope="module")
def launch(home, stopped):
    words = {
        "refused": (*TRAIN, "--set", "batch_size=3"),
        "as-one": AS_ONE,
        "whole": SAVED_OFTEN,
        "resumed": (*SAVED_OFTEN, "--resume"),
    }
    homes = {
        name: copied(stopped if name == "resumed" else home, home.with_name(name))
        for name in (*words, "checks")
    }
    commands = {name: [*words[name], "--home", str(homes[name])] for name in words}
    result = torchrun.run(Path(__file__).with_name("two_ranks.py"), homes["checks"], json.dumps(commands))
    return Launch(result.returncode, result.stdout, result.stderr, homes)


def test_two_processes_agree_add_and_fail_together(launch):
    assert launch.stdout.count("all checks passed") == 1, launch.stderr
    assert launch.returncode == 0, launch.stderr
    assert "Traceback" not in launch.stderr


def test_two_processes_train_as_one(home, launch, tmp_path):
    codes, out, err = launch.said("as-one")
    assert codes == [0, 0], err
    assert "".join(out).count("epoch 20/20") == 1 and "error" not in "".join(err)
    one = copied(home, tmp_path / "one")
    assert train_here(one, *AS_ONE) == 0
    one, two = (home.joinpath(*FOLDER[:3], "UNet", "fold0") for home in (one, launch.homes["as-one"]))
    assert len(losses(one)) == 20
    assert losses(two) == pytest.approx(losses(one), abs=1e-4, rel=0)
    assert losses(one)[-1] < losses(one)[0] - 0.1
    assert read_run(two).versions["processes"] == "2" and is_finished(two)
    for name, value in read_weights(one).items():
        torch.testing.assert_close(read_weights(two)[name], value, atol=1e-4, rtol=1e-3)


def test_killed_and_stopped_and_restarted_it_ends_with_the_very_same_weights(launch):
    for name in ("whole", "resumed"):
        codes, _, err = launch.said(name)
        assert codes == [0, 0], err
    whole, resumed = (launch.homes[name].joinpath(*FOLDER) for name in ("whole", "resumed"))
    assert losses(resumed) == losses(whole)
    expected, found = read_weights(whole), read_weights(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert is_finished(resumed) and not temporary_files(resumed)


def test_one_process_goes_on_where_two_were_stopped(stopped, tmp_path, capsys):
    alone = copied(stopped, tmp_path / "alone")
    assert train_here(alone, *SAVED_OFTEN, "--resume") == 0
    assert "processes 2 then, 1 now" in capsys.readouterr().err
    assert len(losses(alone.joinpath(*FOLDER))) == 14


def test_processes_that_do_not_divide_the_batch_are_refused_in_one_line(launch):
    codes, _, err = launch.said("refused")
    errors = [line for text in err for line in text.splitlines() if line.startswith("error: ")]
    assert codes == [1, 1] and len(errors) == 1
    assert "batch_size: 3 slices cannot be shared out evenly among the 2 processes" in errors[0]
    assert not (launch.homes["refused"] / "results").exists()
