"""Voxels that are not annotated, through the commands: scribbles train, and what is ignored counts in no score."""

import csv
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from inprocess import Typed
from rawfiles import LABELS, change_json, change_voxels, make_nnunet

IGNORE = 9
SHARE = 0.8
"""Of the Dice of full supervision, which scribbles reach at least."""


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Path, Path]:
    """The same hearts twice; in the second only strokes are labelled and the rest is to be ignored, in scans to train on."""
    full, scribbles = tmp_path / "full", tmp_path / "scribbles"
    make_nnunet(full / "raw" / "Heart", subjects=5, size_zyx=(4, 36, 32))
    shutil.copytree(full, scribbles)
    change_json(scribbles / "raw" / "Heart" / "dataset.json", labels=LABELS | {"ignore": IGNORE})
    for path in (scribbles / "raw" / "Heart" / "labelsTr").iterdir():
        change_voxels(path, scribbled)
    return full, scribbles


def scribbled(voxels_ZYX: np.ndarray) -> np.ndarray:
    """Every fourth line of pixels keeps its label; no label is left in the last slice."""
    kept = np.full_like(voxels_ZYX, IGNORE)
    kept[:-1, ::4] = voxels_ZYX[:-1, ::4]
    return kept


def walk(typed: Typed, home: Path, references: Path) -> dict[str, float]:
    """Plans, trains, predicts the training scans and scores them against `references`. Mean Dice of each label."""

    def call(name: str, *words: object) -> None:
        result = typed(name, *words, home=home)
        assert result.returncode == 0, result.stderr

    call(
        "utseg_plan_and_preprocess",
        "-d",
        "Heart",
        "-pl",
        "cpu",
        "-m",
        "UNet",
        "-np",
        1,
        "--set",
        "batch_size=4",
        "patch_size=32,32",
    )
    settings = ("network.base_channels=8", "iterations_per_epoch=100")
    where = ("2d", "fold0", "-d", "Heart", "-m", "UNet", "--device", "cpu", "-np", 0)
    call("utseg_train", *where, "--epochs", 1, "--set", *settings)
    call(
        "utseg_predict",
        "-i",
        home / "raw/Heart/imagesTr",
        "-o",
        home / "masks",
        "--device",
        "cpu",
        "--no-tta",
    )
    call("utseg_evaluate", "-p", home / "masks", "-g", references, "-o", home / "scores")
    return dice(home / "scores")


def dice(scores: Path) -> dict[str, float]:
    rows = list(csv.DictReader((scores / "metrics.csv").open()))
    return {
        name: float(np.mean([float(row["dice"]) for row in rows if row["label_name"] == name]))
        for name in LABELS
        if name != "background"
    }


def test_scribbles_train_and_what_is_ignored_counts_nowhere(homes, typed):
    full, scribbles = homes
    supervised = walk(typed, full, full / "raw/Heart")
    found = walk(typed, scribbles, full / "raw/Heart")
    assert set(found) == {"LV", "MYO", "RV"}
    assert all(found[name] >= SHARE * supervised[name] for name in found), (supervised, found)
    assert {name for path in scribbles.glob("masks/*.nii.gz") for name in values(path)} <= set(
        LABELS.values()
    )
    own = ("-p", scribbles / "masks", "-g", scribbles / "raw/Heart", "-o", scribbles / "own")
    assert typed("utseg_evaluate", *own, home=scribbles).returncode == 0
    # The same from masks and references in which those voxels are background.
    shutil.copytree(full / "raw/Heart", scribbles / "raw/Cleared")
    for path in (scribbles / "raw/Heart/labelsTr").iterdir():
        known_ZYX = values_of(path).T != IGNORE
        for cleared in (scribbles / "masks" / path.name, scribbles / "raw/Cleared/labelsTr" / path.name):
            change_voxels(cleared, lambda voxels_ZYX, known_ZYX=known_ZYX: voxels_ZYX * known_ZYX)
    words = ("-p", scribbles / "masks", "-g", scribbles / "raw/Cleared", "-o", scribbles / "cleared")
    assert typed("utseg_evaluate", *words, home=scribbles).returncode == 0
    assert (scribbles / "own/metrics.csv").read_text() == (scribbles / "cleared/metrics.csv").read_text()


def values_of(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def values(path: Path) -> set[int]:
    return {int(value) for value in np.unique(values_of(path))}
