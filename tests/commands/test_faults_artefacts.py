"""Faults 20–25 and 28: kills, full disks, damaged artefacts, two runs at once, seen from the command line."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib import import_module

import numpy as np
import pytest
import torch
from commandline import SCRIPTS, assert_refused, killed_at, run_here, temporary_files
from rawfiles import corrupt, make_heart, make_nifti, make_nnunet

from utseg.training.checkpoint import FORMAT
from utseg.training.record import read_run

PLAN = "utseg_plan_and_preprocess"
PLAN_WORDS = ("-d", "Heart", "-pl", "cpu", "-m", "UNet", "-np", 1)
SETTINGS = ("network.base_channels=4", "iterations_per_epoch=2", "batch_size=2", "save_minutes=0.00001")
TINY = ("-m", "UNet", "--device", "cpu", "--set", *SETTINGS)
TRAIN_WORDS = ("2d", "fold0", "-d", "Heart", "-pl", "cpu", "--epochs", 2, *TINY)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A home with a planned dataset and a model that was trained for two tiny epochs."""
    home = tmp_path_factory.mktemp("trained")
    make_nnunet(home / "raw" / "Heart", subjects=5, size_zyx=(4, 40, 36))
    for name, words in ((PLAN, PLAN_WORDS), ("utseg_train", TRAIN_WORDS)):
        result = run_here(name, *words, home=home)
        assert result.returncode == 0, result.stdout + result.stderr
    return home


@pytest.fixture
def home(tmp_path, trained):
    shutil.copytree(trained, tmp_path / "home")
    return tmp_path / "home"


def slices(home):
    return {
        path.relative_to(home): path.read_bytes() for path in sorted((home / "preprocessed").rglob("*.npz"))
    }


def run_folder(home):
    return home / "results" / "Heart" / "cpu_2d" / "UNet" / "fold0"


def start(name, *words, home, **options):
    """The installed command, in a process of its own."""
    return subprocess.Popen(
        [str(SCRIPTS / name), *map(str, words), "--home", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def assert_whole(folder):
    for record in folder.rglob("*.json"):
        json.loads(record.read_text())
    for made in folder.rglob("[!.]*/[0-9][0-9][0-9].npz"):
        if not any(part.startswith(".") for part in made.relative_to(folder).parts):
            with np.load(made, allow_pickle=False) as data:
                assert data["image"].dtype == np.float32 and data["label"].shape == data["image"].shape[1:]


@pytest.mark.slow
def test_preprocessing_killed_at_any_moment_is_finished_by_the_same_command(tmp_path, trained):
    (tmp_path / "raw").symlink_to(trained / "raw")
    for step in (1, 2, 4, 7):
        assert killed_at(step, PLAN, *PLAN_WORDS, home=tmp_path), step
    assert_whole(tmp_path / "preprocessed")
    process = start(PLAN, *PLAN_WORDS, home=tmp_path, start_new_session=True)
    time.sleep(float(np.random.default_rng(0).uniform(0.4, 2.5)))
    process.kill()
    process.communicate()
    assert_whole(tmp_path / "preprocessed")
    result = run_here(PLAN, *PLAN_WORDS, home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert slices(tmp_path) == slices(trained)
    assert not temporary_files(tmp_path / "preprocessed")


@contextmanager
def small_disk(limit_bytes):
    """No file may grow beyond the limit: what a full disk looks like to a program, without filling one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))  # Python ignores the signal
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("stage", ["slice", "prediction", "checkpoint"])
def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(home, tmp_path, stage):
    if stage == "slice":
        shutil.rmtree(home / "preprocessed" / "Heart" / "cpu_2d" / "slices")
        words, limit = (PLAN, *PLAN_WORDS), 6000
    elif stage == "prediction":
        image = np.random.default_rng(0).integers(0, 4000, (4, 64, 64)).astype(np.int16)
        make_nifti(tmp_path / "in" / "noise.nii.gz", image)
        folders = "-i", tmp_path / "in", "-o", tmp_path / "out"
        words, limit = ("utseg_predict", *folders, "--save-probabilities", "--device", "cpu"), 4000
    else:
        shutil.rmtree(run_folder(home))
        words, limit = ("utseg_train", *TRAIN_WORDS), 40_000
    with small_disk(limit):
        result = run_here(*words, home=home)
    assert_refused(result, "could not be written", lines=None)
    assert not temporary_files(home) and not temporary_files(tmp_path / "out")
    assert not list((tmp_path / "out").glob("noise*"))
    if stage == "checkpoint":
        assert not list(run_folder(home).glob("checkpoint_latest.pt"))


@pytest.mark.parametrize("stage", ["plan", "train", "predict", "evaluate", "report", "export", "phantom"])
def test_an_output_that_cannot_be_written_fails_before_the_work(home, tmp_path, monkeypatch, stage):
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder is wanted")
    images, labels = (home / "raw" / "Heart" / name for name in ("imagesTr", "labelsTr"))
    if stage in ("plan", "train"):
        moved = "UTSEG_PREPROCESSED" if stage == "plan" else "UTSEG_RESULTS"
        monkeypatch.setenv(moved, str(blocked / "below"))
    words = {
        "plan": (PLAN, *PLAN_WORDS),
        "train": ("utseg_train", *TRAIN_WORDS),
        "predict": ("utseg_predict", "-i", images, "-o", blocked / "out", "--device", "cpu"),
        "evaluate": (
            "utseg_evaluate",
            "-p",
            shutil.copytree(labels, tmp_path / "masks"),
            "-g",
            labels,
            "-o",
            blocked / "scores",
        ),
        "report": ("utseg_report", run_folder(home), "-o", blocked / "report.html"),
        "export": ("utseg_export_model", "-o", blocked / "model.zip"),
        "phantom": ("utseg_make_phantom", blocked / "phantom"),
    }
    assert_refused(run_here(*words[stage], home=home), "not writable", str(blocked))


def test_a_damaged_slice_is_noticed_by_training_and_mended_by_preprocessing(home):
    whole = slices(home)
    victim = next(path for path in sorted((home / "preprocessed").rglob("*.npz")))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    shutil.rmtree(run_folder(home))
    result = run_here(
        "utseg_train", "2d", "all", "-d", "Heart", "-pl", "cpu", "--epochs", 1, *TINY, home=home
    )
    assert_refused(result, victim.name, PLAN)
    assert run_here(PLAN, *PLAN_WORDS, home=home).returncode == 0
    assert slices(home) == whole


def test_a_damaged_checkpoint_gives_way_to_the_previous_one_and_the_log_says_so(home):
    latest = run_folder(home) / "checkpoint_latest.pt"
    data = bytearray(latest.read_bytes())
    data[len(data) // 2] ^= 1
    latest.write_bytes(data)
    result = run_here("utseg_train", *TRAIN_WORDS, "--resume", home=home)
    assert result.returncode == 0, result.stderr
    assert "checkpoint_latest.pt" in result.stderr and "previous" in result.stderr


def test_damaged_weights_are_noticed_by_prediction(home, tmp_path):
    weights = run_folder(home) / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    images = home / "raw" / "Heart" / "imagesTr"
    result = run_here("utseg_predict", "-i", images, "-o", tmp_path / "out", "--device", "cpu", home=home)
    assert_refused(result, "model.safetensors")


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_checkpoint_with_a_pickle_in_it_is_refused_and_nothing_runs(home, tmp_path):
    folder, harmed = run_folder(home), tmp_path / "harmed"
    for name in ("checkpoint_latest.pt", "checkpoint_previous.pt", "checkpoint_best.pt"):
        torch.save({"format": FORMAT, "state": Hostile(harmed)}, folder / name)
    predict = (
        "utseg_predict",
        "-i",
        home / "raw" / "Heart" / "imagesTr",
        "-o",
        tmp_path / "out",
        "--device",
        "cpu",
    )
    assert_refused(
        run_here(*predict, "--checkpoint", "best", home=home), "checkpoint_best.pt", "not a checkpoint"
    )
    other = "2d", "fold1", *TRAIN_WORDS[2:], "--weights", folder / "checkpoint_best.pt"
    assert_refused(
        run_here("utseg_train", *other, home=home), "checkpoint_best.pt", "cannot be read as weights"
    )
    (folder / "model.safetensors").unlink()  # the run has not finished
    assert_refused(run_here("utseg_train", *TRAIN_WORDS, "--resume", home=home), "checkpoint_previous.pt")
    assert not harmed.exists()


def test_a_damaged_plan_is_noticed(home):
    plan = home / "preprocessed" / "Heart" / "cpu_2d" / "plan.json"
    plan.write_text(plan.read_text()[:200])
    assert_refused(
        run_here("utseg_train", "2d", "fold1", "-d", "Heart", "-pl", "cpu", "-m", "UNet", home=home),
        "plan.json",
    )


@pytest.mark.slow
def test_a_second_run_on_the_same_folder_is_refused_and_sigterm_saves_the_first(home):
    long = ("2d", "fold1", "-d", "Heart", "-pl", "cpu", "--epochs", 10_000, *TINY)
    process = start("utseg_train", *long, home=home)
    folder = run_folder(home).parent / "fold1"
    try:
        deadline = time.monotonic() + 90
        while (
            not (folder / "training.jsonl").exists()
            and time.monotonic() < deadline
            and process.poll() is None
        ):
            time.sleep(0.2)
        assert (folder / "training.jsonl").exists(), process.communicate()
        assert_refused(run_here("utseg_train", *long, "--resume", home=home), "another run", str(process.pid))
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 75
    assert "--resume" in errors and "Traceback" not in errors
    assert (folder / "checkpoint_latest.pt").exists()
    assert read_run(folder).epochs == 10_000


def test_one_bad_case_of_many_is_named_and_the_others_finish(home, tmp_path):
    for number in range(4):
        make_nifti(tmp_path / "in" / f"case{number}.nii.gz", make_heart((3, 30, 30), seed=number)[0])
    corrupt(tmp_path / "in" / "case2.nii.gz", "NaN")
    result = run_here(
        "utseg_predict", "-i", tmp_path / "in", "-o", tmp_path / "out", "--device", "cpu", home=home
    )
    assert_refused(result, "case2.nii.gz")
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 3


def test_resume_without_anything_to_resume(home):
    assert_refused(
        run_here(
            "utseg_train", "2d", "fold2", "-d", "Heart", "-pl", "cpu", "-m", "UNet", "--resume", home=home
        ),
        "fold2",
        "resume",
    )


COMMANDS = sorted(path.name for path in SCRIPTS.glob("utseg_*"))


@pytest.mark.parametrize("name", COMMANDS)
def test_unknown_flags_are_errors_and_help_shows_an_example(name, capsys):
    for words, code in (("--no-such-flag",), 2), (("--help",), 0):
        with pytest.raises(SystemExit) as left:
            run_main(name, *words)
        assert left.value.code == code
    said = capsys.readouterr().out
    assert f"example: {name}" in said
    assert all(flag in said for flag in ("--home", "--debug", "--quiet"))


def run_main(name, *words):
    return import_module(f"utseg.commands.{name.removeprefix('utseg_')}").main(list(words))


def test_help_imports_nothing_heavy():
    code = (
        "import importlib, sys\n"
        f"for name in {[name.removeprefix('utseg_') for name in COMMANDS]}:\n"
        "    try: importlib.import_module(f'utseg.commands.{name}').main(['--help'])\n"
        "    except SystemExit: pass\n"
        "    found = {'torch', 'numpy', 'pydantic', 'rich', 'SimpleITK'} & set(sys.modules)\n"
        "    assert not found, (name, found)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_scripts_are_installed():
    assert PLAN in COMMANDS
