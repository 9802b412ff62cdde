"""Verdicts on masks through the whole pipeline: against saved probabilities, by hand; entropy maps; what is resumed; what the log says."""

import csv
import itertools
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tiny_models import band_model

from utseg.cardiac.plausibility import AnatomyLimits
from utseg.case import Case
from utseg.inference.agreement import entropy, expected_dice
from utseg.postprocess import KeepLargestOfLabel, Postprocessing
from utseg.predict.ensemble import ensemble_folders
from utseg.predict.pipeline import predict_cases
from utseg.quality import QualitySettings

LABELS = ("LV", "MYO", "RV")
ANYTHING = QualitySettings(
    dice_at_least=0,
    anatomy=AnatomyLimits(
        enclosed_at_least=0,
        apart_at_most=1,
        loose_at_most=1,
        gaps_at_most=100,
        lv_ml=(0, 1e6),
        myo_ml=(0, 1e6),
        rv_ml=(0, 1e6),
    ),
)
SPACING = 1.25  # that of the tiny plan: nothing is resampled


def write_case(folder: Path, name: str, seed: int, shape=(3, 20, 40)) -> Case:
    image = np.random.default_rng(seed).integers(0, 200, shape).astype(np.int16)
    affine = np.array([[0, SPACING, 0, 3], [-SPACING, 0, 0, 5], [0, 0, 8, -7], [0, 0, 0, 1.0]])
    nifti = nibabel.Nifti1Image(image.T, affine)
    nifti.header.set_xyzt_units("mm", "sec")
    nibabel.save(nifti, folder / f"{name}.nii.gz")
    return Case(name, name, (folder / f"{name}.nii.gz",))


def verdict(folder: Path, case: str = "case") -> dict:
    return json.loads((folder / "prediction.json").read_text())["cases"][case]["quality"]


def probabilities(folder: Path, name: str = "case") -> np.ndarray:
    with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
        return arrays["probabilities"]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "quality.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_model_is_judged_by_its_own_probabilities(tmp_path):
    case = write_case(tmp_path, "case", 1)
    predict_cases([case], [band_model(2.0)], tmp_path / "plain")
    predict_cases([case], [band_model(2.0)], tmp_path / "saved", save_probabilities=True)
    found = verdict(tmp_path / "plain")
    assert found == verdict(tmp_path / "saved")
    p = probabilities(tmp_path / "saved")
    expected = expected_dice(p, p.argmax(0).astype(np.uint8))
    for value, name in enumerate(LABELS, 1):
        assert found["predicted_dice"][name] == pytest.approx(expected[value], abs=6e-5)
        assert 0 < found["predicted_dice"][name] < 1
        assert found["members_dice"][name] is None
    assert found["members"] == 1


@pytest.mark.parametrize("coarse", [False, True], ids=["one plan", "two plans"])
def test_members_are_compared_in_pairs_mirrorings_too(tmp_path, coarse):
    case = write_case(tmp_path, "case", 2)
    other = {"spacing_yx_mm": (2.5, 2.5), "patch_size": (16, 16)} if coarse else {}
    models = [band_model(4.0, "a"), band_model(0.4, "b"), band_model(1.0, "c", mirror_axes=("x",), **other)]
    members = []
    for model in models:
        predict_cases([case], [model], tmp_path / model.name.replace("/", "_"), save_probabilities=True)
        flips = 2 if model is models[2] else 1  # of a network that looks at pixels: equal members
        members += [probabilities(tmp_path / model.name.replace("/", "_")).astype(np.float64)] * flips
    predict_cases([case], models, tmp_path / "all")
    found = verdict(tmp_path / "all")
    assert found["members"] == 4
    pairs = list(itertools.combinations(members, 2))
    for value, name in enumerate(LABELS, 1):
        shared = sum(2 * (a[value] * b[value]).sum() for a, b in pairs)
        whole = sum((a[value] ** 2).sum() + (b[value] ** 2).sum() for a, b in pairs)
        # squares of what was interpolated are smaller than interpolated squares, so that two plans agree but roughly
        assert found["members_dice"][name] == pytest.approx(shared / whole, abs=0.08 if coarse else 6e-5)
        both = found["members_dice"][name], found["expected_dice"][name]
        assert found["predicted_dice"][name] == min(both)


def test_equal_members_agree_wholly_and_are_judged_as_one(tmp_path):
    case = write_case(tmp_path, "case", 3)
    predict_cases([case], [band_model(2.0)], tmp_path / "one")
    predict_cases([case], [band_model(2.0)] * 3, tmp_path / "three")
    one, three = verdict(tmp_path / "one"), verdict(tmp_path / "three")
    assert set(three["members_dice"].values()) == {1.0}
    for key in ("predicted_dice", "checks", "flagged", "reasons"):
        assert three[key] == one[key]


def test_folders_that_are_joined_are_judged_as_their_models_were_together(tmp_path):
    cases = [write_case(tmp_path, f"case{i}", i) for i in range(2)]
    models = [band_model(4.0, "a"), band_model(0.4, "b"), band_model(1.0, "c")]
    predict_cases(cases, models, tmp_path / "together")
    for number, model in enumerate(models):
        predict_cases(cases, [model], tmp_path / str(number), save_probabilities=True)
    ensemble_folders([tmp_path / str(number) for number in range(3)], tmp_path / "joined")
    for name in ("case0", "case1"):
        together, joined = verdict(tmp_path / "together", name), verdict(tmp_path / "joined", name)
        for kind in ("predicted_dice", "expected_dice", "members_dice"):
            assert joined[kind] == pytest.approx(together[kind], abs=1.1e-4)
        assert joined["checks"] == together["checks"]
        assert joined["members"] == 3
    rows = {folder: [row["case"] for row in table(tmp_path / folder)] for folder in ("together", "joined")}
    assert sorted(rows["joined"]) == ["case0", "case1"]


def test_an_entropy_map_lies_as_its_image_and_says_what_the_probabilities_say(tmp_path):
    case = write_case(tmp_path, "case", 4)
    (mask,) = predict_cases(
        [case], [band_model(1.0)], tmp_path / "out", save_entropy=True, save_probabilities=True
    )
    image = nibabel.load(tmp_path / "out" / "entropy" / "case_entropy.nii.gz")
    assert image.get_data_dtype() == np.uint8
    found = image.get_fdata().T
    np.testing.assert_allclose(found, entropy(probabilities(tmp_path / "out")), atol=0.51 / 255)
    assert 0.1 < found.max() <= 1
    np.testing.assert_array_equal(image.affine, nibabel.load(mask).affine)
    assert image.shape == nibabel.load(mask).shape


ONE_PIECE = Postprocessing(rules=tuple(KeepLargestOfLabel(label=name) for name in LABELS))


@pytest.mark.parametrize("coarse", [False, True], ids=["one plan", "two plans"])
@pytest.mark.parametrize("shape", [(3, 20, 40), (2, 3, 17, 40)], ids=["volume", "cine"])
def test_what_is_judged_is_the_mask_that_is_written(tmp_path, shape, coarse):
    """Noise falls apart into islands: the mask that keeps the largest is expected to miss most of what is probable."""
    case = write_case(tmp_path, "case", 6, shape)
    models = [band_model(2.0)]
    models += [band_model(2.0, "b", spacing_yx_mm=(2.5, 2.5), patch_size=(16, 16))] if coarse else []
    predict_cases([case], models, tmp_path / "raw")
    predict_cases([case], models, tmp_path / "one", postprocessing=ONE_PIECE)
    (path,) = predict_cases(
        [case], models, tmp_path / "saved", postprocessing=ONE_PIECE, save_probabilities=True
    )
    found = verdict(tmp_path / "one")
    assert found == verdict(tmp_path / "saved")
    mask = np.asarray(nibabel.load(path).dataobj).T.reshape(-1, *shape[-3:])
    names = [f"case_frame{t:03d}" if len(shape) == 4 else "case" for t in range(len(mask))]
    frames = [(probabilities(tmp_path / "saved", name), own) for name, own in zip(names, mask, strict=True)]
    for value, name in enumerate(LABELS, 1):
        by_hand = [
            2 * p[value][own == value].sum(dtype=float) / (p[value].sum(dtype=float) + (own == value).sum())
            for p, own in frames
        ]
        assert found["expected_dice"][name] == pytest.approx(min(by_hand), abs=6e-5)
    raw = verdict(tmp_path / "raw")["expected_dice"]
    assert any(found["expected_dice"][name] < raw[name] - 0.05 for name in LABELS)
    pieces = [check["value"] for check in found["checks"] if check["name"] == "one_component"]
    assert pieces and max(pieces) == 0


def test_every_frame_of_a_cine_has_its_entropy_and_the_worst_is_told(tmp_path):
    case = write_case(tmp_path, "cine", 5, (4, 3, 17, 40))
    predict_cases([case], [band_model(1.0)], tmp_path / "out", save_entropy=True, save_probabilities=True)
    found = nibabel.load(tmp_path / "out" / "entropy" / "cine_entropy.nii.gz").get_fdata().T
    lowest = np.ones(4)
    for t in range(4):
        p = probabilities(tmp_path / "out", f"cine_frame{t:03d}")
        np.testing.assert_allclose(found[t], entropy(p), atol=0.51 / 255)
        lowest = np.fmin(lowest, expected_dice(p, p.argmax(0).astype(np.uint8)))
    quality = verdict(tmp_path / "out", "cine")
    for value, name in enumerate(LABELS, 1):
        assert quality["predicted_dice"][name] == pytest.approx(lowest[value], abs=6e-5)
    assert all(reason.startswith("frame ") for reason in quality["reasons"])


def test_resuming_ends_with_the_same_files_and_makes_what_is_missing(tmp_path):
    cases = [write_case(tmp_path, f"case{i}", i) for i in range(3)]
    predict_cases(cases, [band_model(1.0)], tmp_path / "whole", save_entropy=True)
    out = tmp_path / "resumed"
    predict_cases(cases[:2], [band_model(1.0)], out)
    assert not (out / "entropy").exists()
    predict_cases(cases[:1], [band_model(1.0)], out, save_entropy=True, resume=True)
    (out / "entropy" / "case0_entropy.nii.gz").write_bytes(b"damaged")
    predict_cases(cases, [band_model(1.0)], out, save_entropy=True, resume=True)
    names = sorted(
        path.relative_to(out).as_posix()
        for path in out.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    )
    assert "entropy/case2_entropy.nii.gz" in names
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    before = (out / "case0.nii.gz").stat().st_mtime_ns
    predict_cases(cases, [band_model(1.0)], out, save_entropy=True, resume=True)
    assert (out / "case0.nii.gz").stat().st_mtime_ns == before
    predict_cases(cases[:1], [band_model(3.0)], out)  # another mask: the old map is not its own
    assert not (out / "entropy" / "case0_entropy.nii.gz").exists()


def test_the_log_names_the_cases_to_look_at_and_the_table_says_why(tmp_path, caplog):
    cases = [write_case(tmp_path, f"case{i}", i) for i in range(3)]
    predict_cases(cases, [band_model(50.0)], tmp_path / "out")
    assert "3 of 3 cases should be looked at: case0, case1, case2" in caplog.text  # noise is no heart
    rows = table(tmp_path / "out")
    assert {row["flagged"] for row in rows} == {"yes"}
    assert all("expected" in row["reasons"] for row in rows)
    caplog.clear()
    masks = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.nii.gz")}
    predict_cases(cases, [band_model(50.0)], tmp_path / "out", quality=ANYTHING)
    assert "looked at" not in caplog.text
    assert {row["flagged"] for row in table(tmp_path / "out")} == {"no"}
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.nii.gz")} == masks
