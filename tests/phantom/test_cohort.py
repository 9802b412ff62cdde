"""The cohort on disk: layout, labels, determinism, and what happens to a folder that is not empty."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from utseg.commands.make_phantom import main
from utseg.errors import InputError
from utseg.phantom.cohort import design, make_phantom
from utseg.phantom.examination import PhantomSettings
from utseg.rawdata import open_dataset
from utseg.rawdata.gate import read_case

TINY = PhantomSettings(subjects=4, frames=2, matrix=40, slices=4)


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "cohort"
    assert make_phantom(folder, TINY, workers=1) == "made"
    return folder


def test_the_same_seed_gives_the_same_files_whatever_the_number_of_workers(small, tmp_path, monkeypatch):
    monkeypatch.setattr("utseg.phantom.cohort.PIXELS_FOR_A_POOL", 0)
    make_phantom(tmp_path / "again", TINY, workers=2)
    assert _contents(tmp_path / "again") == _contents(small)


def test_another_seed_gives_other_images(small, tmp_path):
    make_phantom(tmp_path / "other", replace(TINY, seed=1), workers=1)
    ours, theirs = _contents(small), _contents(tmp_path / "other")
    assert ours.keys() == theirs.keys()
    assert all(ours[name] != theirs[name] for name in ours if name.endswith("_sa.nii.gz"))


def test_a_subject_does_not_depend_on_how_many_there_are(small, tmp_path):
    make_phantom(tmp_path / "more", replace(TINY, subjects=5), workers=1)
    more = _contents(tmp_path / "more")
    images = {name: data for name, data in _contents(small).items() if name.endswith(".nii.gz")}
    assert images.items() <= more.items()


def test_every_case_passes_the_gate_and_has_all_labels(tiny_phantom):
    dataset = open_dataset(tiny_phantom, "Phantom")
    assert dataset.layout == "mnms"
    assert dataset.warnings == ()
    for case in dataset.cases:
        loaded = read_case(case, dataset.labels)
        assert loaded.warnings == ()
        if case.label is not None:
            assert loaded.label_ZYX is not None
            assert set(np.unique(loaded.label_ZYX)) == {0, 1, 2, 3}
    spacings = {
        case.groups["vendor"]: read_case(case, dataset.labels).geometry.spacing_zyx_mm
        for case in dataset.cases
    }
    assert len(set(spacings.values())) == 4


def test_partitions_vendors_and_pathologies_follow_the_published_cohort(tiny_phantom):
    dataset = open_dataset(tiny_phantom, "Phantom")
    training = Counter(case.groups["vendor"] for case in dataset.training_cases())
    testing = {case.groups["vendor"] for case in dataset.cases if case.partition == "testing" and case.label}
    unlabelled = {
        case.groups["vendor"] for case in dataset.cases if case.partition == "training" and not case.label
    }
    assert set(training) == {"A", "B"}
    assert testing == {"A", "B", "C", "D"}
    assert unlabelled == {"C"}
    large = design(48)
    for vendor in "ABCD":
        assert {subject.pathology for subject in large if subject.vendor == vendor} == {
            "NOR",
            "DCM",
            "HCM",
            "ARV",
        }
    assert 0.3 < np.mean([subject.es_before_ed for subject in large]) < 0.8


def test_the_table_has_the_published_columns_and_true_frames(tiny_phantom):
    import nibabel as nib

    with (tiny_phantom / "dataset_information.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0])[:5] == ["", "External code", "VendorName", "Vendor", "Centre"]
    order = set()
    for row in rows:
        (label_path,) = tiny_phantom.rglob(f"{row['External code']}_sa_gt.nii.gz")
        label = np.asarray(nib.load(label_path).dataobj)
        ed, es = int(row["ED"]), int(row["ES"])
        labelled = set(np.flatnonzero(label.any(axis=(0, 1, 2))))
        assert labelled == ({ed, es} if ed != es else set())
        if ed != es:
            assert (label[..., ed] == 1).sum() > (label[..., es] == 1).sum()
            order.add(ed < es)
    assert order == {True, False}, "ES comes before ED in some"


def test_files_are_small_integers_with_an_oblique_affine_in_both_forms(tiny_phantom):
    import nibabel as nib

    for path in tiny_phantom.rglob("*_sa.nii.gz"):
        image = nib.load(path)
        assert image.get_data_dtype() == np.int16
        assert image.header["qform_code"] == image.header["sform_code"] == 1
        assert image.get_qform() == pytest.approx(image.get_sform(), abs=1e-4)
        assert np.asarray(image.dataobj).max() < np.iinfo(np.int16).max, "nothing is clipped"


def test_the_readme_says_what_it_is(small):
    text = (small / "README.md").read_text()
    assert "synthetic" in text
    assert "4 subjects, 2 frames each, seed 0" in text


def test_a_complete_phantom_is_kept_and_a_damaged_one_mended(small, tmp_path):
    folder = tmp_path / "cohort"
    make_phantom(folder, TINY, workers=1)
    before = _contents(folder)
    assert make_phantom(folder, TINY, workers=1) == "kept"
    damaged = next(folder.rglob("PH001_sa.nii.gz"))
    damaged.write_bytes(damaged.read_bytes()[:-50])
    next(folder.rglob("PH002_sa_gt.nii.gz")).unlink()
    assert make_phantom(folder, TINY, workers=1) == "made"
    assert _contents(folder) == before


@pytest.mark.parametrize("wrong", [{"frames": 3}, {"seed": 5}])
def test_another_phantom_is_not_overwritten(small, wrong):
    before = _contents(small)
    with pytest.raises(InputError, match="another phantom is there"):
        make_phantom(small, replace(TINY, **wrong), workers=1)
    assert _contents(small) == before


def test_a_folder_with_other_things_is_refused(tmp_path, capsys):
    (tmp_path / "scans.txt").write_text("mine")
    unfinished = tmp_path / "deeper" / ".tmp-0123456789ab-scan"
    unfinished.parent.mkdir()
    unfinished.touch()
    assert main([str(tmp_path), "--size", "tiny"]) == 1
    assert unfinished.exists()
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(tmp_path) in error
    assert "scans.txt" in error


def test_what_a_killed_run_left_is_no_other_thing(tmp_path):
    (tmp_path / ".tmp-0123456789ab-phantom.json").write_text("{")
    assert make_phantom(tmp_path, TINY, workers=1) == "made"
    assert not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--subjects", "3"], 1, "subjects is 3; expected 4"),
        (["--frames", "1"], 1, "frames is 1; expected 2"),
        (["--matrix", "20"], 1, "matrix is 20; expected 40"),
    ],
)
def test_impossible_settings_are_one_line_and_leave_nothing(tmp_path, capsys, words, code, message):
    assert main([str(tmp_path / "out"), *words]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
