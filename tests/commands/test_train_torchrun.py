"""`utseg_train` under torchrun: as one process with the whole batch; however often it was killed, with the very same weights."""

import json
import os
import shutil
import signal
import time

import pytest
import torch
import torchrun
from commandline import SCRIPTS, temporary_files
from threads import no_pictures, one_thread  # noqa: F401 — used by being there
from tiny_runs import make_home

from utseg.commands.train import main
from utseg.training.record import is_finished, read_run, read_weights

pytestmark = pytest.mark.slow
WORDS = ("2d", "fold0", "-d", "Tiny", "--device", "cpu")
FOLDER = ("results", "Tiny", "tiny_2d", "UTNet", "fold0")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"))


def copied(home, folder):
    shutil.copytree(home, folder)
    return folder


def started(home, *words, **options):
    options = {"options": ("--no-python", *options.pop("options", ())), **options}
    return torchrun.start(SCRIPTS / "utseg_train", *words, "--home", home, **options)


def train_here(home, *words):
    return main([*map(str, words), "--home", str(home)])


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "training.jsonl").read_text().splitlines()]


def wait_for_epochs(folder, count, process):
    """Until the log has so many epochs."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (folder / "training.jsonl").exists() and len(losses(folder)) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(process.communicate(timeout=60))


def test_two_processes_train_as_one(home, tmp_path):
    """The losses of the first 20 iterations. Each process would draw its own dropout: of a network without."""
    settings = ("iterations_per_epoch=1", "validate_every=10", "optimizer.learning_rate=0.02", "amp=off")
    settings += ("network.aux_loss=true",)
    words = (*WORDS, "-m", "UNet", "--epochs", 20, "--set", *settings)
    one, two = (copied(home, tmp_path / name) for name in ("one", "two"))
    result = torchrun.finish(started(two, *words))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("epoch 20/20") == 1 and "error" not in result.stderr
    assert train_here(one, *words) == 0
    one, two = (home.joinpath(*FOLDER[:3], "UNet", "fold0") for home in (one, two))
    assert len(losses(one)) == 20
    assert losses(two) == pytest.approx(losses(one), abs=1e-4, rel=0)
    assert losses(one)[-1] < losses(one)[0] - 0.1
    assert read_run(two).versions["processes"] == "2" and is_finished(two)
    for name, value in read_weights(one).items():
        torch.testing.assert_close(read_weights(two)[name], value, atol=1e-4, rtol=1e-3)


def test_killed_and_stopped_and_restarted_it_ends_with_the_very_same_weights(home, tmp_path, capsys):
    settings = ("save_minutes=0.00001", "iterations_per_epoch=2", "validate_every=10")
    words = (*WORDS, "--epochs", 14, "--set", *settings)
    whole, broken = (copied(home, tmp_path / name) for name in ("whole", "broken"))
    result = torchrun.finish(started(whole, *words))
    assert result.returncode == 0, result.stderr
    folder = broken.joinpath(*FOLDER)

    process = started(broken, *words, options=("--max-restarts", 1))
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
    alone = copied(broken, tmp_path / "alone")

    result = torchrun.finish(started(broken, *words, "--resume"))
    assert result.returncode == 0, result.stderr
    assert losses(folder) == losses(whole.joinpath(*FOLDER))
    expected, found = read_weights(whole.joinpath(*FOLDER)), read_weights(folder)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert is_finished(folder) and not temporary_files(folder)

    assert train_here(alone, *words, "--resume") == 0
    assert "processes 2 then, 1 now" in capsys.readouterr().err
    assert len(losses(alone.joinpath(*FOLDER))) == 14


def test_processes_that_do_not_divide_the_batch_are_refused_in_one_line(home):
    result = torchrun.finish(started(home, *WORDS, "--set", "batch_size=3"))
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 1 and len(errors) == 1
    assert "batch_size: 3 slices cannot be shared out evenly among the 2 processes" in errors[0]
    assert not (home / "results").exists()
