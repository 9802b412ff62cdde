"""Preprocessing against independent oracles (SimpleITK, numpy in float64), and joined with its inverse."""

import json
import pickle
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rawfiles import make_heart
from scipy import ndimage

from preprocess.made import LABELS, dice, make_loaded, make_preprocessing, one_hot
from utseg.errors import InputError
from utseg.preprocess import case as preprocessing
from utseg.preprocess.case import (
    CaseProperties,
    preprocess_case,
    resample_image,
    resample_label,
    restore_labels,
    restore_probabilities,
    target_size,
)
from utseg.rawdata.geometry import as_affine
from utseg.rawdata.ways import ARRANGEMENTS, AS_IT_LIES, Way

sizes = st.tuples(st.integers(1, 5), st.integers(14, 60), st.integers(14, 60))
spacings = st.floats(0.7, 2.2)


def itk_resampled(image_ZYX, size_yx, interpolator):
    """Slice by slice, fields of view edge on edge: what `resample_image` must equal inside the outermost centres."""
    import SimpleITK

    scale = [old / new for old, new in zip(image_ZYX.shape[1:], size_yx, strict=True)]
    result = []
    for image_YX in image_ZYX:
        resample = SimpleITK.ResampleImageFilter()
        resample.SetInterpolator(interpolator)
        resample.UseNearestNeighborExtrapolatorOn()
        resample.SetSize(size_yx[::-1])
        resample.SetOutputSpacing(scale[::-1])
        resample.SetOutputOrigin([factor / 2 - 0.5 for factor in scale[::-1]])
        result.append(SimpleITK.GetArrayFromImage(resample.Execute(SimpleITK.GetImageFromArray(image_YX))))
    return np.stack(result)


@settings(max_examples=25, deadline=None)
@given(size=sizes, spacing=st.tuples(st.floats(1, 10), spacings, spacings), target=spacings)
def test_grids_cover_the_same_field_of_view_and_come_back_exactly(size, spacing, target):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, size).astype(np.uint8)
    loaded = make_loaded(rng.normal(100, 20, size), label, spacing)
    done = preprocess_case(loaded, make_preprocessing(spacing_yx_mm=(target, target)))
    for old, new, mm in zip(size[1:], done.label_ZYX.shape[1:], spacing[1:], strict=True):
        assert abs(new * target - old * mm) <= target / 2 + 2e-3 * old * mm
    assert done.image_CZYX.shape[1:] == done.label_ZYX.shape == done.properties.size_zyx
    assert done.image_CZYX.dtype == np.float32 and done.label_ZYX.dtype == np.uint8
    assert np.isfinite(done.image_CZYX).all()
    assert set(np.unique(done.label_ZYX)) <= set(np.unique(label))
    mask = restore_labels(one_hot(done.label_ZYX), done.properties)
    assert mask.shape == size and mask.dtype == np.uint8
    assert set(np.unique(mask)) <= set(np.unique(done.label_ZYX))


@settings(max_examples=15, deadline=None)
@given(
    size=st.tuples(st.just(1), st.integers(90, 140), st.integers(90, 140)),
    spacing=st.tuples(spacings, spacings),
    factor=st.floats(0.5, 1.1),
)
def test_the_inverse_gives_the_label_map_back(size, spacing, factor):
    _, label = make_heart(size)
    target = tuple(value * factor for value in spacing)
    loaded = make_loaded(np.random.default_rng(0).normal(0, 1, size), label, (8.0, *spacing))
    done = preprocess_case(loaded, make_preprocessing(spacing_yx_mm=target))
    mask = restore_labels(one_hot(done.label_ZYX), done.properties)
    assert all(dice(mask, label, value) >= 0.97 for value in (1, 2, 3))


@settings(max_examples=25, deadline=None)
@given(
    size=sizes,
    spacing=st.tuples(spacings, spacings),
    target=spacings,
    turn=st.sampled_from(ARRANGEMENTS),
    scale=st.booleans(),
)
def test_a_turned_scan_is_seen_as_the_training_scans_and_comes_back_as_it_lies(
    size, spacing, target, turn, scale
):
    rng = np.random.default_rng(0)
    image, label = rng.normal(100, 20, size).astype(np.float32), rng.integers(0, 4, size).astype(np.uint8)
    plan = make_preprocessing(
        spacing_yx_mm=(target, target) if scale else spacing,
        ways=(Way(y=(0, 1, 0), x=(1, 0, 0)),),
        clip_percentiles=(0, 100),
    )
    expected = preprocess_case(make_loaded(image, label, (8.0, *spacing)), plan)
    assert expected.properties.arrangement == AS_IT_LIES
    copy = make_loaded(
        *(copied(array, turn) for array in (image, label)), (8.0, *(spacing[::-1] if turn.swap else spacing))
    )
    y, x = ((0, 1, 0), (1, 0, 0))
    y, x = ([-v for v in y] if turn.flip_y else y), ([-v for v in x] if turn.flip_x else x)
    y, x = (x, y) if turn.swap else (y, x)
    lps = np.array([[*x], [*y], [0, 0, 1]], float).T * copy.geometry.spacing_zyx_mm[::-1]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = lps, (11, 12, 13)
    copy = replace(copy, geometry=replace(copy.geometry, affine=as_affine(matrix)))
    done = preprocess_case(copy, plan)
    assert (done.properties.arrangement == AS_IT_LIES) is (turn == AS_IT_LIES)
    np.testing.assert_allclose(done.image_CZYX, expected.image_CZYX, atol=1e-4)
    assert np.array_equal(done.label_ZYX, expected.label_ZYX)
    probabilities = one_hot(expected.label_ZYX)
    mask = restore_labels(probabilities, expected.properties)
    assert np.array_equal(restore_labels(probabilities, done.properties), copied(mask, turn))
    smooth = restore_probabilities(probabilities, done.properties)
    native = restore_probabilities(probabilities, expected.properties)
    np.testing.assert_allclose(smooth, copied(native, turn), atol=1e-6)
    assert CaseProperties.model_validate(done.properties.model_dump(mode="json")) == done.properties


def copied(array, turn):
    """What a file holds whose slices become `array` once they are turned, by index and not by views."""
    height, width = array.shape[-2:]
    y, x = np.indices((height, width))
    y, x = (height - 1 - y if turn.flip_y else y), (width - 1 - x if turn.flip_x else x)
    found = array[..., y, x]
    return np.einsum("...yx->...xy", found) if turn.swap else found


def test_a_grid_that_fits_is_left_alone_voxel_for_voxel():
    rng = np.random.default_rng(0)
    image, label = rng.normal(0, 1, (3, 20, 30)), rng.integers(0, 4, (3, 20, 30)).astype(np.uint8)
    loaded = make_loaded(image, label, (8.0, 1.4009, 1.3991))
    done = preprocess_case(loaded, make_preprocessing(clip_percentiles=(0, 100)))
    assert np.array_equal(done.label_ZYX, label)
    scale = done.properties.normalisation[0]
    assert np.allclose(done.image_CZYX[0] * scale.sd + scale.mean, image, atol=1e-6)
    probabilities = rng.random((4, 3, 20, 30), dtype=np.float32)
    assert np.array_equal(restore_probabilities(probabilities, done.properties), probabilities)


@pytest.mark.parametrize("new", [(40, 61), (80, 100)])
def test_cubic_resampling_equals_that_of_simpleitk(new):
    import SimpleITK

    image = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 1, (2, 40, 50)), (0, 1, 1)).astype(
        np.float32
    )
    expected = itk_resampled(image, new, SimpleITK.sitkBSpline)
    inside = slice(None), slice(2, -2), slice(2, -2)
    assert np.allclose(resample_image(image, new)[inside], expected[inside], atol=2e-5)


def test_probabilities_come_back_as_simpleitk_interpolates_them():
    import SimpleITK

    probabilities = np.random.default_rng(0).random((3, 2, 40, 50), dtype=np.float32)
    properties = CaseProperties(
        native_size_zyx=(2, 57, 44), size_zyx=(2, 40, 50), normalisation=(), geometry={}
    )
    expected = np.stack([itk_resampled(each, (57, 44), SimpleITK.sitkLinear) for each in probabilities])
    restored = restore_probabilities(probabilities, properties)
    assert np.allclose(restored, expected, atol=1e-5)
    assert np.array_equal(restore_labels(probabilities, properties), restored.argmax(0))


def test_resampling_keeps_position():
    """The centre of mass of a blob stays where it is, in millimetres from the edge of the field of view."""
    y, x = np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5, indexing="ij")
    blob = np.exp(-((y - 30.2) ** 2 + (x - 25.7) ** 2) / 60).astype(np.float32)[np.newaxis]
    for size in ((40, 30), (53, 91), (133, 77)):
        moved = resample_image(blob, size)[0].astype(np.float64)
        rows, columns = moved.sum(1), moved.sum(0)
        assert abs((rows @ (np.arange(size[0]) + 0.5)) / rows.sum() * 80 / size[0] - 30.2) < 0.02
        assert abs((columns @ (np.arange(size[1]) + 0.5)) / columns.sum() * 60 / size[1] - 25.7) < 0.02


def test_anti_aliasing_takes_away_what_the_coarser_grid_cannot_hold():
    stripes = np.tile(np.array([1, -1], dtype=np.float32), 40) * np.ones((1, 80, 1), dtype=np.float32)
    assert resample_image(stripes, (80, 30))[:, :, 2:-2].std() < 0.35
    waves = np.sin(np.arange(80) * 2 * np.pi / 20).astype(np.float32) * np.ones((1, 80, 1), dtype=np.float32)
    assert resample_image(waves, (80, 30)).std() > 0.93 * waves.std()


def test_values_are_clipped_after_resampling_and_normalised_per_volume_and_channel():
    rng = np.random.default_rng(1)
    image = rng.gamma(2, 50, (2, 3, 41, 37)).astype(np.float32) * [[[[1]]], [[[7]]]] + 1000
    loaded = make_loaded(image, None, (8.0, 1.5, 1.25))
    plan = make_preprocessing(channel_names=("a", "b"))
    done = preprocess_case(loaded, plan)
    assert done.label_ZYX is None
    for channel, values in enumerate(done.image_CZYX):
        resampled = resample_image(loaded.image_CZYX[channel], values.shape[1:]).astype(np.float64)
        low, high = np.percentile(resampled, (5, 98))
        clipped = np.clip(resampled, low, high)
        assert np.allclose(values, (clipped - clipped.mean()) / clipped.std(), atol=1e-3)
        assert abs(values.mean()) < 1e-4 and abs(values.std() - 1) < 1e-4
        recorded = done.properties.normalisation[channel]
        assert np.allclose(
            (recorded.lower, recorded.upper, recorded.mean, recorded.sd),
            (low, high, clipped.mean(), clipped.std()),
            rtol=1e-4,
        )


@pytest.mark.parametrize("value", [0.0, 1000.0, -3.7e5, 1e-20])
@pytest.mark.parametrize("bright", [0, 30])
def test_an_image_without_variance_becomes_zeros_never_nan(value, bright):
    image = np.full((3, 33, 35), value, dtype=np.float32)
    image.reshape(-1)[:bright] += 50
    plan = make_preprocessing(clip_percentiles=(5, 95))
    done = preprocess_case(make_loaded(image, None), plan)
    assert np.isfinite(done.image_CZYX).all()
    if not bright:
        assert not done.image_CZYX.any() and done.properties.normalisation[0].sd == 0


def test_a_label_on_a_border_stays_there():
    label = np.zeros((1, 40, 40), dtype=np.uint8)
    label[:, :, :20] = 2
    assert np.array_equal(np.unique(resample_label(label, (30, 30))[0, :, :15]), [2])
    assert not resample_label(label, (30, 30))[0, :, 15:].any()


def test_a_spacing_that_no_scan_has_is_refused():
    loaded = make_loaded(np.random.default_rng(0).normal(0, 1, (2, 40, 40)), None, (8.0, 0.0014, 0.0014))
    with pytest.raises(InputError, match=r"case s00_ED.*40 × 40 pixels at 0\.0014.*spacing in the file"):
        preprocess_case(loaded, make_preprocessing())
    loaded = make_loaded(np.random.default_rng(0).normal(0, 1, (2, 40, 40)), None, (8.0, 500.0, 500.0))
    with pytest.raises(InputError, match="expected 4 to 8192"):
        preprocess_case(loaded, make_preprocessing())


def test_properties_go_to_other_processes_and_into_json():
    done = preprocess_case(make_loaded(), make_preprocessing())
    properties = done.properties
    assert pickle.loads(pickle.dumps(properties)) == properties  # noqa: S301 — our own object
    assert CaseProperties.model_validate(json.loads(properties.model_dump_json())) == properties
    with pytest.raises(ValueError, match="expected"):
        restore_labels(np.zeros((4, 1, 2, 3), dtype=np.float32), properties)


def test_sizes_round_to_the_nearest_and_are_at_least_one():
    assert target_size((216, 256), (1.5, 1.5), (1.2, 1.2)) == (270, 320)
    assert target_size((1, 10), (1.0, 1.0), (4.0, 0.999)) == (1, 10)


def test_restoring_a_volume_is_quick():
    properties = CaseProperties(
        native_size_zyx=(10, 224, 258), size_zyx=(10, 216, 250), normalisation=(), geometry={}
    )
    probabilities = np.random.default_rng(0).random((4, 10, 216, 250), dtype=np.float32)
    restore_labels(probabilities, properties)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        restore_labels(probabilities, properties)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.6  # about .03 s of one core; the margin is for busy machines


def test_real_scans_come_back(shared: Path):
    from utseg.rawdata import open_dataset
    from utseg.rawdata.gate import read_case

    dataset = open_dataset(shared / "data" / "raw" / "ACDC", "ACDC")
    for case in dataset.training_cases()[::24]:
        loaded = read_case(case, dataset.labels)
        for target in (1.2, 1.48):
            done = preprocess_case(loaded, make_preprocessing(spacing_yx_mm=(target, target)))
            mask = restore_labels(one_hot(done.label_ZYX), done.properties)
            found = {name: dice(mask, loaded.label_ZYX, value) for name, value in LABELS.items() if value}
            assert min(found.values()) >= 0.97, (case.case_id, target, found)


def test_weights_are_remembered_up_to_so_many_bytes_or_one(monkeypatch):
    made = []

    def make(old, new):
        made.append(old)
        return np.zeros((new, old), np.float32)

    monkeypatch.setattr(preprocessing, "MOST_REMEMBERED", 4 * 10 * (20 + 30))
    weights = preprocessing._remembered(make)
    shapes = [weights(old, 10).shape for old in (20, 30, 20, 40, 30, 5000, 5000)]
    assert shapes == [(10, old) for old in (20, 30, 20, 40, 30, 5000, 5000)]
    assert made == [20, 30, 40, 30, 5000]
    assert weights(10, 10) is None


def test_a_z_score_of_nonzero_voxels_leaves_the_others_at_zero():
    rng = np.random.default_rng(5)
    image = np.zeros((2, 3, 40, 37), dtype=np.float32)
    image[:, :, 5:25, 8:30] = rng.normal(300, 40, (2, 3, 20, 22))
    image[0, :, 12:14, 12:14] = image[1, :, 12, 12:14] = (
        0  # a hole belongs to what is around it, and so does the other channel's
    )
    inside = np.zeros(image.shape[1:], dtype=bool)
    inside[:, 5:25, 8:30] = True
    plan = make_preprocessing(
        channel_names=("a", "b"), normalisation=("z-score-nonzero", "z-score"), spacing_yx_mm=(1.5, 1.25)
    )
    got = preprocess_case(make_loaded(image, None), plan).image_CZYX
    for channel, of in enumerate((inside, np.ones_like(inside))):
        voxels = image[channel][of].astype(np.float64)
        clipped = np.clip(voxels, *np.percentile(voxels, (5, 98)))
        np.testing.assert_allclose(got[channel][of], (clipped - clipped.mean()) / clipped.std(), atol=1e-4)
    assert not got[0][~inside].any() and inside.sum() < inside.size / 2
