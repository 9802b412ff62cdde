"""The official UTNet's scores, against SimpleITK's resampling and surface-distance as its code uses them."""

import numpy as np
import pytest

from utseg.evaluate.official import official_grid, official_means, official_utnet_scores

LABELS = {"background": 0, "LV": 1, "MYO": 2}


def resampled(label, spacing):
    """As its preprocessing does it, then its padding and centre crop."""
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(label)
    image.SetSpacing(spacing[::-1])
    size = [
        round(n * s / t)
        for n, s, t in zip(image.GetSize(), spacing[::-1], (1.2, 1.2, spacing[0]), strict=True)
    ]
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetSpacing((1.2, 1.2, spacing[0]))
    array = sitk.GetArrayFromImage(
        sitk.Resample(image, grid, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor)
    )
    for axis in (1, 2):
        if array.shape[axis] < 256:
            beside = [(0, 0)] * 3
            beside[axis] = ((266 - array.shape[axis]) // 2,) * 2
            array = np.pad(array, beside)
    top, left = ((n - 256) // 2 for n in array.shape[1:])
    return array[:, top : top + 256, left : left + 256]


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((3, 200, 256), (8.0, 1.37, 1.37)),
        ((2, 300, 180), (10.0, 0.98, 1.63)),
        ((2, 216, 214), (5.0, 1.2, 1.1979)),
        ((2, 400, 250), (8.0, 1.25, 1.3)),
    ],
)
def test_the_grid_is_that_of_its_preprocessing(shape, spacing):
    label = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    found = official_grid(label, spacing)
    assert found.shape == (shape[0], 256, 256)
    assert np.array_equal(found, resampled(label, spacing))


def test_scores_as_its_code_has_them():
    tool = pytest.importorskip("surface_distance")
    spacing = (8.0, 1.37, 1.37)
    reference, prediction = np.zeros((2, 4, 220, 220), np.uint8)
    reference[1:3, 60:110, 70:120] = 1
    reference[1:3, 80:95, 85:100] = 2
    prediction[0:3, 64:112, 70:118] = 1
    prediction[1:3, 82:95, 88:100] = 2
    prediction[1, 80:84, 10:14] = 2  # a far island: the maximum sees it
    scores = official_utnet_scores(prediction, reference, spacing, LABELS)
    on_grid = resampled(reference, spacing), resampled(prediction, spacing)
    for name in ("LV", "MYO"):
        masks = [label == LABELS[name] for label in on_grid]
        found = tool.compute_surface_distances(*masks, (8.0, 1.2, 1.2))
        assert scores[name]["official_hd_mm"] == pytest.approx(tool.compute_robust_hausdorff(found, 100))
        average = sum(tool.compute_average_surface_distance(found)) / 2
        assert scores[name]["official_asd_mm"] == pytest.approx(average)
        assert scores[name]["official_dice"] == pytest.approx(tool.compute_dice_coefficient(*masks))
    assert scores["MYO"]["official_hd_mm"] > 80


def test_empty_structures_count_as_the_worst():
    empty, full = np.zeros((2, 3, 60, 60), np.uint8)
    full[1, 20:30, 20:30] = 1
    for pair in ((empty, empty), (empty, full), (full, empty)):
        scores = official_utnet_scores(*pair, (8.0, 1.2, 1.2), {"LV": 1})["LV"]
        assert scores == {"official_dice": 0, "official_asd_mm": 500, "official_hd_mm": 500}
    perfect = official_utnet_scores(full, full, (8.0, 1.2, 1.2), {"LV": 1})["LV"]
    assert perfect["official_dice"] == pytest.approx(1) and perfect["official_hd_mm"] == 0
    rows = [{"case": "a", "label_name": "LV", **scores}, {"case": "b", "label_name": "LV", **perfect}]
    means = official_means(rows)["labels"]["LV"]
    assert means["official_hd_mm"] == 250 and means["worst_distances"] == 1


def test_what_lies_outside_the_crop_is_not_scored():
    reference = np.zeros((1, 400, 400), np.uint8)
    reference[0, 190:210, 190:210] = 1
    prediction = reference.copy()
    prediction[0, 2:6, 2:6] = 1
    assert (
        official_utnet_scores(prediction, reference, (8.0, 1.2, 1.2), {"LV": 1})["LV"]["official_hd_mm"] == 0
    )
