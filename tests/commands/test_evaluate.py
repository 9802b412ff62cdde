"""`utseg_evaluate`, and faults 40–42: missing predictions and references, other geometry, empty structures."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commandline import assert_refused, killed_at, run_here, temporary_files
from rawfiles import change_voxels, corrupt, make_mnms, make_nnunet


@pytest.fixture
def folders(tmp_path):
    make_nnunet(tmp_path / "raw" / "Heart", subjects=2)
    (tmp_path / "out").mkdir()
    for path in (tmp_path / "raw" / "Heart" / "labelsTr").iterdir():
        (tmp_path / "out" / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture
def evaluate(typed):
    def call(folders, *words, references="raw/Heart"):
        named = ("-p", folders / "out", "-g", folders / references, "-o", folders / "scores")
        return typed("utseg_evaluate", *named, *words, home=folders)

    return call


@pytest.mark.parametrize("references", ["raw/Heart", "raw/Heart/labelsTr"])
def test_references_against_themselves_are_perfect(folders, references, evaluate):
    result = evaluate(folders, references=references)
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader((folders / "scores" / "metrics.csv").open()))
    assert len(rows) == 4 * 3 and {row["vendor"] for row in rows} == {"A", "B"}
    assert all((row["dice"], row["hd95_mm"], row["assd_mm"]) == ("1", "0", "0") for row in rows)
    assert "LV" in result.stdout and "1.000" in result.stdout


def test_native_mnms_references(tmp_path, evaluate):
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


def test_missing_predictions_and_references_are_listed(folders, evaluate):
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


def test_a_folder_without_masks_is_named_and_nothing_is_said_of_numbering(folders, typed):
    (folders / "none").mkdir()
    (folders / "none" / "readme.txt").touch()
    words = ("-p", folders / "none", "-g", folders / "raw/Heart", "-o", folders / "scores")
    for more in ((), ("--only-predicted",)):
        result = typed("utseg_evaluate", *words, *more, home=folders)
        assert_refused(result, f"{folders / 'none'}: no mask is there", "found readme.txt")
        assert "numbered" not in result.stdout and not (folders / "scores").exists()


def test_names_in_another_letter_case_are_one_error_and_the_others_another(folders, typed):
    (folders / "out" / "s00_ED.nii.gz").rename(folders / "out" / "S00_ED.nii.gz")
    words = ("-p", folders / "out", "-g", folders / "raw/Heart", "-o", folders / "scores")
    result = typed("utseg_evaluate", *words, home=folders)
    assert_refused(result, "letter case of 1 names differs: 's00_ED' in the references, 'S00_ED' among")
    (folders / "out" / "s01_ES.nii.gz").unlink()
    result = typed("utseg_evaluate", *words, home=folders)
    assert_refused(result, "letter case of 1 names", "no prediction", "1 of 4 cases: s01_ES;", lines=2)


def test_another_dataset_than_that_of_the_references_is_refused(folders, typed):
    make_nnunet(folders / "raw" / "Other", subjects=1)
    words = ("-p", folders / "out", "-g", folders / "raw/Heart", "-o", folders / "scores")
    result = typed("utseg_evaluate", *words, "-d", "Other", home=folders)
    found = "-d Other: 2 of the 4 reference cases are not in it (s01_ED, s01_ES), they are of"
    assert_refused(result, found, str(folders / "raw/Heart"))
    assert not (folders / "scores").exists()


def test_a_subject_counts_once_however_many_cases_it_has(folders, evaluate):
    """Of s01 one of two cases is predicted: s00's cases, of which one lacks LV, weigh half each, s01's one whole."""
    change_voxels(folders / "out" / "s00_ED.nii.gz", lambda v: np.where(v == 1, 0, v).astype(v.dtype))
    (folders / "out" / "s01_ES.nii.gz").unlink()
    result = evaluate(folders, "--only-predicted")
    assert result.returncode == 0, result.stderr
    summary = json.loads((folders / "scores" / "summary.json").read_text())
    lv = summary["all"]["labels"]["LV"]["dice"]
    assert summary["unit"] == "subjects" and (lv["n"], lv["cases"], lv["mean"]) == (2, 3, 0.75)
    words = next(line.split() for line in result.stdout.splitlines() if line.startswith("LV "))
    assert words[:4] == ["LV", "2", "3", "0.750"] and words[-3:] == ["1", "0", "0"]
    assert "| LV | 2 | 3 | 0.750 |" in (folders / "scores" / "tables.md").read_text()
    with (folders / "scores" / "metrics.csv").open() as handle:
        missed = next(row for row in csv.DictReader(handle) if row["status"] == "prediction_empty")
    assert (missed["dice"], missed["hd95_mm"], missed["assd_mm"]) == ("0", "", "")


def test_missing_and_extra_predictions_give_a_line_each(folders, evaluate):
    (folders / "out" / "s00_ED.nii.gz").rename(folders / "out" / "stranger.nii.gz")
    assert_refused(evaluate(folders), "of 4 cases: s00_ED;", "1 predictions: stranger;", lines=2)


def test_every_wrong_prediction_gives_its_line(folders, evaluate):
    for case, kind in (
        ("s00_ED", "size"),
        ("s00_ES", "origin"),
        ("s01_ED", "unknown label"),
        ("s01_ES", "truncated"),
    ):
        corrupt(folders / "out" / f"{case}.nii.gz", kind)
    assert_refused(evaluate(folders), "s00_ED", "s00_ES", "s01_ED", "s01_ES", lines=4)


def test_a_second_run_does_not_write_into_the_same_folder(folders, evaluate):
    from utseg.files import folder_lock

    with folder_lock(folders / "scores"):
        assert_refused(evaluate(folders), "another run is working there")


@pytest.mark.parametrize("kind", ["size", "spacing", "origin", "direction"])
def test_another_geometry_is_refused(folders, kind, evaluate):
    corrupt(folders / "out" / "s01_ED.nii.gz", kind)
    assert_refused(evaluate(folders), "s01_ED", kind)
    assert not [path for path in (folders / "scores").iterdir() if path.name[0] != "."]


def test_a_mislabelled_prediction_is_refused(folders, evaluate):
    corrupt(folders / "out" / "s01_ED.nii.gz", "unknown label")
    assert_refused(evaluate(folders), "s01_ED", "7")


def test_empty_structures_are_counted_and_not_averaged(folders, evaluate):
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
        labels["MYO"]["dice"]["cases"] == 3 and labels["MYO"]["dice"]["mean"] == 1
    )  # undefined: left out, and counted
    assert labels["LV"]["hd95_mm"]["cases"] == 3


def test_everything_is_written_and_stale_files_go(folders, evaluate):
    result = evaluate(folders, "--as-official-utnet", "--surface", "area", "--percentile", "directed")
    assert result.returncode == 0, result.stderr
    scores = folders / "scores"
    names = {path.name for path in scores.iterdir() if path.name[0] != "."}
    assert names == {
        "metrics.csv",
        "slices.csv",
        "regions.csv",
        "clinical.csv",
        "official_utnet.csv",
        "sources.json",
        "summary.json",
        "tables.md",
        "tables.tex",
    }
    summary = json.loads((scores / "summary.json").read_text())
    assert summary["definitions"] == {"surface": "area", "percentile": "directed", "tolerance_mm": 2.0}
    assert set(summary["regions"]) == {"basal", "mid", "apical"}
    assert summary["clinical"]["all"]["LV_EF"]["bias"] == 0 and "clinical measures" in result.stdout
    assert summary["official_utnet"]["all"]["labels"]["LV"]["official_dice"] == pytest.approx(1)
    official = list(csv.DictReader((scores / "official_utnet.csv").open()))
    assert len(official) == 4 * 3 and {row["official_hd_mm"] for row in official} == {"0"}
    tables = (scores / "tables.md").read_text()
    for title in ("All 4 cases of 2 subjects", "By vendor", "By region", "Clinical", "official UTNet"):
        assert f"## {title}" in tables or title in tables
    left = scores / ".tmp-0123456789ab-metrics.csv"  # by a run that was killed
    left.touch()
    assert evaluate(folders).returncode == 0
    assert not (scores / "official_utnet.csv").exists() and (scores / "clinical.csv").exists()
    assert not left.exists()


def test_killed_at_any_file_the_same_command_writes_the_same(folders):
    scores = folders / "scores"
    words = "utseg_evaluate", "-p", folders / "out", "-g", folders / "raw/Heart", "-o", scores

    def files():
        return {path.name: path.read_bytes() for path in scores.iterdir() if path.name[0] != "."}

    assert run_here(*words, home=folders).returncode == 0
    whole = files()
    shutil.rmtree(scores)
    for step in (len(whole) // 2, len(whole)):
        assert killed_at(step, *words, home=folders)
        assert len(files()) == step - 1 and files().items() <= whole.items()
    assert run_here(*words, home=folders).returncode == 0
    assert files() == whole and not temporary_files(scores)


def test_scores_of_two_runs_never_pass_for_those_of_one(folders):
    """Killed at any rename of a second run, over other masks, what is there is whole, of either run, or lacks what readers ask for."""
    raw, scores = folders / "raw/Heart", folders / "scores"
    words = "utseg_evaluate", "-g", raw, "-o", scores, "--only-predicted", "-p"
    first, second = (folders / "out", "--as-official-utnet"), (folders / "other",)
    mask = min((folders / "out").glob("*.nii.gz"))
    second[0].mkdir()
    change_voxels(Path(shutil.copy(mask, second[0])), lambda voxels: np.roll(voxels, 1, axis=0))

    def files():
        return {path.name: path.read_bytes() for path in scores.iterdir() if path.name[0] != "."}

    assert run_here(*words, *first, home=folders).returncode == 0
    old = files()
    assert run_here(*words, *second, home=folders).returncode == 0
    new = files()
    for step in range(1, len(new) + 1):
        assert run_here(*words, *first, home=folders).returncode == 0 and files() == old
        assert killed_at(step, *words, *second, home=folders)
        found = files()
        assert "summary.json" not in found
        assert "metrics.csv" not in found or found == {name: new[name] for name in found}
    assert not killed_at(step + 1, *words, *second, home=folders) and files() == new


def test_a_wrong_tolerance_is_refused(folders, evaluate):
    assert_refused(evaluate(folders, "--tolerance-mm", "-1"), "tolerance_mm=-1")


def test_clinical_measures_of_real_references_equal_an_independent_computation(shared, tmp_path, evaluate):
    """ACDC's first patients against themselves; their volumes counted again from the files."""
    import nibabel

    raw = shared / "data" / "raw" / "ACDC"
    table = list(csv.DictReader((raw / "cases.csv").open()))
    subjects = sorted({row["subject"] for row in table})[:3]
    (tmp_path / "out").mkdir()
    counted = {}
    for row in table:
        if row["subject"] in subjects:
            path = raw / "labelsTr" / f"{row['case']}.nii.gz"
            (tmp_path / "out" / path.name).write_bytes(path.read_bytes())
            image = nibabel.load(path)
            voxel_ml = abs(np.linalg.det(image.affine[:3, :3])) / 1000
            voxels = np.asarray(image.dataobj)
            for name, value in json.loads((raw / "dataset.json").read_text())["labels"].items():
                counted[row["subject"], row["phase"], name] = np.count_nonzero(voxels == value) * voxel_ml
    result = evaluate(tmp_path, "--only-predicted", references=raw)
    assert result.returncode == 0, result.stderr
    clinical = list(csv.DictReader((tmp_path / "scores" / "clinical.csv").open()))
    found = {(row["subject"], row["measure"]): float(row["reference"]) for row in clinical}
    for subject in subjects:
        for side in ("LV", "RV"):
            diastole, systole = (counted[subject, phase, side] for phase in ("ED", "ES"))
            assert found[subject, f"{side}_EDV"] == pytest.approx(diastole, rel=1e-5)
            assert found[subject, f"{side}_ESV"] == pytest.approx(systole, rel=1e-5)
            assert found[subject, f"{side}_SV"] == pytest.approx(diastole - systole, rel=1e-4)
            assert found[subject, f"{side}_EF"] == pytest.approx(100 * (1 - systole / diastole), rel=1e-4)
        assert found[subject, "LV_mass"] == pytest.approx(1.05 * counted[subject, "ED", "MYO"], rel=1e-5)
    assert len(clinical) == 3 * 9 and all(float(row["difference"]) == 0 for row in clinical)
    rows = list(csv.DictReader((tmp_path / "scores" / "metrics.csv").open()))
    assert {(row["dice"], row["hd_mm"], row["surface_dice"], row["slice_hd95_mm"]) for row in rows} == {
        ("1", "0", "1", "0")
    }
