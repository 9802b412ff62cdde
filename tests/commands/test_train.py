"""`utseg_train`: words, defaults, refusals; and that a killed run, resumed, ends with the very same weights."""

import argparse
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch
from commandline import SCRIPTS, temporary_files
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import make_home

from utseg.commands.options import duration
from utseg.commands.train import main
from utseg.files import write_json
from utseg.home import selection_folder_name
from utseg.planning.override import override
from utseg.planning.plan import read_plan, write_plan
from utseg.preprocess.splits import SPLITS_FILE, read_splits
from utseg.training import loop
from utseg.training.recipe import apply_settings, find_recipe
from utseg.training.record import RunRecord, is_finished, read_run, read_weights, write_run
from utseg.training.request import TrainRequest

SAVED_AT_ONCE = ("--set", "save_minutes=0.00001")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def asked(monkeypatch):
    """The requests that the command hands to its trainer, which does nothing."""
    requests: list[TrainRequest] = []
    monkeypatch.setattr("utseg.steps.training.find_trainer", lambda model: requests.append)
    return requests


def call(home, *words):
    return main([*map(str, words), "--home", str(home)])


def test_words_become_a_request(home, asked):
    words = (
        "--seed",
        3,
        "--max-time",
        "1h30m",
        "--device",
        "cpu",
        "-np",
        0,
        "--weights",
        "a.pth",
        "--allow-mismatch",
    )
    settings = ("--set", "patch_size=24,24", "optimizer.learning_rate=0.1", "--set", "amp=off")
    assert call(home, "2d", "vendor=A,B", "-d", "Tiny", "-m", "UNet", *words, *settings) == 0
    (request,) = asked
    assert request.output == home / "results" / "Tiny" / "tiny_2d" / "UNet" / "vendor=A,B"
    assert request.plan_folder == home / "preprocessed" / "Tiny" / "tiny_2d"
    assert (request.raw, request.selection, request.seed) == (home / "raw" / "Tiny", "vendor=A,B", 3)
    assert (request.max_time_s, request.epochs, request.workers) == (5400.0, None, 0)
    assert (request.weights, request.allow_mismatch) == (Path("a.pth"), True)
    assert request.settings == {"patch_size": [24, 24], "optimizer.learning_rate": 0.1, "amp": "off"}


def test_dataset_and_plan_may_be_left_out(home, asked, tmp_path, capsys):
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    there = copy / "preprocessed" / "Tiny"
    assert call(copy, "2d", "fold0") == 0
    assert asked[-1].plan_folder == there / "tiny_2d"
    shutil.copytree(there / "tiny_2d", there / "mine_2d")
    assert call(copy, "2d", "fold0") == 2
    assert "mine, tiny; choose one with -pl" in capsys.readouterr().err
    shutil.copytree(there / "tiny_2d", there / "auto_2d")
    assert call(copy, "2d", "fold0") == 0
    assert asked[-1].plan_folder == there / "auto_2d"
    assert call(copy, "2d", "fold0", "-pl", "mine") == 0
    assert asked[-1].plan_folder == there / "mine_2d"
    assert call(copy, "2d", "fold0", "-pl", "cpu") == 1
    assert "plans there: auto, mine, tiny" in capsys.readouterr().err


def test_one_subject_alone_trains_without_what_the_plan_mixes_in_of_others(home, tmp_path, capsys):
    copy, mixing = tmp_path / "home", "augmentation.histogram_probability"
    shutil.copytree(home, copy)
    there = copy / "preprocessed" / "Tiny"
    alone, *others = read_splits(there)
    alone["training"] = alone["training"][:1]
    write_json(there / SPLITS_FILE, [alone, *others])
    write_plan(override(read_plan(there / "tiny_2d"), {mixing: 0.5}), there / "tiny_2d")
    short = ("--epochs", 1, "--set", "iterations_per_epoch=1")
    for trained_on, probability in (("fold0", 0), ("all", 0.5)):
        assert call(copy, "2d", trained_on, *short) == 0
        plan = read_run(copy / "results" / "Tiny" / "tiny_2d" / "UTNet" / trained_on).plan
        assert plan.augmentation.histogram_probability == probability
        assert ("are of one subject" in plan.reasons[mixing]) is (probability == 0)
    assert call(copy, "2d", "fold0", "--overwrite", *short, f"{mixing}=0.5") == 1
    assert "at least two subjects" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("3d", "fold0"), 2, "'3d'; there are: 2d, 2.5d"),
        (("2d", "fold9"), 2, "fold9"),
        (("2d", "fold" + "9" * 5000), 2, "fold999"),
        (("2d", "vendor=Z"), 2, "B (4 cases)"),
        (("2d", "colour=red"), 2, "vendor"),
        (("2d", "sometimes"), 2, "fold0"),
        (("2d", "fold0", "-m", "VNet"), 2, "UNet, UTNet"),
        (("2d", "fold0", "-d", "Other"), 1, "found there: Tiny"),
        (("2d", "fold0", "--device", "tpu"), 2, "cpu, cuda"),
        (("2d", "fold0", "--device", "mps:1"), 2, "Apple GPU"),
        (("2d", "fold0", "--set", "batchsize=3"), 1, "did you mean 'batch_size'"),
        (("2d", "fold0", "--set", "optimizer.name=adam"), 1, "optimizer.name"),
        (("2d", "fold0", "--set", "batch_size=0"), 1, "batch_size"),
        (("2d", "fold0", "--resume"), 1, "nothing to resume"),
    ],
)
def test_wrong_words_are_refused_in_one_line_and_leave_nothing(home, words, code, expected, capsys):
    assert call(home, *words) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert expected in error
    assert not (home / "results").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--epochs", "0"),
        *((option, "9" * digits) for option in ("--epochs", "--seed", "-np") for digits in (20, 5000)),
        ("--max-time", "soon"),
        ("--epochs", "2", "--max-time", "1m"),
        ("--validate", "--resume"),
        ("--validate", "--overwrite"),
    ],
)
def test_wrong_lengths_and_contradictions_are_wrong_usage(home, words):
    with pytest.raises(SystemExit) as left:
        call(home, "2d", "fold0", *words)
    assert left.value.code == 2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h", 3600), ("1h30m", 5400), ("1.5m", 90), ("2h1m5s", 7265)],
)
def test_durations(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "10", "m", "0s", "-5m", "1m1h", "1..5m", "ten minutes", "9" * 300 + "h", "9" * 5000 + "h"]
)
def test_no_durations(text):
    with pytest.raises(argparse.ArgumentTypeError, match="1h30m"):
        duration(text)


@settings(max_examples=40, deadline=None)
@given(st.text(min_size=1))
def test_any_selection_becomes_one_plain_folder(selection):
    name = selection_folder_name(selection)
    assert name and name not in {".", ".."} and not set(name) & set('/\\:*?"<>|\0\n')
    assert selection_folder_name(name) == name


def test_common_selections_keep_their_name():
    for name in ("fold0", "all", "vendor=A,B", "vendor!=C", "centre=2"):
        assert selection_folder_name(name) == name


@pytest.mark.parametrize(
    ("words", "selections", "resumed"),
    [
        ((), ["fold0", "fold2", "fold3", "fold4"], [False, False, True, False]),
        (("--resume",), ["fold0", "fold2", "fold3", "fold4"], [False, False, True, False]),
        (("--overwrite",), ["fold0", "fold1", "fold2", "fold3", "fold4"], [False] * 5),
        (
            ("--validate",),
            ["fold0", "fold1", "fold2", "fold3", "fold4"],
            [False, True, False, True, False],
        ),
        (
            ("--save-probabilities",),
            ["fold0", "fold1", "fold2", "fold3", "fold4"],
            [False, True, False, True, False],
        ),
    ],
)
def test_all_folds_trains_what_has_not_finished(home, asked, tmp_path, capsys, words, selections, resumed):
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    results = copy / "results" / "Tiny" / "tiny_2d" / "UTNet"
    for name in ("fold1", "fold3"):
        (results / name / "validation").mkdir(parents=True)
        write_run(planned_record(copy, name), results / name)
    (results / "fold1" / "validation" / "summary.json").write_text("{}")
    (results / "fold1" / "model.safetensors").touch()
    assert call(copy, "2d", "all-folds", *words) == 0
    assert [request.selection for request in asked] == selections
    assert [request.resume for request in asked] == resumed
    assert [request.output.name for request in asked] == selections
    assert "trained otherwise" not in capsys.readouterr().err
    if not words:
        others = ("--epochs", 9, "--seed", 1, "--set", "optimizer.learning_rate=0.5")
        assert call(copy, "2d", "all-folds", *others) == 0
        said = capsys.readouterr().err
        assert "fold1: was trained otherwise than is asked for now: epochs (" in said and "fold3" not in said
        assert "seed (0 then, 1 now)" in said and ", 0.5 now)" in said


def planned_record(home, selection):
    """What is on record of a run of UTNet as it is planned."""
    folder = home / "preprocessed" / "Tiny" / "tiny_2d"
    recipe, plan = apply_settings(find_recipe("UTNet"), read_plan(folder), {})
    return RunRecord(
        model="UTNet",
        plan=plan,
        recipe=recipe.model_dump(mode="json"),
        selection=selection,
        training_cases=(),
        validation_cases=(),
        epochs=plan.epochs,
        iterations_per_epoch=plan.iterations_per_epoch,
        seed=0,
        device="cpu",
        data_sha256="",
        versions={},
        git_revision="",
        started="",
    )


class Kill(BaseException):
    """Ends a run at once, like SIGKILL: nothing in the program expects it."""


@pytest.mark.slow
def test_all_folds_goes_on_where_it_stopped(home, tmp_path, monkeypatch, capsys):
    """The same command again: what has finished stays, the fold that was killed goes on, the others begin."""
    rest = ("-d", "Tiny", "-m", "UNet", "--epochs", 1, "--device", "cpu", *SAVED_AT_ONCE)
    copy = Path(shutil.copytree(home, tmp_path / "home"))
    killed = copy / "results" / "Tiny" / "tiny_2d" / "UNet"
    original = loop.iterate

    def dying(run, state, batches):
        if run.request.output.name == "fold1" and state.iteration == 3:
            raise Kill
        original(run, state, batches)

    with monkeypatch.context() as patch, pytest.raises(Kill):
        patch.setattr(loop, "iterate", dying)
        call(copy, "2d", "all-folds", *rest)
    finished = (killed / "fold0" / "checkpoint_latest.pt").stat().st_mtime_ns
    assert is_finished(killed / "fold0") and not is_finished(killed / "fold1")
    assert not list(killed.rglob("validation/*.npz"))
    capsys.readouterr()
    assert call(copy, "2d", "all-folds", *rest, "--save-probabilities") == 0
    assert "resuming after iteration 3 of 5" in capsys.readouterr().out
    assert (killed / "fold0" / "checkpoint_latest.pt").stat().st_mtime_ns == finished
    for index in range(5):
        cases = read_run(killed / f"fold{index}").validation_cases
        found = sorted(path.stem for path in (killed / f"fold{index}" / "validation").glob("*.npz"))
        assert found == sorted(cases) and is_finished(killed / f"fold{index}")


WORDS = ("2d", "fold0", "-d", "Tiny", *SAVED_AT_ONCE, "--device", "cpu", "--epochs", 4)


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_it_ends_with_the_very_same_weights(home, tmp_path):
    homes = []
    for name in ("whole", "killed"):
        homes.append(tmp_path / name)
        shutil.copytree(home, homes[-1])
    whole, killed = homes
    assert call(whole, *WORDS) == 0
    folder = killed / "results" / "Tiny" / "tiny_2d" / "UTNet" / "fold0"
    command = [SCRIPTS / "utseg_train", *WORDS, "--home", killed]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL)
    wait_for_checkpoint(folder, process)
    time.sleep(random.Random(0).uniform(0, 0.4))
    process.kill()
    process.wait()
    assert call(killed, *WORDS, "--resume") == 0
    expected, found = (
        read_weights(place / "results" / "Tiny" / "tiny_2d" / "UTNet" / "fold0") for place in (whole, killed)
    )
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    log = (folder / "training.jsonl").read_text().splitlines()
    assert len(log) == 4
    assert not temporary_files(folder)


def wait_for_checkpoint(folder, process):
    """Until the process has saved something of its own."""
    path = folder / "checkpoint_latest.pt"
    before = path.stat().st_mtime_ns if path.exists() else 0
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if path.exists() and path.stat().st_mtime_ns != before:
            return
        time.sleep(0.02)


def test_weights_of_a_run_that_saw_those_held_back_are_named(home, tmp_path, capsys):
    copy = Path(shutil.copytree(home, tmp_path / "home"))
    words = ("-m", "UNet", "--epochs", 1, "--device", "cpu")
    assert call(copy, "2d", "fold1", *words) == 0
    folder = copy / "results/Tiny/tiny_2d/UNet"
    capsys.readouterr()
    assert call(copy, "2d", "fold0", *words, "--weights", folder / "fold1") == 0
    held_back = {case.split("_")[0] for case in read_run(folder / "fold0").validation_cases}
    said = capsys.readouterr().err
    assert f"was trained on 1 of the 1 subjects that fold0 holds back ({held_back.pop()})" in said
    assert read_run(folder / "fold0").initial_weights.saw == 1
    again = ("--overwrite", "--weights", folder / "fold0")  # which began from weights that saw its subject
    assert call(copy, "2d", "fold0", *words, *again) == 0
    assert "was trained on 1 of the 1 subjects that fold0 holds back" in capsys.readouterr().err
    chained = read_run(folder / "fold0")
    assert chained.initial_weights.saw == 1
    assert chained.seen_scans == {*chained.training_scans, *read_run(folder / "fold1").training_scans}
    assert call(copy, "2d", "fold1", *words, "--overwrite", "--weights", folder / "fold1") == 0
    assert read_run(folder / "fold1").initial_weights.saw == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--epochs", 3),
        ("--patience", 3),
        ("--max-time", "1h"),
        ("--seed", 1),
        ("--weights", "a.pth"),
        ("--allow-mismatch",),
        ("--fit",),
        ("--compile",),
        ("--set", "batch_size=3"),
    ],
)
def test_validate_takes_no_option_of_training(home, asked, words, capsys):
    assert call(home, "2d", "fold0", "--validate", *words) == 2
    assert f"leave out {words[0]}\n" in capsys.readouterr().err
    assert not asked
