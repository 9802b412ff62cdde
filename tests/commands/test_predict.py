"""`utseg_predict` as it is typed: exit codes, messages, artefacts."""

import gzip
import json
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from utseg.commands.predict import main
from utseg.predict import pipeline

sys.path.insert(0, str(Path(__file__).parents[1] / "predict"))
from tiny_models import make_run_folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A home with two folds of a tiny UTNet."""
    home = tmp_path_factory.mktemp("home")
    for fold in range(2):
        folder = make_run_folder(home / "results" / "Tiny", fold=f"fold{fold}", seed=fold)
        (folder / "validation").mkdir()
        (folder / "validation" / "summary.json").write_text("{}")  # the last thing that training writes
    return home


@pytest.fixture()
def scans(tmp_path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 900, (21 + number, 30, 3)).astype(np.int16)
        affine = np.diag([-1.4, 1.4, 9.0, 1.0])
        affine[:3, 3] = (5, -7, 11 * number)
        nibabel.save(nibabel.Nifti1Image(image, affine), folder / f"p{number}.nii.gz")
    return folder


@pytest.fixture()
def predict(trained, scans, tmp_path, capfd, monkeypatch):
    """Runs the command, in this process alone; returns exit code, the lines of stderr that are errors, and all of stdout and stderr."""
    monkeypatch.setattr(pipeline, "WITHOUT_POOL", 10)

    def call(*words: object, home: Path = trained, source: Path = scans) -> tuple[int, list[str], str]:
        arguments = ["-i", source, "-o", tmp_path / "out", "--home", home, "--device", "cpu", *words]
        code = main([str(word) for word in arguments])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        return code, errors, captured.out + captured.err

    return call


def test_verdicts_and_entropy_maps_lie_beside_the_masks(predict, tmp_path):
    code, _, said = predict("--save-entropy")
    assert code == 0
    out = tmp_path / "out"
    assert sorted(path.name for path in (out / "entropy").iterdir()) == [
        f"p{n}_entropy.nii.gz" for n in range(3)
    ]
    assert "3 of 3 cases should be looked at: p0, p1, p2" in said  # untrained networks on noise
    assert [line.split(",")[1] for line in (out / "quality.csv").read_text().splitlines()] == [
        "flagged",
        *["yes"] * 3,
    ]


def test_masks_in_the_geometry_of_their_images(predict, scans, tmp_path, monkeypatch):
    monkeypatch.undo()  # with worker processes
    code, errors, output = predict()
    assert (code, errors) == (0, [])
    assert "Tiny/auto_2d/UTNet/fold0, Tiny/auto_2d/UTNet/fold1" in output
    for path in scans.iterdir():
        image, mask = nibabel.load(path), nibabel.load(tmp_path / "out" / path.name)
        assert mask.shape == image.shape
        assert mask.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(mask.affine, image.affine)
        assert mask.header.get_zooms() == image.header.get_zooms()
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert [model["name"] for model in record["models"]] == [
        "Tiny/auto_2d/UTNet/fold0",
        "Tiny/auto_2d/UTNet/fold1",
    ]
    assert set(record["cases"]) == {"p0", "p1", "p2"}
    (image,) = record["cases"]["p0"]["images"]
    assert (tmp_path / "out" / image).resolve() == (scans / "p0.nii.gz").resolve()


def test_one_fold_and_probabilities(predict, tmp_path):
    code, errors, said = predict("-f", "fold1", "--save-probabilities", "--no-tta", "--quiet")
    assert (code, errors) == (0, [])
    (only,) = said.splitlines()
    assert only.startswith("warning: 3 of 3 cases should be looked at")
    with np.load(tmp_path / "out" / "p0.npz", allow_pickle=False) as arrays:
        probabilities = arrays["probabilities"]
    assert probabilities.shape == (4, 3, 30, 21)
    assert probabilities.dtype == np.float32
    mask = np.asarray(nibabel.load(tmp_path / "out" / "p0.nii.gz").dataobj).T
    np.testing.assert_array_equal(probabilities.argmax(0), mask)


def test_step_and_precision_are_on_record_and_change_the_masks(predict, tmp_path):
    masks = {}
    for name, words in {
        "planned": ("--precision", "float32"),
        "other": ("--step-size", "1", "--precision", "bfloat16"),
    }.items():
        assert predict("-f", "fold0", *words, "--save-probabilities", "-o", tmp_path / name)[0] == 0
        with np.load(tmp_path / name / "p0.npz", allow_pickle=False) as arrays:
            masks[name] = arrays["probabilities"]
    record = json.loads((tmp_path / "other" / "prediction.json").read_text())
    assert [(one["step_size"], one["precision"]) for one in record["models"]] == [(1.0, "bfloat16")]
    differences = np.abs(masks["planned"] - masks["other"])
    assert 0 < differences.max() < 0.05


def test_resume_keeps_what_is_there(predict, tmp_path):
    assert predict()[0] == 0
    (tmp_path / "out" / "p1.nii.gz").unlink()
    kept = (tmp_path / "out" / "p0.nii.gz").stat().st_mtime_ns
    code, _, output = predict("--resume")
    assert code == 0
    assert "2 masks there and verified, 1 to be made" in output
    assert (tmp_path / "out" / "p0.nii.gz").stat().st_mtime_ns == kept
    assert (tmp_path / "out" / "p1.nii.gz").is_file()


def test_overlays_on_request_and_for_masks_that_are_there(predict, tmp_path):
    pictures = tmp_path / "out" / "overlays"
    assert predict()[0] == 0
    assert not pictures.exists()
    assert predict("--resume", "--overlays")[0] == 0
    assert sorted(path.name for path in pictures.iterdir()) == ["p0.png", "p1.png", "p2.png"]
    before = {path.name: path.stat().st_mtime_ns for path in pictures.iterdir()}
    assert predict("--resume", "--overlays")[0] == 0
    assert {path.name: path.stat().st_mtime_ns for path in pictures.iterdir()} == before
    assert predict("--overlays")[0] == 0
    assert all(path.stat().st_mtime_ns > before[path.name] for path in pictures.iterdir())
    for path in pictures.iterdir():
        with Image.open(path) as picture:
            picture.load()
            assert picture.text["Title"] == path.stem


def test_parts_are_one_run(predict, tmp_path):
    assert predict("-o", tmp_path / "one", "--save-probabilities")[0] == 0
    code, errors, said = predict("--part", "2/2", "--save-probabilities")
    assert (code, errors) == (0, [])
    assert "not all parts have finished" in said
    assert not (tmp_path / "out" / "prediction.json").exists()
    code, _, said = predict("--part", "1/2", "--save-probabilities")
    assert code == 0
    assert "all 2 parts have finished" in said
    one, out = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.*")} for name in ("one", "out")
    )
    assert one.keys() - {".lock"} <= out.keys()
    assert all(out[name] == data for name, data in one.items() if not name.startswith(".lock"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--part", "0/4"), "part 0 of 4"),
        (("--part", "5/4"), "part 5 of 4"),
        (("--part", "two"), "'two'"),
        (("--device", "mps:1"), "Apple GPU"),
    ],
)
def test_wrong_values_are_one_line(predict, words, said, tmp_path):
    code, errors, everything = predict(*words)
    assert code == 2
    assert len(errors) == 1 == len(everything.splitlines())
    assert said in errors[0]
    assert not (tmp_path / "out").exists()


def damage_crc(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-6] ^= 4
    path.write_bytes(data)


def put_nan(path: Path) -> None:
    image = nibabel.load(path)
    values = image.get_fdata(dtype=np.float32)
    values[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, image.affine), path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "cut off"),
        (damage_crc, "damaged"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(gzip.compress(b"not an image" * 100)), "not NIfTI"),
        (put_nan, "1 NaN"),
    ],
)
def test_a_bad_case_of_several(predict, scans, tmp_path, damage, words):
    damage(scans / "p1.nii.gz")
    code, errors, said = predict()
    assert code == 1
    assert len(errors) == 1
    assert "p1.nii.gz" in errors[0] and said.count("p1.nii.gz") == 1
    assert "3 of 3" not in said
    assert words in errors[0]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["p0.nii.gz", "p2.nii.gz"]


def test_several_bad_cases_are_one_line_each(predict, scans):
    damage_crc(scans / "p0.nii.gz")
    put_nan(scans / "p2.nii.gz")
    code, errors, _ = predict()
    assert code == 1
    assert len(errors) == 2


def test_nothing_to_predict(predict, tmp_path):
    (tmp_path / "empty").mkdir()
    code, errors, _ = predict(source=tmp_path / "empty")
    assert code == 1
    assert "no image is there" in errors[0]
    code, errors, _ = predict(source=tmp_path / "nowhere")
    assert code == 1
    assert "no such file or folder" in errors[0]


def test_no_model(predict, tmp_path):
    code, errors, _ = predict(home=tmp_path / "other")
    assert code == 1
    assert "run utseg_train first" in errors[0]
    code, errors, _ = predict("-f", "fold4")
    assert code == 1
    assert "trained: fold0, fold1" in errors[0]
    code, errors, _ = predict("-m", "UNet")
    assert code == 1
    assert "trained: UTNet" in errors[0]


def test_a_damaged_model(predict, trained, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(trained, home)
    weights = home / "results/Tiny/auto_2d/UTNet/fold0/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-100] ^= 1
    weights.write_bytes(data)
    code, errors, _ = predict(home=home)
    assert code == 1
    assert "model.safetensors: damaged" in errors[0]
    assert len(errors) == 1
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_the_output_is_not_the_input(predict, scans):
    before = {path.name: path.read_bytes() for path in scans.iterdir()}
    code, errors, _ = predict("-o", scans)
    assert code == 1
    assert "choose another with -o" in errors[0]
    assert {path.name: path.read_bytes() for path in scans.iterdir()} == before


def test_wrong_usage(predict):
    code, errors, _ = predict("--device", "abacus")
    assert code == 2
    assert "abacus" in errors[0]
    for words in (["--no-such-flag"], ["--step-size", "0"], ["--step-size", "half"], ["--precision", "int8"]):
        with pytest.raises(SystemExit) as exit_:
            predict(*words)
        assert exit_.value.code == 2
