"""Raw data that changed after preprocessing: refused with the command that makes the slices anew; what only looks changed is not."""

import json
import os
import shutil

import pytest
from commandline import assert_refused, run_here
from rawfiles import change_json, change_voxels, make_nnunet

PLAN, TRAIN = "utseg_plan_and_preprocess", "utseg_train"
WORDS = ("-d", "Heart", "-pl", "cpu", "-m", "UNet", "-np", 1)
SETTINGS = ("network.base_channels=4", "network.levels=2", "iterations_per_epoch=1", "batch_size=2")
TINY = ("-m", "UNet", "--epochs", 1, "--device", "cpu", "--set", *SETTINGS)
FOLD = (TRAIN, "2d", "fold0", "-d", "Heart", *TINY)
ADVICE = "utseg_plan_and_preprocess -d Heart -pl cpu"


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    home = tmp_path_factory.mktemp("stale")
    make_nnunet(home / "raw" / "Heart", subjects=5, size_zyx=(4, 40, 36))
    result = run_here(PLAN, *WORDS, home=home)
    assert result.returncode == 0, result.stderr
    return home


@pytest.fixture
def home(planned, tmp_path):
    return shutil.copytree(planned, tmp_path / "home")


def edit_table(raw, old, new):
    table = raw / "cases.csv"
    assert old in table.read_text()
    table.write_text(table.read_text().replace(old, new))


CHANGES = {
    "a label": (
        lambda raw: change_voxels(raw / "labelsTr/s02_ES.nii.gz", lambda v: v[:, ::-1]),
        "labelsTr/s02_ES.nii.gz",
    ),
    "an image": (
        lambda raw: change_voxels(raw / "imagesTr/s02_ES_0000.nii.gz", lambda v: v + 1),
        "imagesTr/s02_ES_0000.nii.gz",
    ),
    "a subject": (lambda raw: edit_table(raw, "s02_ES,s02", "s02_ES,s03"), "subject is s03, was s02"),
    "a vendor": (lambda raw: edit_table(raw, "s02_ES,s02,ES,A", "s02_ES,s02,ES,B"), "groups"),
    "the names of labels": (
        lambda raw: change_json(raw / "dataset.json", labels={"background": 0, "RV": 1, "MYO": 2, "LV": 3}),
        "labels are",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_training_on_slices_of_other_raw_data_is_refused(home, change, typed):
    alter, expected = CHANGES[change]
    alter(home / "raw" / "Heart")
    assert_refused(typed(*FOLD, home=home), expected, ADVICE)
    assert not (home / "results").exists()
    again = (*WORDS, "--replan") if "labels" in change else WORDS
    result = typed(PLAN, *again, home=home)
    assert result.returncode == 0, result.stderr
    assert typed(*FOLD, home=home).returncode == 0


@pytest.fixture(scope="module")
def trained(planned, tmp_path_factory):
    home = shutil.copytree(planned, tmp_path_factory.mktemp("trained") / "home")
    result = run_here(*FOLD, home=home)
    assert result.returncode == 0, result.stderr
    return home


@pytest.mark.parametrize("change", ["an image", "a vendor", "the names of labels"])
def test_comparing_models_on_other_raw_data_is_refused(trained, tmp_path, change, typed):
    home = shutil.copytree(trained, tmp_path / "home")
    alter, expected = CHANGES[change]
    alter(home / "raw" / "Heart")
    words = ("-d", "Heart", "--device", "cpu", "-np", 1, "--tta-subjects", 0)
    assert_refused(typed("utseg_find_best_configuration", *words, home=home), expected, ADVICE)
    assert not (home / "results/Heart/best.json").exists()
    shutil.copytree(trained / "raw", home / "raw", dirs_exist_ok=True)
    assert typed("utseg_find_best_configuration", *words, home=home).returncode == 0


def test_a_run_of_other_labels_is_not_validated_and_the_advice_can_be_followed(trained, tmp_path, typed):
    home = shutil.copytree(trained, tmp_path / "home")
    CHANGES["the names of labels"][0](home / "raw/Heart")
    validate = (*FOLD[:7], "--device", "cpu", "--validate")
    advice = "was trained on what was there then: put that back, or fix it with: utseg_plan_and_preprocess"
    assert_refused(typed(*validate, home=home), "labels are", advice, "then train again with --overwrite")
    assert typed(PLAN, *WORDS, "--replan", home=home).returncode == 0
    assert_refused(typed(*validate, home=home), advice)
    assert typed(*FOLD, "--overwrite", home=home).returncode == 0


def test_a_resumed_run_is_refused_too_and_so_is_one_whose_slices_were_made_anew(home, typed):
    assert typed(*FOLD, home=home).returncode == 0
    change_voxels(home / "raw/Heart/labelsTr/s02_ES.nii.gz", lambda voxels: voxels[:, ::-1])
    assert_refused(typed(*FOLD, "--resume", home=home), "s02_ES", ADVICE)
    assert typed(PLAN, *WORDS, home=home).returncode == 0
    assert_refused(typed(*FOLD, "--resume", home=home), "cannot resume", "data_sha256")


def test_the_same_content_with_another_time_is_no_change(home, typed):
    for file in (home / "raw/Heart").rglob("*.nii.gz"):
        os.utime(file)
    result = typed(*FOLD, home=home)
    assert result.returncode == 0 and "another content" not in result.stderr


def test_cases_that_came_and_went_are_said(home, typed):
    raw = home / "raw/Heart"
    for kind, end in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        shutil.copy(raw / kind / f"s00_ED{end}", raw / kind / f"new{end}")
    with (raw / "cases.csv").open("a") as table:
        table.write("new,new,ED,A,1\n")
    result = typed(*FOLD, home=home)
    assert result.returncode == 0, result.stderr
    assert "new is in the raw data and has no slices" in result.stderr and ADVICE in result.stderr
    for file in raw.rglob("new*"):
        file.unlink()
    run = json.loads((home / "results/Heart/cpu_2d/UNet/fold0/run.json").read_text())
    gone = run["training_cases"][0]
    for file in raw.rglob(f"{gone}*"):
        file.unlink()
    result = typed(*FOLD, "--overwrite", home=home)
    assert result.returncode == 0, result.stderr
    assert f"{gone} has slices and is not in the raw data any more" in result.stderr


@pytest.mark.parametrize("side", ["training", "validation"])
def test_a_label_that_no_subject_of_a_side_has_is_said_when_planning_and_training(tmp_path, side, typed):
    raw = make_nnunet(tmp_path / "raw" / "Heart", subjects=2, size_zyx=(4, 40, 36))
    for file in raw.glob("labelsTr/s00*"):
        change_voxels(file, lambda voxels: voxels * (voxels != 3))
    result = typed(PLAN, *WORDS, home=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if "label RV: no " in line]
    assert len(lines) == 2 and any(f"no {side} case of fold" in line for line in lines)
    fold = next(line for line in lines if f"no {side}" in line).split(" of ")[1].split()[0]
    result = typed(TRAIN, "2d", fold, "-d", "Heart", *TINY, home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"label RV: no {side} case of {fold} has it" in result.stderr


def test_subjects_on_neither_side_of_a_fold_are_said_when_planning_and_training(home, typed):
    file = home / "preprocessed/Heart/splits.json"
    splits = json.loads(file.read_text())
    (s03,) = [number for number, split in enumerate(splits) if "s03" in split["validation"]]
    for number in {0, 1, 2, 3, 4} - {s03}:
        splits[number]["training"].remove("s03")
    file.write_text(json.dumps(splits))
    result = typed(PLAN, *WORDS, home=home)
    folds = ", ".join(f"fold{number}" for number in range(5) if number != s03)
    said = "1 subjects neither train nor validate: s03;"
    assert result.returncode == 0 and f"splits.json: {folds}: {said}" in result.stderr, result.stderr
    other = f"fold{(s03 + 1) % 5}"
    result = typed(TRAIN, "2d", other, *FOLD[3:], home=home)
    assert result.returncode == 0 and f"splits.json: {other}: {said}" in result.stderr, result.stderr


def test_a_label_that_a_selection_lacks_is_said(tmp_path, typed):
    raw = make_nnunet(tmp_path / "raw" / "Heart", subjects=4, size_zyx=(4, 40, 36))
    for number in (0, 2):
        for file in raw.glob(f"labelsTr/s0{number}*"):
            change_voxels(file, lambda voxels: voxels * (voxels != 3))
    assert typed(PLAN, *WORDS, home=tmp_path).returncode == 0
    result = typed(TRAIN, "2d", "vendor=A", "-d", "Heart", *TINY, home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "label RV: no training case of vendor=A has it" in result.stderr
