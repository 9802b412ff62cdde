"""Models by path, by checkpoint and from Python: `utseg_predict --model`, `--checkpoint`, `load_model`."""

import json
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch
from tiny_models import make_run_folder

import utseg
from utseg.archive import export_model
from utseg.commands.predict import main
from utseg.errors import InputError, UsageError
from utseg.files import sha256
from utseg.planning.task import planned_task
from utseg.rawdata.ways import Way
from utseg.training import checkpoint
from utseg.training.record import read_run

WAY = Way(y=(0.0, 1.0, 0.0), x=(1.0, 0.0, 0.0), nominal=False)
SPACING_ZYX_MM = (9.0, 1.4, 1.5)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two folds of a tiny UTNet, the first with a best checkpoint of other weights, and an archive of both."""
    home = tmp_path_factory.mktemp("elsewhere")
    runs = [make_run_folder(home / "results" / "Tiny", fold=f"fold{n}", seed=n, ways=(WAY,)) for n in (0, 1)]
    torch.manual_seed(7)
    other = planned_task(read_run(runs[0]).plan).build().state_dict()
    checkpoint.save_best({"epoch": 1, "network": dict(other)}, runs[0])
    export_model(runs, home / "model.zip")
    return home


@pytest.fixture(scope="module")
def folder(home):
    return home / "results" / "Tiny" / "auto_2d" / "UTNet"


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A scan whose x axis points the other way than those of the training, and its array (C, Z, Y, X)."""
    path = tmp_path_factory.mktemp("scan") / "case.nii.gz"
    image = np.random.default_rng(0).integers(0, 900, (24, 31, 3)).astype(np.int16)
    affine = np.diag([-1.5, 1.4, 9.0, 1.0])
    affine[:3, 3] = (5, -7, 11)
    nibabel.save(nibabel.Nifti1Image(image, affine), path)
    return path, image.T[np.newaxis], affine


@pytest.fixture
def predict(scan, tmp_path, capfd):
    """Runs the command; returns the exit code, lines of stderr that are errors, the mask, probabilities, and the record."""

    def call(*words, out="out"):
        code = main(
            list(
                map(
                    str,
                    ["-i", scan[0], "-o", tmp_path / out, "--device", "cpu", "--save-probabilities", *words],
                )
            )
        )
        errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        if code:
            return code, errors, None, None, None
        with np.load(tmp_path / out / "case.npz") as arrays:
            probabilities = arrays["probabilities"]
        mask = np.asarray(nibabel.load(tmp_path / out / "case.nii.gz").dataobj).T
        return code, errors, mask, probabilities, json.loads((tmp_path / out / "prediction.json").read_text())

    return call


def test_a_folder_with_folds_and_an_archive_predict_as_the_results_do(
    predict, home, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    _, _, mask, probabilities, record = predict("--home", home)
    for path in (folder, home / "model.zip"):
        code, _, same_mask, same_probabilities, its = predict(
            "--model", path, "--home", tmp_path / "none", out="other"
        )
        assert code == 0
        np.testing.assert_array_equal(same_mask, mask)
        np.testing.assert_array_equal(same_probabilities, probabilities)
        assert its["models"] == record["models"]
        assert (record["model_paths"], its["model_paths"]) == ([], [str(path)])
    assert not list((tmp_path / "temporary").iterdir())
    assert not (tmp_path / "none").exists()
    _, _, _, one, _ = predict("--model", home / "model.zip", "-f", "fold1", out="one")
    _, _, _, run, _ = predict("--model", folder / "fold1", out="run")
    np.testing.assert_array_equal(one, run)
    assert (one != probabilities).any()


def test_masks_of_one_checkpoint_are_not_kept_for_those_of_another(predict, folder):
    *_, final, record = predict("--model", folder / "fold0", "--resume")
    *_, best, its = predict("--model", folder / "fold0", "--checkpoint", "best", "--resume")
    assert [use["checkpoint"] for use in (*record["models"], *its["models"])] == ["final", "best"]
    assert its["models"][0]["weights_sha256"] == sha256(folder / "fold0" / checkpoint.BEST)
    assert (best != final).any()
    model = utseg.load_model(folder / "fold0", checkpoint="best", device="cpu")
    assert model.models[0].sha256 == its["models"][0]["weights_sha256"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ("--model", "{zip}", "--checkpoint", "best"),
            2,
            "an archive has final weights only; leave out --checkpoint",
        ),
        (("--model", "{folder}/fold1", "--checkpoint", "best"), 1, "checkpoint_best.pt: not found"),
        (("--model", "{zip}", "-d", "Tiny", "-m", "UTNet"), 2, "leave out -d, -m"),
        (("--model", "{folder}/fold0", "-f", "fold0"), 2, "is one run; leave out -f"),
        (
            ("--model", "{zip}", "-f", "fold4"),
            1,
            "no model in it is trained on fold4; there are: fold0, fold1",
        ),
        (
            ("--model", "{home}"),
            1,
            "expected a run's folder (with run.json), a folder with its folds, or an archive",
        ),
        (("--model", "{home}/none.zip"), 1, "no such file"),
        (("--model", "{scan}"), 1, "damaged or not part of an archive"),
    ],
)
def test_what_cannot_be_is_one_line(predict, home, folder, scan, words, code, said):
    found = predict(
        *(word.format(zip=home / "model.zip", home=home, folder=folder, scan=scan[0]) for word in words)
    )
    assert found[0] == code
    (line,) = found[1]
    assert said in line


def test_arrays_get_the_numbers_of_their_files(predict, home, folder, scan):
    _, image, affine = scan
    for words, tta in (((), True), (("--no-tta",), False)):
        _, _, mask, probabilities, _ = predict("--home", home, *words, out=f"tta{tta}")
        for source in (
            {"home": home, "dataset": "Tiny"},
            {"path": str(home / "model.zip")},
            {"path": folder},
        ):
            model = utseg.load_model(**source, device="cpu")
            found, its = model.predict(image, affine=affine, probabilities=True, tta=tta)
            assert (found.dtype, its.dtype) == (np.uint8, np.float32)
            np.testing.assert_array_equal(found, mask)
            np.testing.assert_array_equal(its, probabilities)
    assert (model.predict(image, SPACING_ZYX_MM) != model.predict(image, affine=affine)).any()  # not turned


def test_many_are_taken_one_by_one_and_slices_are_scans_of_their_own(folder, scan):
    model = utseg.load_model(folder / "fold0", device="cpu")
    image = scan[1]
    taken = []

    def images():
        for number in range(3):
            taken.append(number)
            yield image + number

    masks = model.predict_many(images(), [SPACING_ZYX_MM, (9.0, 1.0, 1.0), SPACING_ZYX_MM])
    first = next(masks)
    assert taken == [0]
    np.testing.assert_array_equal(first, model.predict(image, SPACING_ZYX_MM))
    np.testing.assert_array_equal(next(masks), model.predict(image + 1, (9.0, 1.0, 1.0)))
    slices = image.swapaxes(0, 1)
    masks_NYX, probabilities = model.predict_slices(slices, (1.4, 1.5), probabilities=True)
    assert probabilities.shape == (3, 4, 31, 24)
    for number in range(3):
        alone = model.predict(image[:, number : number + 1], SPACING_ZYX_MM)
        np.testing.assert_array_equal(masks_NYX[number : number + 1], alone)


@pytest.mark.parametrize(
    ("change", "spacing", "said"),
    [
        (lambda image: image[0], SPACING_ZYX_MM, "(3, 31, 24); expected (channel, z, y, x)"),
        (lambda image: np.concatenate([image, image]), SPACING_ZYX_MM, "of 1 channel: cine-MRI"),
        (lambda image: image[:, :0], SPACING_ZYX_MM, "none of them 0"),
        (lambda image: np.where(image > 800, np.nan, image), SPACING_ZYX_MM, "NaN"),
        (lambda image: image * 0, SPACING_ZYX_MM, "same value"),
        (lambda image: image.astype(str), SPACING_ZYX_MM, "expected real numbers"),
        (lambda image: image, (9.0, 1.4), "expected three numbers above 0"),
        (lambda image: image, (9.0, 1.4, -1.5), "expected three numbers above 0"),
        (lambda image: image, (9.0, 1.4, np.nan), "expected three numbers above 0"),
        (lambda image: image, None, "spacing_zyx_mm or affine"),
        (lambda image: image, (9.0, 1e4, 1.5), "expected 0.001 to 1000 mm"),
    ],
)
def test_wrong_arrays_are_a_value_error_of_one_line(folder, scan, change, spacing, said):
    model = utseg.load_model(folder / "fold0", device="cpu")
    with pytest.raises(ValueError) as error:
        model.predict(change(scan[1]), spacing)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_picture_may_lack_a_colour_as_an_array_too(tmp_path):
    model = utseg.load_model(make_run_folder(tmp_path, channel_names=("R", "G", "B")), device="cpu")
    picture = np.random.default_rng(0).integers(0, 255, (1, 3, 31, 24))
    picture[:, 1] = 0
    assert model.predict_slices(picture, (1.4, 1.5)).shape == (1, 31, 24)
    with pytest.raises(InputError, match="same value"):
        model.predict_slices(picture * 0, (1.4, 1.5))


def test_names_of_folds_are_a_list_and_a_model_says_what_it_is(folder, scan):
    for wrong in ({"folds": "fold0"}, {"folds": [0]}, {"dataset": 27}):
        with pytest.raises(UsageError, match="found"):
            utseg.load_model(folder, **wrong, device="cpu")
    model = utseg.load_model(folder / "fold0", device="cpu")
    assert repr(model).count("\n") == 0 and "fold0; channels cine-MRI; labels" in repr(model)
    with pytest.raises(InputError, match="image 1: there is no spacing_zyx_mm for it"):
        list(model.predict_many([scan[1], scan[1]], [SPACING_ZYX_MM]))


def test_importing_the_package_is_light():
    code = "import sys, utseg; assert not {'torch', 'numpy'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_that_is_named_in_two_ways_counts_once(home, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    fold0, whole = folder / "fold0", [folder / "fold0", folder / "fold1"]
    for paths, runs in (
        (("UTNet", "UTNet/fold0"), whole),
        (("UTNet/fold0", "UTNet/../UTNet/fold0", fold0), [fold0]),
    ):
        found = [model.folder.resolve() for model in utseg.load_model(paths, device="cpu").models]
        assert found == runs
    for again in (home / "." / "model.zip", folder):  # of an archive, what it was made of
        assert len(utseg.load_model([home / "model.zip", again], device="cpu").models) == 2
