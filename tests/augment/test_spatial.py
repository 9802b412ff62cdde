"""Geometry of the patch: exact where nothing interpolates, physical where something does, image and label always together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from utseg.augment.spatial import crop_or_pad, patch_start, pixel_matrix, warp

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def blob(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A smooth image (1, H, W), its minimum not 0."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    return (10 * ndimage.gaussian_filter(noise, 3)[None] + 5).astype(np.float32)


def middle(shape: tuple[int, int]) -> tuple[int, int]:
    return shape[0] // 2, shape[1] // 2


def turned(
    image: np.ndarray,
    label: np.ndarray,
    degrees: float,
    spacing: tuple[float, float] = (1.0, 1.0),
    scale: float = 1.0,
    patch: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    size = patch or label.shape
    return warp(
        image, label, pixel_matrix(degrees, scale, spacing), patch_start(middle(label.shape), size), size
    )


@settings(deadline=None)
@given(shape=sizes, patch=sizes, data=st.data())
def test_a_crop_is_the_slice_at_shifted_places_and_background_elsewhere(
    shape: tuple[int, int], patch: tuple[int, int], data: st.DataObject
) -> None:
    start = [data.draw(st.integers(1 - p, s - 1)) for s, p in zip(shape, patch, strict=True)]
    rng = np.random.default_rng(0)
    image = rng.standard_normal((2, *shape)).astype(np.float32)
    label = rng.integers(1, 4, shape, dtype=np.uint8)
    got_image, got_label = crop_or_pad(image, label, (start[0], start[1]), patch)
    y, x = np.mgrid[: patch[0], : patch[1]] + np.reshape(start, (2, 1, 1))
    inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
    places = np.clip(y, 0, shape[0] - 1), np.clip(x, 0, shape[1] - 1)
    np.testing.assert_array_equal(got_label, np.where(inside, label[places], 0))
    for channel in range(2):
        expected = np.where(inside, image[channel][places], image[channel].min())
        np.testing.assert_array_equal(got_image[channel], expected)
    assert not np.shares_memory(got_image, image) and not np.shares_memory(got_label, label)


@pytest.mark.parametrize("shape", [(32, 32), (31, 31)])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_right_angle_is_rot90(shape: tuple[int, int], turns: int) -> None:
    image = np.random.default_rng(1).standard_normal((1, *shape)).astype(np.float32)
    label = np.random.default_rng(2).integers(0, 4, shape, dtype=np.uint8)
    got_image, got_label = turned(image, label, 90 * turns, spacing=(1.3, 1.3))
    np.testing.assert_allclose(got_image[0], np.rot90(image[0], turns), atol=1e-3)
    np.testing.assert_array_equal(got_label, np.rot90(label, turns))


@settings(max_examples=25, deadline=None)
@given(degrees=st.floats(-180, 180), scale=st.floats(0.6, 1.6), patch=sizes, spacing=st.floats(0.5, 2))
def test_agrees_with_an_independent_interpolation(
    degrees: float, scale: float, patch: tuple[int, int], spacing: float
) -> None:
    image, label = blob((40, 56)), np.zeros((40, 56), np.uint8)
    matrix = pixel_matrix(degrees, scale, (1.0, spacing))
    start = (3, 9)
    got, _ = warp(image, label, matrix, start, patch)
    center = (np.array(patch) - 1) / 2
    expected = ndimage.affine_transform(
        image[0] - image.min(),
        matrix,
        np.array(start) + center - matrix @ center,
        patch,
        order=1,
        mode="grid-constant",
    )
    np.testing.assert_allclose(got[0], expected + image.min(), atol=2e-3)


@pytest.mark.parametrize("shape", [(48, 48), (40, 64)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 1.6)])
def test_a_rotation_and_its_inverse_restore_the_middle(
    shape: tuple[int, int], spacing: tuple[float, float]
) -> None:
    image = blob(shape)
    label = np.zeros(shape, np.uint8)
    large = (2 * shape[0], 2 * shape[1])
    once, _ = turned(image, label, 35, spacing, patch=large)
    back, _ = turned(once, np.zeros(large, np.uint8), -35, spacing, patch=shape)
    inner = np.s_[0, 10:-10, 10:-10]
    assert np.abs(back[inner] - image[inner]).mean() < 0.03 * image[inner].std()


@pytest.mark.parametrize("degrees", [17.0, 45.0, 90.0, -130.0])
def test_a_disc_in_mm_stays_a_disc_on_anisotropic_pixels(degrees: float) -> None:
    spacing, shape = (2.0, 1.0), (40, 90)
    y, x = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing, strict=True))
    radius = np.hypot(y[:, None], x[None])
    disc = (radius < 25).astype(np.uint8)
    hill = np.exp(-((radius / 15) ** 2))[None].astype(np.float32)
    image, label = turned(hill, disc, degrees, spacing)
    assert 2 * (label & disc).sum() / (label.sum() + disc.sum()) > 0.975
    np.testing.assert_allclose(image, hill, atol=0.015)


@pytest.mark.parametrize("scale", [0.7, 1.4])
def test_scale_above_one_enlarges(scale: float) -> None:
    label = np.zeros((64, 80), np.uint8)
    label[24:40, 30:50] = 2
    _, scaled = turned(label[None].astype(np.float32), label, 0, scale=scale)
    assert (scaled == 2).sum() == pytest.approx(scale**2 * (label == 2).sum(), rel=0.08)


@settings(max_examples=40, deadline=None)
@given(
    degrees=st.floats(-180, 180),
    scale=st.floats(0.5, 2),
    spacing=st.floats(0.5, 2),
    patch=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    corner=st.tuples(st.integers(0, 36), st.integers(0, 46)),
)
def test_the_label_is_where_its_image_is(
    degrees: float,
    scale: float,
    spacing: float,
    patch: tuple[int, int],
    corner: tuple[int, int],
) -> None:
    label = np.zeros((37, 47), np.uint8)
    label[corner[0] : corner[0] + 12, corner[1] : corner[1] + 9] = 3
    image = (label == 3).astype(np.float32)[None]
    image[0, :, 0] -= 1e-6  # so that the background is the minimum even where the label fills the slice
    share, warped = turned(image, label, degrees, (1.0, spacing), scale, patch)
    clear = np.abs(share[0] - 0.5) > 1e-3
    np.testing.assert_array_equal(warped[clear], np.where(share[0] > 0.5, 3, 0)[clear])


def test_only_label_values_of_the_slice_appear() -> None:
    label = np.random.default_rng(5).choice(np.array([0, 1, 7, 250], np.uint8), (33, 47))
    _, warped = turned(np.zeros((1, 33, 47), np.float32), label, 23, scale=1.2)
    assert set(np.unique(warped)) <= {0, 1, 7, 250} and warped.dtype == np.uint8


def test_outside_is_the_background_of_each_channel() -> None:
    image = np.stack([np.full((8, 8), 3.0), np.full((8, 8), -2.0)]).astype(np.float32)
    image[0, 4, 4], image[1, 4, 4] = 9, 5
    warped, label = turned(image, np.full((8, 8), 2, np.uint8), 30, patch=(40, 40))
    np.testing.assert_allclose(warped[:, 0, 0], [3, -2])
    assert label[0, 0] == 0 and label[20, 20] == 2


def test_torch_reads_a_single_row_of_pixels() -> None:
    image = np.arange(12, dtype=np.float32).reshape(1, 1, 12)
    warped, label = turned(image, np.ones((1, 12), np.uint8), 180, patch=(1, 12))
    np.testing.assert_allclose(warped[0, 0], np.arange(12)[::-1], atol=1e-3)
    assert label.all()
