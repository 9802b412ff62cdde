"""Labels whose values have gaps, through the commands: the same scores as without, and masks in the dataset's own values."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from inprocess import Typed
from rawfiles import LABELS, change_json, change_voxels, make_nnunet

from utseg.commands import ensemble
from utseg.training.record import read_weights

GAPS = {"background": 0, "RV": 255, "LV": 2, "MYO": 7}
VALUES = np.array([0, 2, 7, 255], np.uint8)
"""GAPS' values of those in LABELS."""


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Path, Path]:
    """The same hearts twice, the second with gaps between the values of labels."""
    plain, gaps = tmp_path / "plain", tmp_path / "gaps"
    make_nnunet(plain / "raw" / "Heart", subjects=5, size_zyx=(4, 36, 32))
    shutil.copytree(plain, gaps)
    change_json(gaps / "raw" / "Heart" / "dataset.json", labels=GAPS)
    for path in (gaps / "raw" / "Heart" / "labelsTr").iterdir():
        change_voxels(path, lambda voxels: VALUES[voxels.astype(int)])
    return plain, gaps


def walk(typed: Typed, home: Path) -> None:
    """Plans, trains, predicts with probabilities, joins them and scores the masks."""

    def call(name: str, *words: object) -> None:
        result = typed(name, *words, home=home)
        assert result.returncode == 0, result.stderr

    images, probabilities = home / "raw" / "Heart" / "imagesTr", home / "masks"
    call("utseg_plan_and_preprocess", "-d", "Heart", "-pl", "cpu", "-m", "UNet", "-np", 1)
    settings = ("network.base_channels=4", "iterations_per_epoch=20", "optimizer.learning_rate=0.01")
    where = ("2d", "fold0", "-d", "Heart", "-m", "UNet", "--device", "cpu", "-np", 0)
    call("utseg_train", *where, "--epochs", 1, "--set", *settings)
    call("utseg_predict", "-i", images, "-o", probabilities, "--device", "cpu", "--save-probabilities")
    twin = shutil.copytree(probabilities, home / "twin")
    assert ensemble.main(["-i", str(probabilities), str(twin), "-o", str(home / "joined")]) == 0
    call("utseg_evaluate", "-p", probabilities, "-g", home / "raw" / "Heart", "-o", home / "scores")


def scores(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, labels by name only."""
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    return [{key: value for key, value in row.items() if key != "label"} for row in rows]


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_labels_with_gaps_give_the_same_scores_and_masks_in_their_own_values(homes, typed):
    plain, gaps = homes
    for home in homes:
        walk(typed, home)
    run = next((gaps / "results" / "Heart").glob("*/UNet/fold0"))
    assert len(read_weights(run)["heads.0.bias"]) == len(GAPS)
    masks = sorted(path.relative_to(plain) for path in plain.glob("masks/*.nii.gz"))
    seen = set()
    for mask in masks:
        expected = VALUES[voxels(plain / mask).astype(int)]
        np.testing.assert_array_equal(voxels(gaps / mask), expected)
        np.testing.assert_array_equal(voxels(gaps / "joined" / mask.name), expected)
        seen |= set(expected.ravel().tolist())
    assert len(masks) == 10 and seen > {0}
    for scored in (Path("scores"), run.relative_to(gaps) / "validation"):
        assert scores(gaps / scored) == scores(plain / scored)
    recorded = [json.loads((gaps / name / "prediction.json").read_text()) for name in ("masks", "joined")]
    assert [record["labels"] for record in recorded] == [GAPS, GAPS]
    quality = [(home / "masks" / "quality.csv").read_text() for home in homes]
    assert quality[0] == quality[1]
    assert sources_labels(gaps) == GAPS and sources_labels(plain) == LABELS


def sources_labels(home: Path) -> dict[str, int]:
    """The labels that the scores are of."""
    labels: dict[str, int] = json.loads((home / "scores" / "sources.json").read_text())["labels"]
    return labels


def test_a_value_that_no_mask_can_hold_is_refused_in_a_line(homes, typed):
    folder = homes[1] / "raw" / "Heart"
    change_json(folder / "dataset.json", labels=GAPS | {"RV": 500})
    result = typed("utseg_plan_and_preprocess", "-d", "Heart", home=homes[1])
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 1
    assert error.endswith("labels.RV: expected a whole number from 0 to 255, found 500")
