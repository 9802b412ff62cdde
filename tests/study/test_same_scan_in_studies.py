"""One scan under two names in a study: on one side of every run, refused where a test dataset has a training scan."""

import shutil

import numpy as np
import pytest
import torch
from commandline import assert_refused
from inprocess import Typed
from rawfiles import make_nifti, make_nnunet

from utseg.home import Home
from utseg.rawdata import open_dataset
from utseg.study.checksums import Checksums
from utseg.study.data import DATA_FOLDER, expand_by_scans
from utseg.study.definition import parse_definition

FILE = 'name = "x"\nplans = ["cpu"]\nepochs = 1\n'


@pytest.fixture
def typed(capfd, monkeypatch):
    return Typed(capfd, monkeypatch)


@pytest.fixture
def home(tmp_path):
    make_nnunet(tmp_path / "raw" / "Tiny", subjects=8, size_zyx=(3, 30, 28))
    return tmp_path


def twin(raw, source, target):
    """The voxels of one case under another's name, in another container."""
    nib = pytest.importorskip("nibabel")
    image = nib.load(source)
    make_nifti(target, np.asarray(image.dataobj).T.astype(np.float32), image.affine, version=2)


def study(home, typed, text=FILE, *words):
    (home / "x.toml").write_text(text)
    return typed(
        "utseg_study", home / "x.toml", "-d", "Tiny", "--dry-run", "--device", "cpu", *words, home=home
    )


@pytest.mark.parametrize(
    "train", ["", 'each = "vendor"', 'leave_out = "vendor"', "subjects = [3]", "folds = [0, 1]"]
)
def test_they_are_on_one_side_of_every_run_under_their_own_names(home, caplog, train):
    raw = home / "raw" / "Tiny"
    twin(raw, raw / "imagesTr/s02_ED_0000.nii.gz", raw / "imagesTr/s07_ES_0000.nii.gz")
    dataset = open_dataset(raw, "Tiny")
    definition = parse_definition(f'{FILE}[train]\n{train}\n[test]\nby = "phase"\n', "x")
    checksums = Checksums(Home.locate(home).preprocessed / DATA_FOLDER)
    plan = expand_by_scans(definition, {"Tiny": dataset}, "Tiny", "x", checksums)
    assert caplog.text.count("s02 = s07") == 1
    everybody = {case.subject for case in dataset.cases}
    for run in plan.runs:
        sides = [
            set(side)
            for side in (run.subjects.training, run.subjects.validation, run.subjects.testing["Tiny"])
        ]
        assert set().union(*sides) <= everybody
        assert sum(bool(side & {"s02", "s07"}) for side in sides) <= 1, sides
        for case in (*run.trained_on.cases, *run.testing["Tiny"]):
            assert case in dataset.cases


def test_a_test_dataset_with_a_training_scan_is_refused_by_name(home, typed):
    other = home / "raw" / "Other"
    make_nnunet(other, subjects=2, size_zyx=(3, 30, 28))
    rng = np.random.default_rng(99)
    for file in other.glob("imagesTr/*"):
        make_nifti(file, rng.integers(0, 999, (3, 30, 28)).astype(np.int16))
    text = FILE + '[test]\ndatasets = ["Other"]\n'
    assert study(home, typed, text).returncode == 0
    twin(other, home / "raw/Tiny/imagesTr/s05_ES_0000.nii.gz", other / "imagesTr/s01_ED_0000.nii.gz")
    result = study(home, typed, text)
    assert_refused(result, "case s01_ED (testing) is the same scan as case s05_ES (")
    assert not (home / "preprocessed").exists() and not (home / "results").exists()


def test_a_testing_partition_with_a_training_scan_is_refused_by_name(home, typed):
    raw = home / "raw" / "Tiny"
    (raw / "imagesTs").mkdir(), (raw / "labelsTs").mkdir()
    shutil.copy(raw / "labelsTr/s04_ED.nii.gz", raw / "labelsTs/t0.nii.gz")
    twin(raw, raw / "imagesTr/s04_ED_0000.nii.gz", raw / "imagesTs/t0_0000.nii.gz")
    result = study(home, typed)
    assert_refused(result, "s04 = t0", "trained and tested on", code=2)


def test_all_scans_that_cannot_be_read_are_named(home, typed):
    raw = home / "raw" / "Tiny"
    for name in ("s01_ED", "s04_ES"):
        (raw / f"imagesTr/{name}_0000.nii.gz").write_bytes(b"no image")
    result = study(home, typed)
    assert_refused(result, "s01_ED_0000.nii.gz", "s04_ES_0000.nii.gz", lines=2)


def test_an_estimate_leaves_torch_the_threads_that_it_had(home, typed, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr("utseg.study.estimate.available_cores", lambda: before + 1)
    assert study(home, typed).returncode == 0
    assert torch.get_num_threads() == before
