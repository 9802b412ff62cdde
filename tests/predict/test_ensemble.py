"""Joining saved probabilities: the mean whatever the order, in the images' own geometry, and what is refused."""

import json
import shutil
import tempfile
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rawfiles import make_affine
from tiny_models import band_model

from utseg.case import Case
from utseg.commands.ensemble import main
from utseg.errors import ArtefactError, CaseErrors, InputError, UsageError, UtsegError
from utseg.files import sha256
from utseg.inference.views import AS_MIRRORED_IN_TRAINING
from utseg.predict.ensemble import ensemble_folders, read_probabilities
from utseg.predict.pipeline import predict_cases
from utseg.predict.record import (
    PREDICTION_FILE,
    ModelUse,
    PredictedCase,
    PredictionRecord,
    recorded_image,
    write_record,
)
from utseg.predict.stages import write_probabilities
from utseg.rawdata.geometry import Geometry

SIZE = (2, 5, 4)
GEOMETRY = Geometry(SIZE, tuple(tuple(row) for row in make_affine(angles=(0.1, 0.2, 0.3)).tolist()))


def random_probabilities(seed: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 3, (4, *SIZE)).astype(np.float32)
    shares = np.exp(logits - logits.max(0))
    return (shares / shares.sum(0)).astype(np.float32)


def write_member(folder: Path, probabilities: dict[str, np.ndarray], name: str = "m", **changes) -> Path:
    """A folder as `utseg_predict --save-probabilities` leaves it, without the masks."""
    folder.mkdir(parents=True)
    cases = {}
    for case_id, values in probabilities.items():
        path = folder / f"{case_id}.npz"
        write_probabilities(path, values, changes.get("geometry", GEOMETRY))
        cases[case_id] = PredictedCase(
            inputs={f"{case_id}.nii.gz": changes.get("image", "0" * 64)},
            frame=None,
            frames=1,
            files={path.name: sha256(path)},
        )
    record = PredictionRecord(
        models=(ModelUse(name=name, network="UTNet", weights_sha256=name, plan_sha256="p"),),
        labels=changes.get("labels", {"background": 0, "LV": 1, "MYO": 2, "RV": 3}),
        channel_names=("cine-MRI",),
        test_time_augmentation=AS_MIRRORED_IN_TRAINING,
        versions={},
        device="cpu",
        cases=cases,
    )
    write_record(record, folder)
    return folder


def mask_of(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj).T


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_the_order_of_the_folders_changes_no_bit(data):
    seeds = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=5))
    weights = data.draw(st.none() | st.tuples(*[st.floats(0.1, 10) for _ in seeds]))
    order = data.draw(st.permutations(range(len(seeds))))
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        folders = [
            write_member(root / f"m{number}", {"a": random_probabilities(seed)}, f"m{seed}")
            for number, seed in enumerate(seeds)
        ]
        shuffled = None if weights is None else [weights[number] for number in order]
        ensemble_folders(folders, root / "one", weights=weights, save_probabilities=True)
        ensemble_folders([folders[n] for n in order], root / "two", weights=shuffled, save_probabilities=True)
        for file in ("a.nii.gz", "a.npz", PREDICTION_FILE):
            assert (root / "one" / file).read_bytes() == (root / "two" / file).read_bytes(), file
        found, geometry = read_probabilities(root / "one" / "a.npz")
        members = np.stack([random_probabilities(seed) for seed in seeds]).astype(np.float64)
        np.testing.assert_allclose(found, np.average(members, axis=0, weights=weights), rtol=1e-6)
        np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
        np.testing.assert_array_equal(mask_of(root / "one" / "a.nii.gz"), found.argmax(0))
        assert geometry == GEOMETRY
        record = json.loads((root / "one" / PREDICTION_FILE).read_text())
        assert sum(model["share"] for model in record["models"]) == pytest.approx(1)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 7), st.data())
def test_identical_members_are_the_member(seed, count, data):
    weights = data.draw(st.none() | st.lists(st.floats(0.01, 100), min_size=count, max_size=count))
    values = random_probabilities(seed)
    with tempfile.TemporaryDirectory() as place:
        folders = [write_member(Path(place) / f"m{number}", {"a": values}) for number in range(count)]
        ensemble_folders(folders, Path(place) / "out", weights=weights, save_probabilities=True)
        found, _ = read_probabilities(Path(place) / "out" / "a.npz")
        np.testing.assert_array_equal(found, values)


def test_predictions_are_joined_in_their_own_geometry_as_one_run_would(tmp_path):
    """Images of two kinds, a cine among them, by two models: joined folders equal the prediction by both at once."""
    images = {
        "still": np.random.default_rng(0).integers(0, 200, (3, 17, 21)),
        "cine": np.random.default_rng(1).integers(0, 200, (4, 2, 15, 19)),
    }
    cases = []
    for name, image in images.items():
        nifti = nibabel.Nifti1Image(
            image.astype(np.int16).T, make_affine((8.0, 1.25, 1.25), angles=(0.1, -0.2, 0.3))
        )
        nifti.header.set_xyzt_units("mm", "sec")
        nibabel.save(nifti, tmp_path / f"{name}.nii.gz")
        cases.append(Case(name, name, (tmp_path / f"{name}.nii.gz",)))
    models = [band_model(0.3, "soft"), band_model(3.0, "sharp")]
    for model in models:
        predict_cases(cases, [model], tmp_path / model.folder.name, save_probabilities=True)
    predict_cases(cases, models, tmp_path / "both")
    words = ["-i", tmp_path / "sharp", tmp_path / "soft", "-o", tmp_path / "joined", "--quiet"]
    assert main([str(word) for word in words]) == 0
    for name in images:
        joined, both = (nibabel.load(tmp_path / place / f"{name}.nii.gz") for place in ("joined", "both"))
        np.testing.assert_array_equal(np.asarray(joined.dataobj), np.asarray(both.dataobj))
        assert joined.header.binaryblock == both.header.binaryblock
    record = json.loads((tmp_path / "joined" / PREDICTION_FILE).read_text())
    assert [model["name"] for model in record["models"]] == [
        f"Tiny/auto_2d/UTNet/{n}" for n in ("sharp", "soft")
    ]
    assert record["cases"]["cine"]["frames"] == 4
    deeper = tmp_path / "of" / "both"
    for case_id, entry in ensemble_folders([tmp_path / "sharp", tmp_path / "soft"], deeper).cases.items():
        image = recorded_image(deeper, entry)
        assert image is not None and image.samefile(tmp_path / f"{case_id}.nii.gz")


def test_weights_count(tmp_path):
    first, second = random_probabilities(0), random_probabilities(1)
    folders = [
        write_member(tmp_path / "a", {"c": first}, "a"),
        write_member(tmp_path / "b", {"c": second}, "b"),
    ]
    words = ["-i", *folders, "-o", tmp_path / "out", "--weights", "3", "1", "--save-probabilities", "--quiet"]
    assert main([str(word) for word in words]) == 0
    found, _ = read_probabilities(tmp_path / "out" / "c.npz")
    np.testing.assert_allclose(found, 0.75 * first + 0.25 * second, rtol=1e-6)


def test_an_ensemble_of_ensembles_shares_on(tmp_path):
    values = {"c": random_probabilities(0)}
    a, b, c = (write_member(tmp_path / name, values, name) for name in "abc")
    ensemble_folders([a, b], tmp_path / "ab", save_probabilities=True)
    record = ensemble_folders([tmp_path / "ab", c], tmp_path / "abc", weights=[2, 1])
    assert [model.share for model in record.models] == pytest.approx([1 / 3] * 3)


@pytest.fixture()
def pair(tmp_path) -> list[Path]:
    values = {"p1": random_probabilities(0), "p2": random_probabilities(1)}
    return [write_member(tmp_path / name, values, name) for name in ("one", "two")]


def rewrite(folder: Path, case_id: str, values: np.ndarray, geometry: Geometry = GEOMETRY) -> None:
    """Other probabilities, with a record that knows of them."""
    geometry_text = np.array(json.dumps(geometry.to_json()))
    np.savez(folder / f"{case_id}.npz", probabilities=values, geometry=geometry_text)
    record = json.loads((folder / PREDICTION_FILE).read_text())
    record["cases"][case_id]["files"][f"{case_id}.npz"] = sha256(folder / f"{case_id}.npz")
    (folder / PREDICTION_FILE).write_text(json.dumps(record))


def moved(geometry: Geometry) -> Geometry:
    matrix = geometry.matrix
    matrix[0, 3] += 5
    return Geometry(geometry.size_zyx, tuple(tuple(row) for row in matrix.tolist()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: rewrite(folder, "p1", random_probabilities(0), moved(GEOMETRY)), "origin"),
        (
            lambda folder: rewrite(
                folder, "p1", random_probabilities(0)[:, :1], Geometry((1, *SIZE[1:]), GEOMETRY.affine)
            ),
            "size (z, y, x)",
        ),
        (lambda folder: rewrite(folder, "p1", random_probabilities(0)[:3]), "expected the 4 of its labels"),
        (lambda folder: rewrite(folder, "p1", random_probabilities(0) * 2), "not probabilities"),
        (
            lambda folder: rewrite(folder, "p1", random_probabilities(0) * np.float32(np.nan)),
            "not probabilities",
        ),
        (lambda folder: (folder / "p1.npz").write_bytes(b"PK"), "not the file that prediction.json"),
        (lambda folder: (folder / "p1.npz").unlink(), "missing"),
    ],
)
def test_a_case_that_cannot_be_joined_is_named_and_the_others_are(pair, tmp_path, change, words):
    change(pair[1])
    with pytest.raises(CaseErrors) as error:
        ensemble_folders(pair, tmp_path / "out")
    (line,) = error.value.lines()
    assert words in line and "p1" in line
    assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == ["p2.nii.gz"]
    assert list(json.loads((tmp_path / "out" / PREDICTION_FILE).read_text())["cases"]) == ["p2"]


def test_folders_that_do_not_go_together_are_refused_before_anything_is_written(pair, tmp_path):
    values = {"p1": random_probabilities(0), "p2": random_probabilities(1)}
    other = write_member(tmp_path / "labels", values, labels={"background": 0, "LV": 1, "MYO": 2, "scar": 3})
    fewer = write_member(tmp_path / "fewer", {"p1": random_probabilities(0)})
    image = write_member(tmp_path / "image", values, image="1" * 64)
    bare = tmp_path / "bare"
    shutil.copytree(pair[0], bare)
    record = json.loads((bare / PREDICTION_FILE).read_text())
    record["cases"]["p2"]["files"] = {}
    (bare / PREDICTION_FILE).write_text(json.dumps(record))
    channels, swapped = tmp_path / "channels", tmp_path / "swapped"
    for folder, order in ((channels, "01"), (swapped, "10")):
        shutil.copytree(pair[0], folder)
        record = json.loads((folder / PREDICTION_FILE).read_text())
        record["cases"]["p1"]["inputs"] = {f"p1_000{n}.nii.gz": each * 64 for n, each in enumerate(order)}
        (folder / PREDICTION_FILE).write_text(json.dumps(record))
    out = tmp_path / "out"
    for folder, words in (
        (other, "no counterpart for scar, RV; "),
        (fewer, "1 of 2 cases are not there: p2"),
        (image, "case p1: .* another image"),
        (bare, "no probabilities of 1 of 2 cases: p2"),
        (tmp_path, "no prediction.json"),
    ):
        with pytest.raises(InputError, match=words):
            ensemble_folders([pair[0], folder], out)
    with pytest.raises(InputError, match=r"case p1: .* another image"):
        ensemble_folders([channels, swapped], out)
    with pytest.raises(UsageError, match="1 weights for 2 folders"):
        ensemble_folders(pair, out, weights=[1])
    with pytest.raises(UsageError, match="above 0"):
        ensemble_folders(pair, out, weights=[1, 0])
    with pytest.raises(UsageError, match="which would count as several; name it once"):
        ensemble_folders([*pair, pair[0] / ".." / pair[0].name], out)
    with pytest.raises(InputError, match="choose another with -o"):
        ensemble_folders(pair, pair[1])
    assert not out.exists()


@settings(max_examples=8, deadline=None)
@given(st.permutations((1, 2, 3)), st.permutations((1, 2, 3)))
def test_the_numbering_of_a_member_changes_no_bit(ours, theirs):
    """Each folder is written again with other values for its labels, and its channels to match."""
    masks = []
    for values in ((1, 2, 3), (1, 2, 3)), (ours, theirs):
        with tempfile.TemporaryDirectory() as place:
            folders = []
            for seed, own in enumerate(values):
                probabilities = random_probabilities(seed)
                probabilities[[0, *own]] = random_probabilities(seed)
                labels = dict(zip(("background", "LV", "MYO", "RV"), (0, *own), strict=True))
                folders.append(write_member(Path(place) / f"m{seed}", {"a": probabilities}, labels=labels))
            record = ensemble_folders(folders, Path(place) / "out")
            mask = mask_of(Path(place) / "out" / "a.nii.gz")
            masks.append({name: mask == value for name, value in record.labels.items()})
    for name, mask in masks[0].items():
        np.testing.assert_array_equal(masks[1][name], mask)


def test_earlier_cases_by_the_same_members_stay_on_record(pair, tmp_path):
    out = tmp_path / "out"
    assert list(ensemble_folders(pair, out, case_ids=["p1"]).cases) == ["p1"]
    assert list(ensemble_folders(pair, out, case_ids=["p2"]).cases) == ["p1", "p2"]
    assert list(ensemble_folders(pair, out, case_ids=["p2"], weights=[1, 2]).cases) == ["p2"]


def test_quality_is_written_before_the_record_which_says_what_is_done(pair, tmp_path, monkeypatch):
    def killed(record: PredictionRecord, folder: Path) -> None:
        assert record.cases and (folder / "quality.csv").is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr("utseg.predict.ensemble.write_record", killed)
    with pytest.raises(KeyboardInterrupt):
        ensemble_folders(pair, tmp_path / "out")


def test_cases_whose_quality_could_not_be_written_are_not_on_record(pair, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise UtsegError("quality.csv: could not be written")

    monkeypatch.setattr("utseg.predict.ensemble.report_quality", full)
    with pytest.raises(UtsegError, match=r"quality\.csv"):
        ensemble_folders(pair, tmp_path / "out")
    assert not (tmp_path / "out" / PREDICTION_FILE).exists()


def test_damaged_probabilities_are_an_artefact_error(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, geometry=json.dumps(Geometry.of_file((2, 3, 4), make_affine()).to_json()))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("probabilities", b"no array")
    contents = file.read_bytes(), b"nothing"
    for content in contents:
        file.write_bytes(content)
        with pytest.raises(ArtefactError, match=r"a\.npz: damaged"):
            read_probabilities(file)
