"""Faults 1–19: bad raw data, met by `utseg_plan_and_preprocess` and by `utseg_predict`, through exit code and message."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commandline import assert_refused, run_command, run_here, temporary_files
from rawfiles import (
    change_json,
    change_voxels,
    corrupt,
    edit_header,
    make_affine,
    make_heart,
    make_nifti,
    make_nnunet,
)

PLAN = "utseg_plan_and_preprocess"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pristine")
    return make_nnunet(folder / "one", subjects=3), make_nnunet(folder / "two", subjects=2, channels=2)


@pytest.fixture
def home(tmp_path, pristine):
    shutil.copytree(pristine[0], tmp_path / "raw" / "Heart")
    return tmp_path


def image(home, case="s01_ED"):
    return home / "raw" / "Heart" / "imagesTr" / f"{case}_0000.nii.gz"


def label(home, case="s01_ED"):
    return home / "raw" / "Heart" / "labelsTr" / f"{case}.nii.gz"


def plan(home, *words):
    return run_here(PLAN, "-d", "Heart", "-pl", "cpu", "-m", "UNet", "-np", 1, *words, home=home)


def nothing_planned(home):
    made = list((home / "preprocessed").rglob("*.npz")) + list((home / "preprocessed").rglob("plan.json"))
    return not made and not temporary_files(home)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("truncated", ["s01_ED_0000.nii.gz"]),
        ("flipped", ["s01_ED_0000.nii.gz"]),
        ("empty", ["s01_ED_0000.nii.gz", "empty"]),
        ("png", ["s01_ED_0000.nii.gz", "NIfTI"]),
        ("absurd", ["s01_ED_0000.nii.gz", "30000"]),
        ("larger", ["s01_ED_0000.nii.gz"]),
        ("sheared", ["s01_ED_0000.nii.gz", "shear"]),
        ("no spacing", ["s01_ED_0000.nii.gz", "spacing"]),
        ("4-D", ["s01_ED_0000.nii.gz", "3-D"]),
        ("RGB", ["s01_ED_0000.nii.gz", "RGB"]),
        ("NaN", ["s01_ED_0000.nii.gz", "5"]),
        ("Inf", ["s01_ED_0000.nii.gz", "5"]),
        ("size", ["s01_ED", "size"]),
        ("spacing", ["s01_ED", "spacing"]),
        ("origin", ["s01_ED", "origin"]),
        ("direction", ["s01_ED", "direction"]),
        ("constant", ["s01_ED_0000.nii.gz", "100"]),
    ],
)
def test_a_bad_image_is_refused_before_any_work(home, kind, words):
    corrupt(image(home), kind)
    assert_refused(plan(home), *words, lines=None)
    assert nothing_planned(home)


def test_a_truncated_plain_nifti_is_refused(tmp_path):
    make_nnunet(tmp_path / "raw" / "Heart", subjects=2, ending=".nii")
    corrupt(tmp_path / "raw" / "Heart" / "imagesTr" / "s00_ES_0000.nii", "truncated")
    assert_refused(plan(tmp_path), "s00_ES_0000.nii")


@pytest.mark.parametrize(
    ("kind", "words"),
    [("unknown label", ["7", "12"]), ("negative label", ["-1", "3"]), ("fractional label", ["1.5", "4"])],
)
def test_a_wrong_label_value_is_refused_with_its_count(home, kind, words):
    corrupt(label(home), kind)
    assert_refused(plan(home), "s01_ED.nii.gz", *words)
    assert nothing_planned(home)


def test_all_bad_cases_are_reported_at_once_by_processes(home):
    corrupt(image(home, "s00_ED"), "truncated")
    corrupt(image(home, "s01_ES"), "NaN")
    corrupt(label(home, "s02_ED"), "unknown label")
    result = run_command(PLAN, "-d", "Heart", "-pl", "cpu", "-np", 2, home=home)
    assert_refused(result, "s00_ED", "s01_ES", "s02_ED", lines=3)


def test_cosines_orthonormal_to_1e4_only_are_read(home):
    def loosen(header):
        header["qform_code"] = 0
        header["srow_x"][0] *= 1 + 1e-4
        header["srow_y"][0] += 1e-4

    for case in ("s01_ED", "s01_ES"):
        edit_header(image(home, case), loosen)
        edit_header(label(home, case), loosen)
    result = plan(home, "--dry-run")
    assert result.returncode == 0, result.stderr


def test_channels_of_another_geometry_and_missing_channels(tmp_path, pristine):
    folder = tmp_path / "raw" / "Heart"
    shutil.copytree(pristine[1], folder)
    corrupt(folder / "imagesTr" / "s00_ED_0001.nii.gz", "origin")
    assert_refused(plan(tmp_path), "s00_ED_0001", "origin")
    (folder / "imagesTr" / "s00_ED_0001.nii.gz").unlink()
    assert_refused(plan(tmp_path), "s00_ED", "0001", "s00_ED_0000", lines=None)


def test_a_label_that_no_case_has_and_an_empty_case_are_warnings(home):
    change_json(
        home / "raw" / "Heart" / "dataset.json",
        labels={"background": 0, "LV": 1, "MYO": 2, "RV": 3, "scar": 4},
    )
    corrupt(label(home, "s02_ES"), "background only")
    result = plan(home, "--dry-run")
    assert result.returncode == 0, result.stderr
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert any("scar" in line for line in warnings) and any("s02_ES" in line for line in warnings)


@pytest.mark.parametrize("name", ["../s00_ED", "/s00_ED", "S00_ed"])
def test_case_names_with_a_path_or_differing_by_letter_case_are_refused(home, name):
    table = home / "raw" / "Heart" / "cases.csv"
    rows = list(csv.reader(table.open()))
    if name == "S00_ed":
        shutil.copy(image(home, "s00_ED"), image(home, name))
        shutil.copy(label(home, "s00_ED"), label(home, name))
        rows.append([name, *rows[1][1:]])
    else:
        rows[1][0] = name
    csv.writer(table.open("w")).writerows(rows)
    assert_refused(plan(home), name, lines=None)
    assert nothing_planned(home)


def test_a_case_named_twice_is_refused(home):
    table = home / "raw" / "Heart" / "cases.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[1]]) + "\n")
    assert_refused(plan(home), "s00_ED", lines=None)


def test_a_wrong_key_in_dataset_json_is_named(home):
    path = home / "raw" / "Heart" / "dataset.json"
    change_json(path, remove=["labels"], label={"background": 0})
    assert_refused(plan(home), "labels", "dataset.json")


def test_an_edited_plan_with_an_unknown_key_is_named(home):
    assert_refused(
        plan(home, "--set", "network.base_chanels=8"), "network.base_chanels", "'network.base_channels'"
    )
    assert plan(home).returncode == 0
    path = home / "preprocessed" / "Heart" / "cpu_2d" / "plan.json"
    tree = json.loads(path.read_text())
    tree["network"]["base_channel"] = tree["network"].pop("base_channels")
    path.write_text(json.dumps(tree))
    assert_refused(plan(home), "plan.json", "'network.base_channel'")
    assert_refused(
        run_here("utseg_train", "2d", "fold0", "-d", "Heart", "-pl", "cpu", home=home),
        "'network.base_channel'",
    )


def test_a_setting_in_a_plan_that_is_nested_without_end_is_one_line(home):
    assert plan(home, "--plan-only").returncode == 0
    path = home / "preprocessed" / "Heart" / "cpu_2d" / "plan.json"
    tree = json.loads(path.read_text())
    tree["network"]["base_channels"] = json.loads("[" * 900 + "1" + "]" * 900)
    path.write_text(json.dumps(tree))
    refused = "plan.json: network: a value in it is nested more than 64 levels deep"
    assert_refused(plan(home), refused)
    assert_refused(run_here("utseg_train", "2d", "fold0", "-d", "Heart", "-pl", "cpu", home=home), refused)


def test_names_in_a_plan_are_looked_up_and_never_imported(home):
    """And a setting that is taken out of it is the network's own."""
    assert plan(home, "--plan-only").returncode == 0
    path = home / "preprocessed" / "Heart" / "cpu_2d" / "plan.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(tree | {"network": {}}))
    assert plan(home, "--plan-only").returncode == 0
    path.write_text(json.dumps(tree | {"network_name": "os:system"}))
    refused = "plan.json: network_name: no network is called 'os:system'; there are: AttentionUNet"
    assert_refused(plan(home), refused)
    assert_refused(run_here("utseg_train", "2d", "fold0", "-d", "Heart", "-pl", "cpu", home=home), refused)


@pytest.mark.parametrize(
    "kind", ["truncated", "flipped", "empty", "png", "absurd", "sheared", "NaN", "constant"]
)
def test_prediction_reads_through_the_same_gate_and_the_others_finish(tmp_path, tiny_model, kind):
    for number, name in enumerate(("good", "bad", "fine")):
        make_nifti(tmp_path / "in" / f"{name}.nii.gz", make_heart(seed=number)[0])
    corrupt(tmp_path / "in" / "bad.nii.gz", kind)
    result = run_here(
        "utseg_predict", "-i", tmp_path / "in", "-o", tmp_path / "out", "--device", "cpu", home=tiny_model
    )
    assert_refused(result, "bad.nii.gz")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["fine.nii.gz", "good.nii.gz"]
    assert not temporary_files(tmp_path)


def test_mixed_orientations_come_back_in_their_own_geometry(tmp_path, tiny_model):
    nib = pytest.importorskip("nibabel")
    affines = [make_affine(), make_affine(angles=(0.3, -0.6, 1.2)), make_affine() @ np.diag([-1, 1, -1, 1])]
    affines.append(affines[1].copy())
    affines[3][:3, 0] += 1e-4 * affines[3][:3, 1]  # orthonormal to 1e-4 only, as some of M&Ms are
    for number, affine in enumerate(affines):
        path = tmp_path / "in" / f"case{number}.nii.gz"
        make_nifti(path, make_heart((4, 33, 47), seed=number)[0], affine, qform_code=int(number < 3))
    result = run_here(
        "utseg_predict", "-i", tmp_path / "in", "-o", tmp_path / "out", "--device", "cpu", home=tiny_model
    )
    assert result.returncode == 0, result.stderr
    for number in range(4):
        given, mask = (
            nib.load(tmp_path / "in" / f"case{number}.nii.gz"),
            nib.load(tmp_path / "out" / f"case{number}.nii.gz"),
        )
        assert mask.shape == given.shape and mask.get_data_dtype() == np.uint8
        for field in (
            "srow_x",
            "srow_y",
            "srow_z",
            "pixdim",
            "qoffset_x",
            "quatern_b",
            "sform_code",
            "qform_code",
        ):
            assert np.array_equal(mask.header[field], given.header[field]), field


def test_predictions_of_a_cine_name_the_frame_with_bad_voxels(tmp_path, tiny_model):
    path = make_nifti(tmp_path / "in" / "cine.nii.gz", np.stack([make_heart(seed=t)[0] for t in range(3)]))

    def spoil(voxels):
        voxels[1, 0, 0, :4] = np.nan
        return voxels

    change_voxels(path, spoil, "float32")
    result = run_here("utseg_predict", "-i", path, "-o", tmp_path / "out", "--device", "cpu", home=tiny_model)
    assert_refused(result, "cine.nii.gz", "4", lines=None)
    assert not (tmp_path / "out" / "cine.nii.gz").exists()


def test_no_dataset_at_all(tmp_path: Path):
    assert_refused(run_here(PLAN, "-d", "Heart", home=tmp_path), "Heart", str(tmp_path / "raw"))
