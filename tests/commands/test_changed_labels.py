"""Models whose dataset has other labels now than when they were trained: what is said, and what can be done."""

import shutil
from pathlib import Path

import pytest
from commandline import assert_refused
from inprocess import Typed
from rawfiles import change_json, make_nnunet
from tiny_models import make_run_folder

from utseg.training.record import read_run, write_run

REGIONS = {"background": 0, "heart": (3, 1, 2), "left": (2, 1), "LV": (1,)}


@pytest.fixture
def home(tiny_model: Path, tmp_path: Path) -> Path:
    """A trained run, and the raw dataset that it is of."""
    shutil.copytree(tiny_model, tmp_path / "home")
    make_nnunet(tmp_path / "home/raw/Tiny", subjects=1)
    return tmp_path / "home"


def predicted(typed: Typed, home: Path, *words: object):
    images = home / "raw/Tiny/imagesTr/s00_ED_0000.nii.gz"
    return typed("utseg_predict", "-i", images, "-o", home / "masks", "--device", "cpu", *words, home=home)


def test_a_prediction_says_that_the_dataset_has_other_labels_now(home, typed):
    result = predicted(typed, home, "-d", "Tiny")
    assert (result.returncode, "labels are" in result.stderr) == (0, False)
    change_json(home / "raw/Tiny/dataset.json", labels={"background": 0, "LV": 1, "MYO": 2, "scar": 3})
    result = predicted(typed, home)
    assert result.returncode == 0
    said = "labels are background 0, LV 1, MYO 2, scar 3, they were background 0, LV 1, MYO 2, RV 3 when UTNet/fold0 was trained"
    assert said in result.stderr and "utseg_train --overwrite" in result.stderr
    result = predicted(typed, home, "--model", home / "results/Tiny/auto_2d/UTNet/fold0")
    assert "labels are" not in result.stderr


def test_a_fold_of_regions_and_one_of_plain_labels_do_not_go_together(home, typed):
    other = make_run_folder(home / "results/Tiny", fold="fold1", seed=1)
    record = read_run(other)
    labels = record.plan.preprocessing.model_copy(update={"labels": REGIONS})
    write_run(
        record.model_copy(update={"plan": record.plan.model_copy(update={"preprocessing": labels})}), other
    )
    result = predicted(typed, home)
    assert_refused(
        result, "UTNet/fold0 has plain labels (LV 1, MYO 2, RV 3)", "leave one of them out, or train it again"
    )
    assert "UTNet/fold1 regions (heart 1+2+3, left 1+2, LV 1)" in result.stderr
    assert predicted(typed, home, "-f", "fold0").returncode == 0
