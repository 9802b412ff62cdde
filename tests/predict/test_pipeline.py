"""From files to masks with networks whose answer is known: geometry, cines, several models, what is kept, what goes wrong."""

import json
import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import band_model, bands

from utseg.case import Case
from utseg.errors import CaseErrors, InputError, Interrupted, UtsegError
from utseg.files import folder_lock
from utseg.inference.views import AS_MIRRORED_IN_TRAINING, NO_AUGMENTATION
from utseg.predict import pipeline, stages
from utseg.predict.pipeline import predict_cases
from utseg.predict.record import PredictionRecord

SPACING = 1.25  # that of the tiny plan: nothing is resampled, so the mask is known voxel for voxel


def random_volume(seed: int, shape_zyx: tuple[int, ...]) -> np.ndarray:
    """Whole numbers, so that every file format holds them exactly."""
    return np.random.default_rng(seed).integers(0, 200, shape_zyx).astype(np.int16)


def random_affine(seed: int, noise: float = 0.0) -> np.ndarray:
    """Any rotation, flips included; in-plane spacing 1.25 mm; axes at right angles to `noise`."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = (rotation + noise * rng.normal(size=(3, 3))) * (SPACING, SPACING, rng.uniform(1, 10))
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    return affine


def write_image(path: Path, image: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """`image` is (Z, Y, X) or (T, Z, Y, X)."""
    affine = np.diag([SPACING, SPACING, 8.0, 1.0]) if affine is None else affine
    nifti = nibabel.Nifti1Image(image.T, affine)
    nifti.header.set_xyzt_units("mm", "sec")
    nibabel.save(nifti, path)
    return path


def read_mask(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj).T


def case_of(path: Path, frame: int | None = None) -> Case:
    name = path.name.split(".")[0]
    return Case(name, name, (path,), frame=frame)


def assert_same_geometry(mask: Path, image: Path) -> None:
    mine, its = nibabel.load(mask).header, nibabel.load(image).header
    assert nibabel.load(mask).shape == nibabel.load(image).shape
    for field in ("qform_code", "sform_code", "xyzt_units"):
        assert mine[field] == its[field], field
    for field in ("pixdim", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "srow_x", "srow_y", "srow_z"):
        np.testing.assert_array_equal(mine[field], its[field], err_msg=field)
    np.testing.assert_array_equal(nibabel.load(mask).affine, nibabel.load(image).affine)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(st.integers(1, 4), st.integers(5, 45), st.integers(5, 45)),
    st.integers(0, 10_000),
    st.sampled_from([0.0, 3e-5]),
    st.sampled_from([".nii.gz", ".nii"]),
)
def test_a_mask_lies_as_its_image_voxel_for_voxel(tmp_path, shape, seed, noise, suffix):
    image = random_volume(seed, shape)
    path = write_image(tmp_path / f"case{suffix}", image, random_affine(seed, noise))
    (mask,) = predict_cases([case_of(path)], [band_model()], tmp_path / "out")
    assert nibabel.load(mask).get_data_dtype() == np.uint8
    np.testing.assert_array_equal(read_mask(mask), bands(image.astype(np.float32)))
    assert_same_geometry(mask, path)


def test_other_formats_lie_in_the_same_place(tmp_path):
    image = random_volume(1, (3, 20, 24))
    source = SimpleITK.GetImageFromArray(image)
    source.SetSpacing((SPACING, SPACING, 7.5))
    source.SetOrigin((-12.5, 40.0, 3.25))
    source.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    SimpleITK.WriteImage(source, tmp_path / "case.mha")
    (mask,) = predict_cases([case_of(tmp_path / "case.mha")], [band_model()], tmp_path / "out")
    result = SimpleITK.ReadImage(mask)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(result), bands(image.astype(np.float32)))
    assert result.GetSpacing() == pytest.approx(source.GetSpacing())
    assert result.GetOrigin() == pytest.approx(source.GetOrigin())
    assert result.GetDirection() == pytest.approx(source.GetDirection())


def test_a_real_scan_that_simpleitk_refuses(shared, tmp_path):
    path = shared / "data/raw/MnM/Training/Labeled/C8O0P2/C8O0P2_sa.nii.gz"
    model = band_model(spacing_yx_mm=(4.0, 4.0), patch_size=(96, 96))
    whole, frame = predict_cases(
        [Case("C8O0P2", "C8O0P2", (path,)), Case("C8O0P2_ES", "C8O0P2", (path,), frame=1)],
        [model],
        tmp_path / "out",
    )
    assert_same_geometry(whole, path)
    np.testing.assert_array_equal(read_mask(frame), read_mask(whole)[1])
    np.testing.assert_array_equal(nibabel.load(frame).affine, nibabel.load(path).affine)


def test_every_frame_of_a_cine_is_predicted_by_itself(tmp_path, in_workers):
    cine = random_volume(2, (5, 3, 17, 40))
    path = write_image(tmp_path / "cine.nii.gz", cine)
    (mask,) = predict_cases(
        [case_of(path)], [band_model()], tmp_path / "out", workers=2, save_probabilities=True
    )
    result = read_mask(mask)
    assert result.shape == cine.shape
    for frame in range(5):
        np.testing.assert_array_equal(result[frame], bands(cine[frame].astype(np.float32)))
        with np.load(tmp_path / "out" / f"cine_frame{frame:03d}.npz", allow_pickle=False) as arrays:
            np.testing.assert_array_equal(arrays["probabilities"].argmax(0), result[frame])
    assert_same_geometry(mask, path)
    entry = json.loads((tmp_path / "out" / "prediction.json").read_text())["cases"]["cine"]
    assert entry["frames"] == 5
    assert len(entry["files"]) == 6
    assert list(entry["inputs"]) == ["cine.nii.gz"]


def test_resampled_masks_come_back_on_the_native_grid(tmp_path):
    y, x = np.mgrid[:61, :47] - np.array([30.0, 23.0])[:, None, None]
    disc = (100 * (y**2 + x**2 < 15**2)).astype(np.int16)
    image = np.stack([disc, disc, 0 * disc, disc])
    path = write_image(tmp_path / "disc.nii.gz", image)
    model = band_model(spacing_yx_mm=(1.0, 1.7))
    (mask,) = predict_cases([case_of(path)], [model], tmp_path / "out")
    assert_same_geometry(mask, path)
    found, expected = read_mask(mask) > 1, image > 0
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.97


def test_several_models_give_the_mean_of_their_probabilities(tmp_path):
    path = write_image(tmp_path / "case.nii.gz", random_volume(3, (2, 20, 50)))
    members = {"sharp": band_model(3.0, "sharp"), "soft": band_model(0.1, "soft")}

    def probabilities(name, *models):
        predict_cases([case_of(path)], models, tmp_path / name, save_probabilities=True)
        with np.load(tmp_path / name / "case.npz", allow_pickle=False) as arrays:
            return arrays["probabilities"]

    single = {name: probabilities(name, model) for name, model in members.items()}
    both = probabilities("both", *members.values())
    np.testing.assert_allclose(both, (single["sharp"] + single["soft"]) / 2, atol=1e-6)
    three = [
        *members.values(),
        band_model(0.7, "between"),
        band_model(0.3, "other plan", spacing_yx_mm=(2.0, 2.0)),
    ]
    in_order, turned = probabilities("three", *three), probabilities("turned", *reversed(three))
    np.testing.assert_array_equal(turned, in_order)
    np.testing.assert_array_equal(probabilities("twice", members["soft"], members["soft"]), single["soft"])
    np.testing.assert_allclose(both.sum(0), 1, atol=1e-5)


def test_models_of_several_plans_are_averaged_on_the_native_grid(tmp_path):
    image = random_volume(4, (2, 20, 50))
    paths = [write_image(tmp_path / f"case{i}.nii.gz", image + i) for i in range(3)]
    cases = [case_of(path) for path in paths]
    fine, coarse = (
        band_model(0.5, "fine"),
        band_model(0.5, "coarse", spacing_yx_mm=(2.5, 2.5), patch_size=(16, 16)),
    )
    results = {}
    for name, models in {"fine": [fine], "coarse": [coarse], "all": [fine, coarse, fine]}.items():
        predict_cases(cases, models, tmp_path / name, save_probabilities=True, workers=2)
        with np.load(tmp_path / name / "case1.npz", allow_pickle=False) as arrays:
            results[name] = arrays["probabilities"]
        np.testing.assert_array_equal(results[name].argmax(0), read_mask(tmp_path / name / "case1.nii.gz"))
    np.testing.assert_allclose(results["all"], (2 * results["fine"] + results["coarse"]) / 3, atol=1e-6)


@pytest.fixture()
def four(tmp_path) -> list[Case]:
    paths = [write_image(tmp_path / f"case{i}.nii.gz", random_volume(i, (2, 16, 20))) for i in range(4)]
    return [case_of(path) for path in paths]


def test_a_bad_case_is_named_and_the_others_are_written(tmp_path, four, caplog, in_workers):
    bad = four[1].images[0]
    bad.write_bytes(bad.read_bytes()[:-40])
    nan = np.ones((2, 8, 8), np.float32)
    nan[0, 0, :3] = np.nan
    four.append(case_of(write_image(tmp_path / "nan.nii.gz", nan)))
    four.append(case_of(tmp_path / "missing.nii.gz"))
    with pytest.raises(CaseErrors) as error:
        predict_cases(four, [band_model()], tmp_path / "out", workers=2)
    lines = sorted(error.value.lines())
    assert len(lines) == 3
    assert [line.split(":")[0] for line in lines] == ["case case1", "case missing", "case nan"]
    assert "3 NaN" in lines[2]
    assert {path.name for path in (tmp_path / "out").glob("*.nii.gz")} == {
        "case0.nii.gz",
        "case2.nii.gz",
        "case3.nii.gz",
    }
    assert set(json.loads((tmp_path / "out" / "prediction.json").read_text())["cases"]) == {
        "case0",
        "case2",
        "case3",
    }


def test_a_cine_with_a_bad_frame_is_one_bad_case(tmp_path):
    cine = random_volume(2, (4, 2, 9, 9)).astype(np.float32)
    cine[1:3, 0, 0, 0] = np.inf
    path = write_image(tmp_path / "cine.nii.gz", cine)
    with pytest.raises(CaseErrors) as error:
        predict_cases([case_of(path)], [band_model()], tmp_path / "out", workers=2)
    (line,) = error.value.lines()
    assert "1 infinite" in line
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("case*")}


def test_resume_keeps_what_verifies_and_redoes_the_rest(tmp_path, four):
    out = tmp_path / "out"
    model = band_model()
    predict_cases(four, [model], out, workers=1)
    first = {path.name: path.read_bytes() for path in out.glob("case*")}
    before = stamps(out)

    predict_cases(four, [model], out, resume=True)
    assert stamps(out) == before

    damaged = bytearray(first["case0.nii.gz"])
    damaged[-5] ^= 1
    (out / "case0.nii.gz").write_bytes(damaged)
    (out / "case1.nii.gz").unlink()
    changed = random_volume(99, (2, 16, 20))
    write_image(four[2].images[0], changed)
    before = stamps(out)
    predict_cases(four, [model], out, resume=True, workers=1)
    after = stamps(out)
    assert after["case3.nii.gz"] == before["case3.nii.gz"]
    assert all(
        (out / name).read_bytes() == first[name] for name in ("case0.nii.gz", "case1.nii.gz", "case3.nii.gz")
    )
    np.testing.assert_array_equal(read_mask(out / "case2.nii.gz"), bands(changed.astype(np.float32)))

    predict_cases(four, [model], out, workers=1)
    assert all(after[name] < stamp for name, stamp in stamps(out).items())


@pytest.mark.parametrize("change", ["model", "tta", "step_size", "precision", "probabilities", "record"])
def test_resume_does_not_trust_masks_that_were_made_otherwise(tmp_path, four, change):
    out = tmp_path / "out"
    case = four[:1]
    predict_cases(case, [band_model(mirror_axes=("x",))], out, precision="float32")
    before = stamps(out)
    model = band_model(49.0 if change == "model" else 50.0, mirror_axes=("x",))
    if change == "record":
        (out / "prediction.json").write_text("{")
    predict_cases(
        case,
        [model],
        out,
        resume=True,
        tta=NO_AUGMENTATION if change == "tta" else AS_MIRRORED_IN_TRAINING,
        step_size=0.75 if change == "step_size" else None,
        precision="bfloat16" if change == "precision" else "float32",
        save_probabilities=change == "probabilities",
    )
    assert stamps(out)["case0.nii.gz"] > before["case0.nii.gz"]
    assert (out / "case0.npz").exists() == (change == "probabilities")


def test_what_other_runs_of_the_same_models_wrote_stays_in_the_record(tmp_path, four):
    out = tmp_path / "out"
    predict_cases(four[:2], [band_model()], out)
    predict_cases(four[2:], [band_model()], out)
    assert set(json.loads((out / "prediction.json").read_text())["cases"]) == {c.case_id for c in four}
    predict_cases(four[:1], [band_model(1.0)], out)
    assert set(json.loads((out / "prediction.json").read_text())["cases"]) == {"case0"}


def test_the_record_says_what_was_done(tmp_path, four):
    predict_cases(four[:1], [band_model()], tmp_path / "out")
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert record["labels"] == {"background": 0, "LV": 1, "MYO": 2, "RV": 3}
    assert record["models"][0]["name"] == "Tiny/auto_2d/UTNet/bands"
    assert record["models"][0]["weights_sha256"] == "bands50.0"
    assert set(record["cases"]["case0"]["files"]) == {"case0.nii.gz"}


def test_a_second_run_on_the_folder_is_refused(tmp_path, four):
    with folder_lock(tmp_path / "out"), pytest.raises(UtsegError, match="another run is working there"):
        predict_cases(four[:1], [band_model()], tmp_path / "out")


def test_an_output_that_is_a_file_is_refused_before_the_work(tmp_path, four, monkeypatch):
    (tmp_path / "out").write_text("")
    monkeypatch.setattr(pipeline, "prepare", None)
    with pytest.raises(InputError, match="not writable"):
        predict_cases(four, [band_model()], tmp_path / "out")


@pytest.mark.parametrize(("table", "struck", "times"), [(True, "quality.csv", 1), (False, "case0.nii.gz", 3)])
def test_a_full_disk_ends_the_run_and_leaves_the_old_masks_whole(
    tmp_path, four, monkeypatch, table, struck, times
):
    out = tmp_path / "out"
    predict_cases(four[:2], [band_model()], out)
    if not table:
        (out / "quality.csv").unlink()
    old = {path.name: path.read_bytes() for path in out.iterdir()}
    calls = 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UtsegError, match=rf"{struck}: could not be written \(No space left on device\)"):
        predict_cases(four[:2], [band_model(1.0)], out)
    assert calls == times  # the table before any mask; or the mask, and record and table at the end
    assert {path.name: path.read_bytes() for path in out.iterdir()} == old


@pytest.mark.parametrize("lost", ["prediction.json", "quality.csv"])
def test_a_record_that_cannot_be_written_is_an_error_beside_the_masks(tmp_path, four, monkeypatch, lost):
    original = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if target.name == lost:
            raise OSError(28, "No space left on device")
        return original(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(CaseErrors, match=rf"{lost}: could not be written \(No space left on device\)"):
        predict_cases(four[:1], [band_model()], tmp_path / "out")
    assert (tmp_path / "out" / "case0.nii.gz").exists() and not list((tmp_path / "out").glob(".tmp-*"))


def test_not_all_cases_are_on_record_before_quality_is_written(tmp_path, four, monkeypatch):
    """Where nothing is left to predict nobody would write it after a kill."""
    counts = []

    def write(record: PredictionRecord, folder: Path) -> None:
        counts.append(len(record.cases))
        assert counts[-1] < len(four) or (folder / "quality.csv").is_file()

    monkeypatch.setattr("utseg.predict.run.write_record", write)
    monkeypatch.setattr("utseg.predict.run.SHARE_OF_RECORDS", 1e9)  # after each case
    predict_cases(four, [band_model()], tmp_path / "out")
    assert counts == [1, 2, 3, 4]


def test_images_are_read_as_they_are_needed(tmp_path, four, monkeypatch):
    """However many cases there are, only a few volumes are held at a time, and no image once it was predicted."""
    path = four[0].images[0]
    cases = [Case(f"c{i:02d}", "s", (path,)) for i in range(40)]
    read, held, images, alive = 0, [], [], []

    def counting(volume: stages.Volume) -> stages.Preprocessed:
        nonlocal read
        read += 1
        held.append(read - len(list((tmp_path / "out").glob("c*.nii.gz"))))
        prepared = stages.prepare(volume)
        images.extend(weakref.ref(image) for image in prepared.images)
        alive.append(sum(image() is not None for image in images))
        return prepared

    monkeypatch.setattr(pipeline, "prepare", counting)
    predict_cases(cases, [band_model()], tmp_path / "out")
    assert read == 40
    assert max(held) <= 12
    assert max(alive) <= 5


def test_an_interruption_leaves_a_record_to_go_on_from(tmp_path, four, monkeypatch):
    def interrupted(volume: stages.Volume) -> stages.Preprocessed:
        if volume.case.case_id == "case2":
            raise KeyboardInterrupt
        return stages.prepare(volume)

    out = tmp_path / "out"
    monkeypatch.setattr(pipeline, "prepare", interrupted)
    model = band_model(
        patch_size=(256, 256)
    )  # batches of one slice, so that each case is finished before the next but one is read
    with pytest.raises(Interrupted, match="interrupted after 1 of 4 masks; run again with --resume"):
        predict_cases(four, [model], out)
    monkeypatch.undo()
    before = stamps(out)
    assert set(before) == {"case0.nii.gz"}
    predict_cases(four, [model], out, resume=True, workers=1)
    assert stamps(out)["case0.nii.gz"] == before["case0.nii.gz"]
    assert len(stamps(out)) == 4


def test_workers_do_without_torch():
    program = "import sys, utseg.predict.stages, utseg.predict.pipeline; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_worker_that_dies_is_named(tmp_path, four, monkeypatch, in_workers):
    monkeypatch.setattr(pipeline, "prepare", die)
    with pytest.raises(UtsegError, match="a worker process died while working on one of: case0"):
        predict_cases(four, [band_model()], tmp_path / "out", workers=1)


def die(volume: stages.Volume) -> stages.Preprocessed:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_masks(tmp_path, four):
    predict_cases(four, [band_model()], tmp_path / "cpu")
    model = band_model()
    model.network.cuda()
    predict_cases(four, [model], tmp_path / "cuda")
    for path in (tmp_path / "cpu").glob("case*"):
        assert path.read_bytes() == (tmp_path / "cuda" / path.name).read_bytes()
