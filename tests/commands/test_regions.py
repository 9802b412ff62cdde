"""Regions of nnU-Net's dataset.json, through the commands: planned, trained, predicted, joined, evaluated and chosen as they are."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from commandline import assert_refused
from inprocess import Typed
from onnx_graph import onnx_logits
from rawfiles import change_json, change_voxels, make_nnunet

from utseg.commands import ensemble, export_model, report
from utseg.evaluate import evaluate_pair
from utseg.predict.model import load_model
from utseg.training.record import read_weights

REGIONS = {"background": 0, "heart": [1, 2, 3], "left": [1, 2], "LV": 1}
PAINTED = [3, 2, 1]
SETTINGS = ("network.base_channels=8", "iterations_per_epoch=100")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Hearts of two channels, the second the inverse of the first; their three nested regions are to be segmented."""
    make_nnunet(tmp_path / "raw" / "Heart", subjects=5, size_zyx=(4, 36, 32), channels=2)
    change_json(tmp_path / "raw/Heart/dataset.json", labels=REGIONS, regions_class_order=PAINTED)
    for path in (tmp_path / "raw/Heart/imagesTr").glob("*_0001.nii.gz"):
        change_voxels(path, lambda voxels: 300 - voxels)
    return tmp_path


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def assert_painted_and_scored(home: Path, masks: Path) -> None:
    """Masks, alone and joined, are their probabilities painted in order, and each region's scores are those of its own mask."""
    rows = list(csv.DictReader((home / "scores/metrics.csv").open()))
    assert [row["label_name"] for row in rows[:3]] == ["heart", "left", "LV"]
    spacing = tuple(float(step) for step in nib.load(next(masks.glob("*.nii.gz"))).header.get_zooms()[::-1])
    for path in masks.glob("*.nii.gz"):
        case = path.name.removesuffix(".nii.gz")
        with np.load(masks / f"{case}.npz") as arrays:
            probabilities_KZYX = arrays["probabilities"]
        painted_ZYX = np.zeros(probabilities_KZYX.shape[1:], np.uint8)
        for value, own_ZYX in zip(PAINTED, probabilities_KZYX[1:], strict=True):
            painted_ZYX[own_ZYX > 0.5] = value
        mask_ZYX, reference_ZYX = voxels(path).T, voxels(home / "raw/Heart/labelsTr" / path.name).T
        np.testing.assert_array_equal(mask_ZYX, painted_ZYX)
        np.testing.assert_array_equal(voxels(home / "joined" / path.name).T, painted_ZYX)
        for name, region in (("heart", [1, 2, 3]), ("left", [1, 2]), ("LV", [1])):
            both = (np.isin(each, region).astype(np.uint8) for each in (mask_ZYX, reference_ZYX))
            expected = evaluate_pair(*both, spacing, {"it": 1})["it"]
            (row,) = [row for row in rows if row["case"] == case and row["label_name"] == name]
            assert float(row["dice"]) == pytest.approx(expected["dice"], abs=1e-9)
            assert float(row["hd95_mm"]) == pytest.approx(expected["hd95_mm"], abs=1e-9)
    means = {
        name: np.mean([float(row["dice"]) for row in rows if row["label_name"] == name])
        for name in ("heart", "left", "LV")
    }
    assert min(means.values()) > 0.7, means


def assert_exported_alike(run: Path) -> None:
    network, x = load_model(run, torch.device("cpu")).network, torch.randn(1, 2, 32, 32)
    with torch.inference_mode():
        expected = network(x)
    with torch.no_grad():
        found = onnx_logits(torch.export.export(network, (x,)), x)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4, rtol=1e-3)


def test_regions_go_the_whole_way(home, typed: Typed):
    def call(name: str, *words: object) -> None:
        result = typed(name, *words, home=home)
        assert result.returncode == 0, result.stderr

    images, masks = home / "raw/Heart/imagesTr", home / "masks"
    words = ("batch_size=4", "patch_size=32,32")
    call("utseg_plan_and_preprocess", "-d", "Heart", "-pl", "cpu", "-m", "UNet", "-np", 1, "--set", *words)
    options = ("-m", "UNet", "--device", "cpu", "-np", 0, "--epochs", 1)
    call("utseg_train", "2d", "fold0", *options, "--set", *SETTINGS)
    call("utseg_predict", "-i", images, "-o", masks, "--device", "cpu", "--save-probabilities")
    call("utseg_evaluate", "-p", masks, "-g", home / "raw/Heart", "-o", home / "scores")
    twin = shutil.copytree(masks, home / "twin")
    assert ensemble.main(["-i", str(masks), str(twin), "-o", str(home / "joined")]) == 0
    run = next((home / "results/Heart").glob("*/UNet/fold0"))
    assert len(read_weights(run)["heads.0.bias"]) == 4
    assert_painted_and_scored(home, masks)
    archive, again = home / "model.zip", home / "again"
    assert export_model.main(["-d", "Heart", "-o", str(archive), "--home", str(home)]) == 0
    one = sorted(masks.glob("*.nii.gz"))[0]
    scan = [images / one.name.replace(".nii.gz", f"_{channel:04d}.nii.gz") for channel in (0, 1)]
    (home / "scan").mkdir()
    for path in scan:
        shutil.copy(path, home / "scan")
    call("utseg_predict", "-i", home / "scan", "-o", again, "--device", "cpu", "--model", archive)
    np.testing.assert_array_equal(voxels(again / one.name), voxels(one))
    call("utseg_find_best_configuration", "-d", "Heart")
    assert report.main([str(home / "scores"), "-o", str(home / "report.html")]) == 0
    assert json.loads((masks / "prediction.json").read_text())["labels"]["left"] == [2, 1]
    assert_exported_alike(run)


def test_regions_that_cannot_be_painted_are_refused(home, typed: Typed):
    about = home / "raw/Heart/dataset.json"
    for changes, message in (
        (
            {"regions_class_order": [1, 2]},
            "regions_class_order: expected a list of numbers, what each region paints",
        ),
        ({"regions_class_order": [2, 3, 1]}, "regions_class_order: 3 is none of the values of left, [1, 2]"),
        (
            {"labels": REGIONS | {"left": [1, 1]}},
            "labels.left: expected values above 0, each once, found [1, 1]",
        ),
        ({"labels": REGIONS | {"left": []}}, "labels.left: expected values above 0, each once, found []"),
        ({"labels": REGIONS | {"left": 2}}, ""),
        ({"regions_class_order": [3, 2, 2]}, "regions_class_order: expected each value once"),
        ({"regions_class_order": [3, 2, True]}, "regions_class_order: expected a list of numbers"),
        (
            {"labels": REGIONS | {"left": [1, 2], "LV": [1]}, "regions_class_order": [2, 1, 3]},
            "regions_class_order: 3 is none of the values of LV",
        ),
        (
            {"labels": {"background": 0, "heart": [1, 2, 3], "left": [1, 2]}, "regions_class_order": [1, 2]},
            "regions_class_order: heart paints 1, which is a value of left too",
        ),
        ({"labels": REGIONS | {"ignore": [4]}}, "labels.ignore: expected a number, not a list, found [4]"),
        (
            {"labels": REGIONS | {"ignore": 3}},
            "labels.ignore: expected a value of its own, higher than that of any label",
        ),
        ({"labels": REGIONS | {"bg": 0}}, "expected one label of the value 0 (background), found 2"),
        (
            {"labels": REGIONS | {"left": [1, 2, 3]}},
            "labels: the regions heart and left have the same values",
        ),
        (
            {"labels": dict(reversed(REGIONS.items())), "regions_class_order": PAINTED[::-1]},
            "regions_class_order: left would paint over LV",
        ),
    ):
        change_json(about, **{"labels": REGIONS, "regions_class_order": PAINTED, **changes})
        result = typed("utseg_plan_and_preprocess", "-d", "Heart", "--fingerprint-only", "-np", 1, home=home)
        assert result.returncode == bool(message), result.stderr
        assert message in result.stderr


def test_a_value_in_no_region_is_one_line_for_all_cases(home, typed: Typed):
    change_json(
        home / "raw/Heart/dataset.json",
        labels={"background": 0, "left": [1, 2], "LV": 1},
        regions_class_order=[2, 1],
    )
    result = typed("utseg_plan_and_preprocess", "-d", "Heart", "--fingerprint-only", "-np", 1, home=home)
    cases = "10 cases (s00_ED, s00_ES, s01_ED, s01_ES, s02_ED and 5 more)"
    assert_refused(result, f"{cases}: their label maps have values that no label has: 3; first case s00_ED: ")
