"""A dataset of RGB pictures in nnU-Net's layout, and one of the Decathlon's 4-D files, from raw files to scores, as a user types it."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rawfiles import change_json, make_nifti, write_json

from utseg.predict.inputs import find_inputs
from utseg.rawdata import open_dataset
from utseg.rawdata.gate import read_case, read_label

SHORT = ("-pl", "cpu", "-m", "UNet", "--set", "iterations_per_epoch=6", "--set", "network.base_channels=8")
LABELS = {"background": 0, "disc": 1, "square": 5}


def draw(seed: int, size: tuple[int, int] = (32, 36)) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Colours (Y, X, C), and classes: a red disc with a green square in it. Nothing is blue."""
    generator = np.random.default_rng(seed)
    y, x = np.indices(size) - generator.integers(13, 19, 2)[:, None, None]
    label = np.zeros(size, np.uint8)
    label[y**2 + x**2 < 100] = 1
    label[(abs(y) < 5) & (abs(x) < 5)] = 5
    image = generator.normal(40, 5, (*size, 3)) * [1, 1, 0]
    image += np.where(label == 1, 150, 0)[..., None] * [1, 0, 0]
    image += np.where(label == 5, 150, 0)[..., None] * [0, 1, 0]
    return image.clip(0, 255).astype(np.uint8), label


def describe(folder: Path, **changes: object) -> None:
    about = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": LABELS, "file_ending": ".png"}
    write_json(
        folder / "dataset.json", {**about, "overwrite_image_reader_writer": "NaturalImage2DIO", **changes}
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pictures")
    folder = home / "raw" / "Dataset007_Shapes"
    for number in range(8):
        part = "Tr" if number < 6 else "Ts"
        image, label = draw(number, (32, 36) if number < 6 else (34, 30))
        for kind, values, name in (("images", image, f"c{number}_0000"), ("labels", label, f"c{number}")):
            (folder / f"{kind}{part}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(folder / f"{kind}{part}" / f"{name}.png")
    (folder / "imagesTs" / "c7.json").write_text('{"spacing": [0.9, 1.1]}')
    describe(folder)
    return home


def test_pictures_are_planned_trained_predicted_and_scored(pictures, tmp_path, typed):
    home = shutil.copytree(pictures, tmp_path / "home")
    raw, out, scores = home / "raw" / "Dataset007_Shapes", tmp_path / "out", tmp_path / "scores"

    def run(*words):
        result = typed(*words, home=home)
        assert result.returncode == 0, result.stderr
        return result

    planned = run("utseg_plan_and_preprocess", "-d", 7, *SHORT)
    assert "warning" not in planned.stderr
    run("utseg_train", "2d", "fold0", "-m", "UNet", "-pl", "cpu", "--epochs", 2, "--device", "cpu")
    run("utseg_predict", "-i", raw / "imagesTs", "-o", out, "--overlays", "--device", "cpu")
    assert sorted(path.name for path in out.iterdir() if path.is_file() and path.name[0] != ".") == [
        *("c6.png", "c7.json", "c7.png"),
        *("prediction.json", "quality.csv"),
    ]
    for case in ("c6", "c7"):
        with Image.open(out / f"{case}.png") as mask:
            assert (mask.mode, mask.size) == ("L", (30, 34)) and set(np.unique(mask)) <= {0, 1, 5}
        assert (out / "overlays" / f"{case}.png").is_file()
    assert json.loads((out / "c7.json").read_text()) == {"spacing": [1.0, 0.9, 1.1]}
    again = run("utseg_predict", "-i", raw / "imagesTs", "-o", out, "--resume", "--device", "cpu")
    assert "2 masks there and verified, 0 to be made" in again.stdout + again.stderr
    run("utseg_evaluate", "-p", out, "-g", raw / "labelsTs", "-o", scores)
    with (scores / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label_name"] == "disc"]
    for row in rows:  # pixels counted here, of mm² by the spacing
        mask, label = (
            np.asarray(Image.open(place / f"{row['case']}.png")) == 1 for place in (out, raw / "labelsTs")
        )
        assert float(row["dice"]) == pytest.approx(2 * (mask & label).sum() / (mask.sum() + label.sum()))
        size = 0.99 if row["case"] == "c7" else 1
        assert float(row["reference_ml"]) == pytest.approx(label.sum() * size / 1000)
    with (scores / "slices.csv").open(newline="") as file:
        assert {row["region"] for row in csv.DictReader(file)} == {""}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            lambda raw: describe(raw, overwrite_image_reader_writer="Tiff4DIO"),
            "one of NaturalImage2DIO, Tiff3DIO",
        ),
        (
            lambda raw: describe(raw, channel_names={"0": "grey"}),
            "c0_0000.png: 3 channels; expected one grey",
        ),
        (
            lambda raw: (
                Image.open(raw / "imagesTr" / "c2_0000.png")
                .convert("L")
                .save(raw / "imagesTr" / "c2_0000.png")
            ),
            "c2_0000.png: holds 1 channel; expected the 3 channels of the dataset",
        ),
        (
            lambda raw: [
                Image.open(raw / "imagesTr" / "c2_0000.png")
                .convert("L")
                .save(raw / "imagesTr" / f"c2_{n:04d}.png")
                for n in (0, 2)
            ],
            "channel 1 is missing: expected",
        ),
        (
            lambda raw: (
                Image.open(raw / "labelsTr" / "c3.png").resize((9, 9), 0).save(raw / "labelsTr" / "c3.png")
            ),
            "c3.png: does not lie as c3_0000.png does: size",
        ),
        (
            lambda raw: (raw / "imagesTr" / "c4.json").write_text('{"spacing": 1}'),
            "c4.json: spacing: expected",
        ),
    ],
)
def test_wrong_pictures_are_refused_in_a_line(pictures, tmp_path, typed, change, found):
    home = shutil.copytree(pictures, tmp_path / "home")
    change(home / "raw" / "Dataset007_Shapes")
    result = typed("utseg_plan_and_preprocess", "-d", 7, "--fingerprint-only", home=home)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 1 and errors and found in errors[0]
    assert len(errors) == (6 if "expected one grey" in found else 1)


def test_a_spacing_of_no_case_is_a_warning_and_one_of_all_cases_makes_no_scans_the_same(
    pictures, tmp_path, typed
):
    home = shutil.copytree(pictures, tmp_path / "home")
    images = home / "raw" / "Dataset007_Shapes" / "imagesTr"
    for name in ("c0", "c1", "c2", "c3", "c4", "c5", "c9"):
        (images / f"{name}.json").write_text('{"spacing": [2, 2]}')
    result = typed("utseg_plan_and_preprocess", "-d", 7, "--fingerprint-only", home=home)
    assert result.returncode == 0
    assert (
        f"{images}: 1 files are the spacing of no case, which would be called CASE.json: c9.json"
        in result.stderr
    )
    assert "same scan" not in result.stderr


@pytest.fixture(scope="module")
def decathlon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three volumes in one 4-D file a case, channels last, as MSD's Task01_BrainTumour and Task05_Prostate are."""
    home = tmp_path_factory.mktemp("decathlon")
    folder, cases = home / "raw" / "Task05_Shapes", []
    for number in range(7):
        slices = [draw(10 * number + z, (32, 36)) for z in range(3)]
        image_CZYX = np.stack([image for image, _ in slices]).transpose(3, 0, 1, 2).astype(np.int16)
        image_CZYX[2] = image_CZYX[0] // 2 + 7
        part = "Tr" if number < 6 else "Ts"
        make_nifti(folder / f"images{part}" / f"shape_{number:02d}.nii.gz", image_CZYX)
        if part == "Tr":
            make_nifti(
                folder / "labelsTr" / f"shape_{number:02d}.nii.gz", np.stack([label for _, label in slices])
            )
            name = f"shape_{number:02d}.nii.gz"
            cases.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    write_json(
        folder / "dataset.json",
        {
            "tensorImageSize": "4D",
            "modality": {"0": "T2", "1": "ADC", "2": "DWI"},
            "labels": {str(value): name for name, value in LABELS.items()},
            "numTraining": 6,
            "numTest": 1,
            "training": cases,
            "test": ["./imagesTs/shape_06.nii.gz"],
        },
    )
    return home


def test_files_of_several_channels_are_planned_trained_and_predicted(decathlon, tmp_path, typed):
    home = shutil.copytree(decathlon, tmp_path / "home")
    raw, out = home / "raw" / "Task05_Shapes", tmp_path / "out"
    dataset = open_dataset(raw)
    assert read_case(dataset.cases[0], dataset.labels).image_CZYX.shape == (3, 3, 32, 36)
    for words in (
        ("utseg_plan_and_preprocess", "-d", "Task05_Shapes", *SHORT),
        ("utseg_train", "2d", "fold0", "-m", "UNet", "-pl", "cpu", "--epochs", 1, "--device", "cpu"),
        ("utseg_predict", "-i", raw / "imagesTs", "-o", out, "--overlays", "--device", "cpu"),
    ):
        result = typed(*words, home=home)
        assert result.returncode == 0, result.stderr
    assert read_label(out / "shape_06.nii.gz", LABELS)[0].shape == (3, 32, 36)
    names = dataset.channel_names
    (same,) = [case for case in find_inputs(raw, names).cases if case.case_id == "shape_06"]
    assert replace(same, partition="training") == find_inputs(same.images[0], names).cases[0]
    # A copy elsewhere is a cine, of a model that has three channels.
    shutil.copytree(raw / "imagesTs", tmp_path / "elsewhere")
    result = typed("utseg_predict", "-i", tmp_path / "elsewhere", "-o", tmp_path / "x", home=home)
    assert result.returncode == 1 and "1 channels found" in result.stderr


def test_a_4d_file_holds_as_many_channels_as_modality_names(decathlon, tmp_path, typed):
    home = shutil.copytree(decathlon, tmp_path / "home")
    raw = home / "raw" / "Task05_Shapes"
    make_nifti(
        raw / "imagesTr" / "shape_03.nii.gz", np.arange(2 * 3 * 32 * 36, dtype=np.int16).reshape(2, 3, 32, 36)
    )
    result = typed("utseg_plan_and_preprocess", "-d", "Task05_Shapes", "--fingerprint-only", home=home)
    assert "shape_03.nii.gz: holds 2 volumes; expected the 3 channels of the dataset" in result.stderr
    change_json(
        raw / "dataset.json", modality={"0": "cine"}
    )  # of one channel it is a cine, which has no frame named
    result = typed("utseg_plan_and_preprocess", "-d", "Task05_Shapes", "--fingerprint-only", home=home)
    assert result.returncode == 1 and "is 4-D with 3 frames where a 3-D image is expected" in result.stderr
