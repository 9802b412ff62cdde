"""`utseg_plan_and_preprocess` as a user runs it: what it makes, keeps, prints and refuses."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from commandline import SCRIPTS, assert_refused, run_command, run_here, temporary_files
from rawfiles import make_mnms, make_nnunet

from utseg.rawdata import open_dataset

NAME = "utseg_plan_and_preprocess"
WORDS = ("-d", "Heart", "-pl", "cpu", "-np", 2)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A home with one dataset in each layout, and the first command's result on one of them."""
    home = tmp_path_factory.mktemp("planned")
    make_nnunet(home / "raw" / "Heart", subjects=6, size_zyx=(4, 48, 44))
    make_mnms(home / "raw" / "MnM", subjects=3)
    return home, run_here(NAME, *WORDS, home=home)


@pytest.fixture
def home(planned, tmp_path):
    return shutil.copytree(planned[0], tmp_path / "home")


def tree(home: Path) -> dict[str, bytes]:
    root = home / "preprocessed"
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_it_makes_what_the_contract_lists_and_prints_the_plan_with_reasons(planned):
    home, result = planned
    assert result.returncode == 0, result.stderr
    made = tree(home)
    assert {"Heart/fingerprint.json", "Heart/splits.json", "Heart/cpu_2d/plan.json"} <= set(made)
    assert not temporary_files(home)
    plan = json.loads(made["Heart/cpu_2d/plan.json"])
    assert plan["planner"] == "cpu" and {
        "preprocessing.spacing_yx_mm",
        "patch_size",
        "network.levels",
    } <= set(plan["reasons"])
    for words in (
        "12 cases of 6 subjects",
        "vendor A 3, B 3",
        "patch_size",
        "12 cases made, 0 kept, 5 folds",
    ):
        assert words in result.stdout, result.stdout
    slices = [name for name in made if name.endswith(".npz")]
    assert len(slices) == 12 * 4 and len([name for name in made if name.endswith("/case.json")]) == 12
    with np.load(home / "preprocessed" / slices[0], allow_pickle=False) as data:
        assert data["image"].dtype == np.float32 and data["image"].ndim == 3
        assert data["label"].dtype == np.uint8 and data["label"].shape == data["image"].shape[1:]
    splits = json.loads(made["Heart/splits.json"])
    assert sorted(s for split in splits for s in split["validation"]) == [f"s{i:02d}" for i in range(6)]


def test_running_again_keeps_everything(home):
    before = tree(home)
    result = run_here(NAME, *WORDS, home=home)
    assert result.returncode == 0 and "0 cases made, 12 kept" in result.stdout
    assert tree(home) == before


def test_settings_reach_the_plan_and_say_so(home):
    result = run_here(NAME, *WORDS, "--set", "patch_size=32,32", "network.base_channels=8", home=home)
    assert result.returncode == 0, result.stderr
    plan = json.loads((home / "preprocessed/Heart/cpu_2d/plan.json").read_text())
    assert (plan["patch_size"], plan["network"]["base_channels"]) == ([32, 32], 8)
    assert "set by the user" in plan["reasons"]["network.base_channels"]
    assert "0 cases made, 12 kept" in result.stdout


def test_a_dry_run_shows_every_value_and_writes_nothing(home):
    before = tree(home)
    words = ("--dry-run", "--set", "augmentation.rotation_deg=7")
    result = run_here(NAME, "-d", "MnM", "-pl", "cpu", "-m", "UNet", *words, home=home)
    assert result.returncode == 0, result.stderr
    assert "augmentation.rotation_deg" in result.stdout and "nothing was written" in result.stdout
    assert "6 cases of 3 subjects" in result.stdout
    assert tree(home) == before and not (home / "preprocessed" / "MnM").exists()


def test_fingerprint_then_plan_then_slices(home):
    words = ("-d", "MnM", "-pl", "cpu", "-m", "UNet", "-np", "1")
    folder, given = home / "preprocessed" / "MnM", home / "raw" / "MnM" / "splits_final.json"
    cases = [case.case_id for case in open_dataset(given.parent).training_cases()]
    given.write_text(json.dumps([{"train": cases[2:], "val": cases[:2]}]))
    result = run_here(NAME, *words, "--fingerprint-only", home=home)
    assert result.returncode == 0, result.stderr
    assert "looked at 6 cases" in result.stdout and "batch_size" not in result.stdout
    assert [path.name for path in folder.iterdir() if path.suffix] == ["fingerprint.json"]
    result = run_here(NAME, *words, "--plan-only", home=home)
    assert result.returncode == 0, result.stderr
    assert "without --plan-only" in result.stdout and "batch_size" in result.stdout
    (split,) = json.loads((folder / "splits.json").read_text())
    assert len(split["training"]) == 2 and len(split["validation"]) == 1 and str(given) in result.stdout
    given.unlink()
    assert [path.name for path in (folder / "cpu_2d").iterdir()] == ["plan.json"]
    result = run_here(NAME, *words, home=home)
    assert "6 cases made, 0 kept" in result.stdout
    shutil.rmtree(folder)


def test_quiet_prints_nothing_where_all_is_well(home):
    result = run_here(NAME, *WORDS, "--quiet", home=home)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("-d", "Heart", "-pl", "best"), 2, ("'best'", "auto, cpu, published")),
        (("-d", "Heart", "-c", "3d"), 2, ("'3d'", "2d")),
        (("-d", "Hart"), 1, ("Hart", "Heart, MnM")),
        ((), 2, ("Heart, MnM", "-d")),
        (("-d", "Heart", "-pl", "cpu", "--set", "patchsize=3"), 1, ("'patchsize'", "'patch_size'")),
        (("-d", "Heart", "-pl", "cpu", "--set", "labels=3"), 1, ("'labels'",)),
        (("-d", "Heart", "-pl", "cpu", "--set", "batch_size=no"), 1, ("batch_size",)),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(home, words, code, expected):
    before = tree(home)
    assert_refused(run_here(NAME, *words, home=home), *expected, code=code)
    assert tree(home) == before


@pytest.mark.parametrize(
    "words", [("--memory-gb", "-1"), ("--memory-gb", "much"), ("-np", "-1"), ("--memory", "8")]
)
def test_wrong_usage_exits_2(home, words):
    result = run_command(NAME, *WORDS, *words, home=home)
    assert result.returncode == 2 and "Traceback" not in result.stderr


def test_a_second_run_on_the_same_folder_is_refused(home):
    with (home / "preprocessed/Heart/.lock").open("r+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert_refused(run_here(NAME, *WORDS, home=home), "another run")


def test_an_interrupt_exits_75_and_the_same_command_goes_on(home):
    shutil.rmtree(home / "preprocessed/Heart/cpu_2d/slices")
    before = tree(home)
    process = subprocess.Popen(
        [str(SCRIPTS / NAME), *map(str, WORDS), "--home", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()  # the line about the dataset: handlers are in place
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75 and "run the command again" in errors and "Traceback" not in errors
    assert {
        name: data for name, data in tree(home).items() if not name.endswith("case.json")
    }.items() >= before.items()
    assert run_here(NAME, *WORDS, home=home).returncode == 0
    assert not temporary_files(home)


def workers_of(pid: int) -> set[int]:
    """All descendants of a running process."""
    found: set[int] = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            found |= {child} | workers_of(child)
    return found


@pytest.mark.slow
def test_killed_beside_its_workers_nothing_is_half_there_and_no_worker_stays(home):
    whole = tree(home)
    slices = home / "preprocessed/Heart/cpu_2d/slices"
    for made in (1, 4):
        shutil.rmtree(slices, ignore_errors=True)
        process = subprocess.Popen(
            [str(SCRIPTS / NAME), *map(str, WORDS), "--home", str(home)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and len(list(slices.glob("*/case.json"))) < made:
            time.sleep(0.005)
        workers = workers_of(process.pid)
        assert workers and process.poll() is None
        process.kill()
        process.wait()
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
        visible = {name: data for name, data in tree(home).items() if "/.tmp-" not in name}
        assert visible.items() <= whole.items()
    result = run_command(NAME, *WORDS, home=home)
    assert result.returncode == 0 and tree(home) == whole


def test_help_is_quick():
    seconds = []
    for _ in range(3):
        before = os.times()
        result = run_command(NAME, "--help")
        after = os.times()
        assert result.returncode == 0 and "utseg_plan_and_preprocess -d MnM" in result.stdout
        seconds.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    assert min(seconds) < 0.5


def test_a_wrong_network_is_refused_before_a_scan_is_read(home):
    for image in (home / "raw" / "Heart" / "imagesTr").iterdir():
        image.write_bytes(b"no scan")
    result = run_here(NAME, "-d", "Heart", "-m", "Nope", home=home)
    assert_refused(result, "Nope", "UTNet", code=2)
    assert "no scan" not in result.stderr and "imagesTr" not in result.stderr
