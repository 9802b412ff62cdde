"""A whole augmentation applied: pure, replayable, exact where it can be, defined where images are constant or small."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slice_source import EVERYTHING

from utseg.augment.apply import apply_augmentation
from utseg.augment.draw import Augmentation, draw_augmentation
from utseg.augment.intensity import add_noise, blur, change_gamma, change_intensity, lower_resolution


def made(shape: tuple[int, int] = (40, 52), channels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(9)
    image = rng.standard_normal((channels, *shape)).astype(np.float32)
    label = np.zeros(shape, np.uint8)
    label[10:22, 12:30] = 1
    label[14:18, 16:24] = 2
    image.flags.writeable = label.flags.writeable = False
    return image, label


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), patch=st.tuples(st.integers(1, 80), st.integers(1, 80)))
def test_pure_replayable_and_of_the_patch_size(seed: int, patch: tuple[int, int]) -> None:
    image, label = made()
    before = image.copy(), label.copy()
    augmentation = draw_augmentation(np.random.default_rng(seed), EVERYTHING)
    partner = made((36, 60))[0] ** 3
    replayed = Augmentation(**json.loads(json.dumps(asdict(augmentation))))
    results = [
        apply_augmentation(each, image, label, patch_size=patch, center_yx=(20, 26), style_CHW=partner)
        for each in (augmentation, replayed)
    ]
    for first, again in zip(*results, strict=True):
        np.testing.assert_array_equal(first, again)
    got_image, got_label = results[0]
    assert got_image.shape == (2, *patch) and got_image.dtype == np.float32 and np.isfinite(got_image).all()
    assert got_label.shape == patch and got_label.dtype == np.uint8
    assert set(np.unique(got_label)) <= {0, 1, 2}
    for now, then in zip((image, label), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_no_augmentation_gives_the_slice_itself() -> None:
    image, label = made()
    got_image, got_label = apply_augmentation(
        Augmentation(), image, label, patch_size=label.shape, center_yx=(20, 26)
    )
    np.testing.assert_array_equal(got_image, image)
    np.testing.assert_array_equal(got_label, label)
    assert not np.shares_memory(got_image, image)


@pytest.mark.parametrize(("mirror_y", "mirror_x"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("shape", [(40, 52), (41, 51)])
def test_mirroring_is_exact_and_the_same_with_and_without_interpolation(
    mirror_y: bool, mirror_x: bool, shape: tuple[int, int]
) -> None:
    image, label = made(shape)
    window = {"patch_size": (30, 36), "center_yx": (19, 25)}
    plain = apply_augmentation(Augmentation(), image, label, **window)
    axes = tuple(axis for axis, flip in ((-2, mirror_y), (-1, mirror_x)) if flip)
    mirrored = apply_augmentation(Augmentation(mirror_y=mirror_y, mirror_x=mirror_x), image, label, **window)
    whole_turn = Augmentation(mirror_y=mirror_y, mirror_x=mirror_x, rotation_deg=360.0)
    warped = apply_augmentation(whole_turn, image, label, **window)
    for before, exact, interpolated in zip(plain, mirrored, warped, strict=True):
        np.testing.assert_array_equal(exact, np.flip(before, axes))
        np.testing.assert_allclose(interpolated, exact, atol=1e-3)


@pytest.mark.parametrize("rotation_deg", [0.0, 25.0])
def test_the_padding_changes_with_the_slice(rotation_deg: float) -> None:
    image, label = made(channels=1)
    augmentation = Augmentation(rotation_deg=rotation_deg, brightness=0.4, contrast=0.8, gamma=1.3)
    got, _ = apply_augmentation(augmentation, image, label, patch_size=(120, 120), center_yx=(20, 26))
    assert got[0, 0, 0] == got.min()


def test_brightness_contrast_and_noise_are_what_they_say() -> None:
    image, _ = made()
    np.testing.assert_array_equal(
        change_intensity(Augmentation(brightness=0.25), image.copy()), image + np.float32(0.25)
    )
    mean = image.mean(axis=(1, 2), keepdims=True)
    weaker = change_intensity(Augmentation(contrast=0.5), image.copy())
    np.testing.assert_allclose(weaker, (image - mean) * 0.5 + mean, atol=1e-5)
    stronger = change_intensity(Augmentation(contrast=2.0), image.copy())
    assert stronger.min() == image.min() and stronger.max() == image.max()
    noisy = np.zeros((1, 200, 200), np.float32)
    add_noise(noisy, 0.3, seed=4)
    assert noisy.std() == pytest.approx(0.3, rel=0.02) and abs(noisy.mean()) < 0.01


def test_noise_and_brightness_are_in_units_of_each_channel_and_its_slices_alike() -> None:
    image, units = np.zeros((6, 90, 80), np.float32), (1.0, 40.0)
    got = change_intensity(
        Augmentation(noise_sd=0.1, noise_seed=3, brightness=0.5), image.copy(), slices=3, unit_C=units
    )
    for channel, values in enumerate(got):
        unit = units[channel // 3]
        assert values.std() == pytest.approx(0.1 * unit, rel=0.05)
        assert values.mean() == pytest.approx(0.5 * unit, rel=0.02)


def test_blur_is_a_gaussian_of_that_width_in_mm() -> None:
    spacing = (0.5, 0.8)
    point = np.zeros((1, 61, 51), np.float32)
    point[0, 30, 25] = 1
    blur(point, 1.6, spacing)
    assert point.sum() == pytest.approx(1, abs=1e-4)
    for axis, size, step in ((1, 61, spacing[0]), (0, 51, spacing[1])):
        places_mm = (np.arange(size) - size // 2) * step
        width = np.sqrt((point[0].sum(axis) * places_mm**2).sum())
        assert width == pytest.approx(1.6, rel=0.03)


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0.3, 1), shape=st.tuples(st.integers(1, 50), st.integers(1, 50)))
def test_a_lower_resolution_loses_detail_only(share: float, shape: tuple[int, int]) -> None:
    y, x = np.mgrid[: shape[0], : shape[1]]
    slope = (0.5 * y - 0.2 * x)[None].astype(np.float32)
    coarse = slope.copy()
    lower_resolution(coarse, share)
    inner = tuple(slice(int(3 / share), side - int(3 / share)) for side in shape)
    assert coarse.shape == slope.shape and np.abs(coarse - slope)[0][inner].max(initial=0) < 0.5 / share
    noise = np.random.default_rng(1).standard_normal((2, 64, 64)).astype(np.float32)
    rough = noise.std()
    lower_resolution(noise, 0.4)
    assert noise.std() < 0.6 * rough and abs(noise.mean()) < 0.02


@settings(max_examples=30, deadline=None)
@given(gamma=st.floats(0.5, 2), inverted=st.booleans())
def test_gamma_keeps_order_mean_and_deviation(gamma: float, inverted: bool) -> None:
    image = made()[0] ** 3
    bent = image.copy()
    change_gamma(bent, gamma, inverted=inverted)
    for before, after in zip(image, bent, strict=True):
        assert (np.diff(after.ravel()[np.argsort(before.ravel())]) >= -1e-5).all()
        assert after.mean() == pytest.approx(before.mean(), abs=1e-3)
        assert after.std() == pytest.approx(before.std(), rel=1e-3)


def test_gamma_above_one_darkens_the_middle_and_inverted_brightens_it() -> None:
    ramp = np.linspace(0, 1, 101, dtype=np.float32).reshape(1, 1, 101)
    plain, inverted = ramp.copy(), ramp.copy()
    change_gamma(plain, 2.0, inverted=False)
    change_gamma(inverted, 2.0, inverted=True)

    def relative_middle(image: np.ndarray) -> float:
        return float((image[0, 0, 50] - image.min()) / np.ptp(image))

    assert relative_middle(plain) == pytest.approx(0.25, abs=1e-3)
    assert relative_middle(inverted) == pytest.approx(0.75, abs=1e-3)


def test_a_constant_slice_stays_finite() -> None:
    image, label = np.full((1, 20, 20), 1.5, np.float32), np.zeros((20, 20), np.uint8)
    augmentation = Augmentation(rotation_deg=10, scale=1.1, contrast=1.4, gamma=0.7, brightness=0.1)
    got, _ = apply_augmentation(augmentation, image, label, patch_size=(30, 30), center_yx=(10, 10))
    np.testing.assert_allclose(got, 1.6, atol=1e-6)
