"""Measures of images: they find what was changed, do not see the scanner's units, and are not taken twice."""

from dataclasses import replace

import numpy as np
import pytest
from rawfiles import LABELS, make_nifti

from utseg.case import Case, Dataset
from utseg.compute.pool import InlineExecutor
from utseg.errors import CaseErrors
from utseg.study.images import (
    channel_features,
    features_of,
    kind_of,
    noise,
    read_images,
    spacing_features,
    write_images,
)

SPACING = (8.0, 1.5, 1.5)


def label_and_image(seed=0):
    label = np.zeros((4, 40, 36), np.uint8)
    label[1:3, 8:16, 8:16] = LABELS["LV"]
    label[1:3, 20:30, 8:16] = LABELS["MYO"]
    label[1:3, 20:30, 22:30] = LABELS["RV"]
    levels = np.zeros(max(LABELS.values()) + 1)
    levels[[LABELS[name] for name in ("LV", "MYO", "RV")]] = 300, 100, 260
    image = 50 + levels[label] + np.random.default_rng(seed).normal(0, 5, label.shape)
    return label, image.astype(np.float32)


def test_a_linear_change_of_intensities_changes_raw_features_only():
    label, image = label_and_image()
    before = channel_features(image, label, SPACING, LABELS)
    after = channel_features(3 * image + 200, label, SPACING, LABELS)
    for name in before:
        same = after[name] == pytest.approx(before[name], rel=1e-3, abs=1e-3)
        assert same is (kind_of(name) != "raw"), name


def test_contrast_is_the_difference_of_the_labels_in_standard_deviations():
    label, image = label_and_image()
    found = channel_features(image, label, SPACING, LABELS)
    sd = image.astype(float).std()
    assert found["contrast_LV_MYO"] == pytest.approx(200 / sd, rel=0.02)
    assert found["contrast_LV_RV"] == pytest.approx(40 / sd, rel=0.05)


def test_noise_is_found_beside_structure():
    image = label_and_image()[1]
    assert noise(image) == pytest.approx(5, rel=0.6)  # edges of the structures are in it too
    flat = np.random.default_rng(1).normal(100, 7, (6, 60, 60)).astype(np.float32)
    assert noise(flat) == pytest.approx(7, rel=0.05)
    assert noise(np.full((3, 10, 10), 4, np.float32)) == 0
    assert np.isnan(noise(flat[:, :2]))


def test_blur_lowers_sharpness_and_missing_labels_are_undefined():
    from scipy.ndimage import gaussian_filter

    label, image = label_and_image()
    names = "texture_sharpness_per_mm", "texture_noise"
    sharp, blurred = (
        channel_features(own, label, SPACING, LABELS)
        for own in (image, gaussian_filter(image, (0, 1.5, 1.5)))
    )
    assert all(blurred[name] < 0.8 * sharp[name] for name in names)
    label[label == LABELS["RV"]] = 0
    lacking = channel_features(image, label, SPACING, LABELS)
    assert np.isnan(lacking["contrast_LV_RV"]) and np.isfinite(lacking["contrast_LV_MYO"])
    assert (
        all(np.isnan(value) for value in channel_features(image, 0 * label, SPACING, LABELS).values())
        is False
    )


def test_spacing_features_are_in_mm():
    assert spacing_features((10, 200, 100), (8, 2, 0.5)) == pytest.approx(
        {"spacing_z_mm": 8, "spacing_yx_mm": 1, "spacing_field_mm": np.sqrt(200 * 100)}
    )


def datasets(folder):
    cases = []
    for seed, name in enumerate(("a", "b")):
        label, image = label_and_image(seed)
        make_nifti(folder / f"{name}_0000.nii.gz", image.astype(np.int16))
        make_nifti(folder / f"{name}.nii.gz", label)
        files = (folder / f"{name}_0000.nii.gz",), folder / f"{name}.nii.gz"
        cases.append(Case(name, f"subject {name}", *files, phase="ED", groups={"vendor": name.upper()}))
    first = Dataset("one", folder, "nnunet", ("MR",), {"background": 0, **LABELS}, tuple(cases))
    other = replace(cases[0], case_id="c", groups={"centre": "1", "vendor": "C"})
    unlabelled = replace(cases[0], case_id="d", label=None)
    return [first, replace(first, name="two", cases=(other, unlabelled))]


def test_what_is_written_is_read_back_and_not_measured_again(tmp_path, monkeypatch):
    own = datasets(tmp_path / "raw")
    rows = write_images(own, tmp_path / "images.csv", InlineExecutor())
    assert [(row["dataset"], row["case"]) for row in rows] == [("one", "a"), ("one", "b"), ("two", "c")]
    back = read_images(tmp_path / "images.csv")
    assert features_of(back) == features_of(rows) and "centre" not in features_of(back)
    assert {kind_of(name) for name in features_of(rows)} == {
        "spacing",
        "intensity",
        "contrast",
        "texture",
        "raw",
    }
    for row, again in zip(rows, back, strict=True):
        for name in features_of(rows):
            assert again[name] == pytest.approx(row[name], rel=1e-5)

    def refuse(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr("utseg.study.images.channel_features", refuse)
    again = write_images(own, tmp_path / "images.csv", InlineExecutor())
    assert [row["vendor"] for row in again] == ["A", "B", "C"]
    make_nifti(tmp_path / "raw" / "b_0000.nii.gz", label_and_image(9)[1].astype(np.int16))
    with pytest.raises(AssertionError, match="measured again"):
        write_images(own, tmp_path / "images.csv", InlineExecutor())


def test_every_damaged_case_has_its_line(tmp_path):
    own = datasets(tmp_path)
    for name in "ab":
        (tmp_path / f"{name}_0000.nii.gz").unlink()
    with pytest.raises(CaseErrors) as caught:
        write_images(own, tmp_path / "images.csv", InlineExecutor())
    assert len(caught.value.lines()) == 3 and all("_0000.nii.gz" in line for line in caught.value.lines())
