"""One scan under two names: one subject for folds and selections, refused across the sides of a run, named once."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from commandline import assert_refused, run_here
from rawfiles import change_voxels, make_mnms, make_nnunet

PLAN, TRAIN = "utseg_plan_and_preprocess", "utseg_train"
WORDS = ("-d", "Heart", "-pl", "cpu", "-m", "UNet", "-np", 1)
SETTINGS = ("network.base_channels=4", "network.levels=2", "iterations_per_epoch=1", "batch_size=2")
TINY = ("-m", "UNet", "--epochs", 1, "--device", "cpu", "--set", *SETTINGS)


def lay_otherwise(source, target):
    """The same voxels in another container, voxel type, order and direction of axes, at another place; its label along with it."""
    for kind, end in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        folder = source[0] / kind
        image = nib.load(folder / f"{source[1]}{end}")
        values = np.asarray(image.dataobj)[::-1].swapaxes(0, 1)
        affine = image.affine[:, [1, 0, 2, 3]] @ np.diag([1, -1, 1, 1])
        affine[:3, 3] += 17
        dtype = np.float64 if kind == "imagesTr" else np.int16
        nib.save(nib.Nifti1Image(values.astype(dtype), affine), folder / f"{target}{end}")


def folds(home):
    return json.loads((home / "preprocessed/Heart/splits.json").read_text())


def sides(split, subject):
    return [side for side, named in split.items() if subject in named]


def said(result, words):
    return [line for line in (result.stdout + result.stderr).splitlines() if words in line]


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Seven subjects; the ES scan of s05 is the ED scan of s01, laid down otherwise."""
    home = tmp_path_factory.mktemp("twins")
    raw = make_nnunet(home / "raw" / "Heart", subjects=7, size_zyx=(4, 40, 36))
    lay_otherwise((raw, "s01_ED"), "s05_ES")
    return home, run_here(PLAN, *WORDS, home=home)


@pytest.fixture
def home(planned, tmp_path):
    return shutil.copytree(planned[0], tmp_path / "home")


def test_they_are_one_subject_in_every_fold_and_named_once(planned):
    home, result = planned
    assert result.returncode == 0, result.stderr
    (line,) = said(result, "s01 = s05")
    assert "same scan" in line and "one subject" in line
    splits = folds(home)
    assert len(splits) == 5 and all(sides(split, "s01") == sides(split, "s05") for split in splits)
    held_back = [subject for split in splits for subject in split["validation"]]
    assert sorted(held_back) == [f"s{number:02d}" for number in range(7)]
    fingerprint = json.loads((home / "preprocessed/Heart/fingerprint.json").read_text())
    assert fingerprint["overall"]["subjects"] == 6


def test_a_splits_file_that_parts_them_is_refused_when_planning_and_training(home, typed):
    splits = folds(home)
    (fold,) = [number for number, split in enumerate(splits) if "s05" in split["validation"]]
    splits[fold]["validation"].remove("s05")
    splits[fold]["training"].append("s05")
    (home / "preprocessed/Heart/splits.json").write_text(json.dumps(splits))
    expected = (f"fold{fold}: s05 (training) and s01 (validation) are the same scan", "splits.json")
    assert_refused(typed(PLAN, *WORDS, home=home), *expected)
    words = (TRAIN, "2d", f"fold{fold}", "-d", "Heart", *TINY)
    assert_refused(typed(*words, home=home), *expected)
    assert not (home / "results").exists()


@pytest.mark.parametrize("selection", ["vendor=B", "vendor!=A", "centre=2"])
def test_a_selection_holds_both_back_or_none(home, selection, typed):
    """s01, s03 and s05 are vendor B: two subjects, of which one is held back."""
    result = typed(TRAIN, "2d", selection, "-d", "Heart", *TINY, home=home)
    assert result.returncode == 0, result.stderr
    (file,) = (home / "results/Heart/cpu_2d/UNet").glob("*/run.json")
    run = json.loads(file.read_text())
    trained, held_back = ({case[:3] for case in run[f"{side}_cases"]} for side in ("training", "validation"))
    assert {"s01", "s05"} in (trained, held_back) and {"s03"} in (trained, held_back)


def test_one_cine_under_two_codes_is_one_subject_whatever_frames_the_table_names(tmp_path, typed):
    raw = make_mnms(tmp_path / "raw" / "Heart", subjects=4, size_zyx=(4, 40, 36))
    first, last = (raw / "Training/Labeled" / f"A{number}B{number}C{number}" for number in (0, 3))
    shutil.copy(first / f"{first.name}_sa.nii.gz", last / f"{last.name}_sa.nii.gz")
    result = typed(PLAN, *WORDS, home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(said(result, f"{first.name} = {last.name}")) == 1
    splits = folds(tmp_path)
    assert len(splits) == 3 and all(sides(split, first.name) == sides(split, last.name) for split in splits)


def test_a_subject_that_two_folds_hold_back_is_named(home, typed):
    splits = folds(home)
    twice = next(name for name in splits[0]["validation"] if name not in ("s01", "s05"))
    splits[1]["training"].remove(twice)
    splits[1]["validation"].append(twice)
    (home / "preprocessed/Heart/splits.json").write_text(json.dumps(splits))
    result = typed(PLAN, *WORDS, home=home)
    assert result.returncode == 0 and len(said(result, f"several folds hold back {twice}")) == 1


@pytest.fixture(scope="module")
def trained(planned, tmp_path_factory):
    """Two folds of the twins' home: the one that holds them back, and another."""
    home = shutil.copytree(planned[0], tmp_path_factory.mktemp("trained") / "home")
    (held,) = [number for number, split in enumerate(folds(home)) if "s05" in split["validation"]]
    other = (held + 1) % 5
    for fold in (held, other):
        result = run_here(TRAIN, "2d", f"fold{fold}", "-d", "Heart", *TINY, home=home)
        assert result.returncode == 0, result.stderr
    return home, held, other


def test_statistics_count_them_once(trained, typed):
    home, held, _ = trained
    validation = home / f"results/Heart/cpu_2d/UNet/fold{held}/validation"
    rows = list(csv.DictReader((validation / "metrics.csv").open()))
    assert {row["subject"] for row in rows if row["case"][:3] in ("s01", "s05")} == {"s01 = s05"}
    summary = json.loads((validation / "summary.json").read_text())
    held_back = folds(home)[held]["validation"]
    assert summary["all"]["subjects"] == len(held_back) - 1
    result = typed(
        "utseg_find_best_configuration", "-d", "Heart", "--tta-subjects", 0, "--device", "cpu", home=home
    )
    assert result.returncode == 0, result.stderr
    assert len(said(result, "s01 = s05")) == 1
    best = json.loads((home / "results/Heart/best.json").read_text())
    assert best["compared"]["subjects"] == sum(len(folds(home)[n]["validation"]) for n in trained[1:]) - 1


def test_a_scan_that_a_model_trained_on_is_named_when_predicted_and_scored_whatever_it_is_called(
    trained, tmp_path, typed
):
    home, _, other = trained
    new, labels = tmp_path / "in", tmp_path / "labels"
    new.mkdir(), labels.mkdir()
    unseen = next(name for name in folds(home)[other]["validation"])
    for name, source in (("new", "s05_ES"), ("fresh", f"{unseen}_ED")):
        shutil.copy(home / f"raw/Heart/imagesTr/{source}_0000.nii.gz", new / f"{name}_0000.nii.gz")
        shutil.copy(home / f"raw/Heart/labelsTr/{source}.nii.gz", labels / f"{name}.nii.gz")
    words = (
        "-i",
        new,
        "-o",
        tmp_path / "out",
        "-d",
        "Heart",
        "-f",
        f"fold{other}",
        "-m",
        "UNet",
        "--device",
        "cpu",
    )
    result = typed("utseg_predict", *words, home=home)
    assert result.returncode == 0, result.stderr
    (line,) = said(result, "trained on")
    assert "1 of 2 cases" in line and ": new (" in line and f"fold{other}" in line
    result = typed(
        "utseg_evaluate", "-p", tmp_path / "out", "-g", labels, "-o", tmp_path / "scores", home=home
    )
    assert result.returncode == 0, result.stderr
    assert said(result, "trained on") == [line]


def test_a_run_that_trained_on_the_scan_it_holds_back_is_not_compared(trained, tmp_path, typed):
    home = shutil.copytree(trained[0], tmp_path / "home")
    file = home / f"results/Heart/cpu_2d/UNet/fold{trained[1]}/run.json"
    run = json.loads(file.read_text())
    twin = json.loads((home / "preprocessed/Heart/cpu_2d/slices/s01_ED/case.json").read_text())
    run["training_scans"] += twin["voxels_sha256"]
    file.write_text(json.dumps(run))
    result = typed("utseg_find_best_configuration", "-d", "Heart", "--device", "cpu", home=home)
    assert_refused(result, "the run trained on the same scan under another name")


def test_labels_that_changed_since_a_fold_was_validated_end_the_comparison(trained, tmp_path, typed):
    home = shutil.copytree(trained[0], tmp_path / "home")
    change_voxels(home / "raw/Heart/labelsTr/s05_ED.nii.gz", lambda voxels: voxels[:, ::-1])
    result = typed("utseg_find_best_configuration", "-d", "Heart", "--device", "cpu", home=home)
    expected = ("labelsTr/s05_ED.nii.gz: changed since", "utseg_plan_and_preprocess -d Heart -pl cpu")
    assert_refused(result, *expected)
    masks = home / f"results/Heart/cpu_2d/UNet/fold{trained[1]}/validation"
    words = ("-p", masks, "-g", home / "raw/Heart", "--only-predicted", "-o", tmp_path / "scores")
    assert_refused(typed("utseg_evaluate", *words, home=home), *expected)
    assert not (tmp_path / "scores").exists()
