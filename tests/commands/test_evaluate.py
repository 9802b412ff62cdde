"""`utseg_evaluate`, and faults 40–42: missing predictions and references, other geometry, empty structures."""

import csv
import json

import numpy as np
import pytest
from commandline import assert_refused, run_command
from rawfiles import change_voxels, corrupt, make_mnms, make_nnunet


@pytest.fixture
def folders(tmp_path):
    make_nnunet(tmp_path / "raw" / "Heart", subjects=2)
    (tmp_path / "out").mkdir()
    for path in (tmp_path / "raw" / "Heart" / "labelsTr").iterdir():
        (tmp_path / "out" / path.name).write_bytes(path.read_bytes())
    return tmp_path


def evaluate(folders, *words, references="raw/Heart"):
    return run_command(
        "utseg_evaluate", "-p", folders / "out", "-g", folders / references, "-o", folders / "scores", *words
    )


@pytest.mark.parametrize("references", ["raw/Heart", "raw/Heart/labelsTr"])
def test_references_against_themselves_are_perfect(folders, references):
    result = evaluate(folders, references=references)
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader((folders / "scores" / "metrics.csv").open()))
    assert len(rows) == 4 * 3 and {row["vendor"] for row in rows} == {"A", "B"}
    assert all((row["dice"], row["hd95_mm"], row["assd_mm"]) == ("1", "0", "0") for row in rows)
    assert "LV" in result.stdout and "1.000" in result.stdout


def test_native_mnms_references(tmp_path):
    import nibabel

    make_mnms(tmp_path / "raw" / "MnM", subjects=2)
    (tmp_path / "out").mkdir()
    for row in csv.DictReader(next((tmp_path / "raw" / "MnM").glob("*.csv")).open()):
        code = row["External code"]
        cine = nibabel.load(tmp_path / "raw" / "MnM" / "Training" / "Labeled" / code / f"{code}_sa_gt.nii.gz")
        for phase in ("ED", "ES"):
            frame = cine.slicer[..., int(row[phase])]
            nibabel.save(frame, tmp_path / "out" / f"{code}_{phase}.nii.gz")
    result = evaluate(tmp_path, references="raw/MnM")
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert summary["all"]["cases"] == 4 and summary["all"]["mean_dice"] == 1


def test_missing_predictions_and_references_are_listed(folders):
    (folders / "out" / "s00_ED.nii.gz").unlink()
    (folders / "out" / "s01_ES.nii.gz").unlink()
    assert_refused(evaluate(folders), "s00_ED, s01_ES")
    assert not (folders / "scores").exists()
    result = evaluate(folders, "--only-predicted")
    assert result.returncode == 0, result.stderr
    (folders / "raw" / "Heart" / "labelsTr" / "s00_ES.nii.gz").rename(
        folders / "raw" / "Heart" / "labelsTr" / ".hidden"
    )
    labels = "raw/Heart/labelsTr"
    assert_refused(evaluate(folders, "--only-predicted", references=labels), "no reference", "s00_ES")
    result = evaluate(folders, "--only-predicted", "--only-referenced", references=labels)
    assert result.returncode == 0 and "s00_ES" in result.stderr


def test_a_second_run_does_not_write_into_the_same_folder(folders):
    from utseg.files import folder_lock

    with folder_lock(folders / "scores"):
        assert_refused(evaluate(folders), "another run is working there")


@pytest.mark.parametrize("kind", ["size", "spacing", "origin", "direction"])
def test_another_geometry_is_refused(folders, kind):
    corrupt(folders / "out" / "s01_ED.nii.gz", kind)
    assert_refused(evaluate(folders), "s01_ED", kind)
    assert not [path for path in (folders / "scores").iterdir() if path.name[0] != "."]


def test_a_mislabelled_prediction_is_refused(folders):
    corrupt(folders / "out" / "s01_ED.nii.gz", "unknown label")
    assert_refused(evaluate(folders), "s01_ED", "7")


def test_empty_structures_are_counted_and_not_averaged(folders):
    def without(value):
        return lambda voxels: np.where(voxels == value, 0, voxels).astype(voxels.dtype)

    for folder, case, value in (
        ("out", "s00_ED", 1),
        ("out", "s00_ES", 2),
        ("raw/Heart/labelsTr", "s00_ES", 2),
        ("raw/Heart/labelsTr", "s01_ED", 3),
    ):
        change_voxels(folders / folder / f"{case}.nii.gz", without(value))
    result = evaluate(folders)
    assert result.returncode == 0, result.stderr
    labels = json.loads((folders / "scores" / "summary.json").read_text())["all"]["labels"]
    assert labels["LV"]["empty"] == {"both_empty": 0, "prediction_empty": 1, "reference_empty": 0}
    assert labels["MYO"]["empty"]["both_empty"] == 1 and labels["RV"]["empty"]["reference_empty"] == 1
    assert labels["LV"]["dice"]["mean"] == pytest.approx(3 / 4)  # the missed one counts as 0
    assert (
        labels["MYO"]["dice"]["n"] == 3 and labels["MYO"]["dice"]["mean"] == 1
    )  # undefined: left out, and counted
    assert labels["LV"]["hd95_mm"]["n"] == 3
