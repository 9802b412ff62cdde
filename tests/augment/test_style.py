"""The style of another slice: its histogram and nothing else; and which slice that is."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from utseg.augment.apply import apply_augmentation
from utseg.augment.draw import Augmentation
from utseg.augment.sampling import SliceRef
from utseg.augment.style import StyleSources, match_histogram
from utseg.errors import InputError

SIZES = st.tuples(st.integers(3, 40), st.integers(3, 40))


def made(seed: int, shape: tuple[int, int] = (40, 52), channels: int = 2) -> np.ndarray:
    """A smooth image with a skewed histogram and flat background, as after clipping; not writeable, as in the loader's cache."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    shading = np.sin(y / rng.uniform(4, 9)) + np.cos(x / rng.uniform(4, 9))
    image = rng.gamma(rng.uniform(1, 4), 1, (channels, *shape)) + shading
    image = np.clip(image, np.percentile(image, 5), np.percentile(image, 98)).astype(np.float32)
    image.flags.writeable = False
    return image


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), size=SIZES, other=SIZES)
def test_at_full_share_the_histogram_is_the_sources(
    seed: int, size: tuple[int, int], other: tuple[int, int]
) -> None:
    image, source = (
        np.random.default_rng((seed, i)).gamma(2, 1 + i, (2, *s)) for i, s in enumerate((size, other))
    )
    image, source = image.astype(np.float32), source.astype(np.float32)
    assume(all(np.unique(channel).size == channel.size for channel in (*image, *source)))  # ranks are plain
    matched = match_histogram(image, source, 1.0)
    assert matched.shape == image.shape and matched.dtype == np.float32
    for got, own, wanted in zip(matched, image, source, strict=True):
        assert (np.diff(got.ravel()[np.argsort(own, axis=None)]) >= -1e-6).all()
        values = np.sort(wanted, axis=None)
        ranks = np.arange(1, got.size + 1) / got.size
        expected = np.interp(ranks, np.arange(1, values.size + 1) / values.size, values)
        np.testing.assert_allclose(np.sort(got, axis=None), expected, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_a_share_goes_that_far_and_equal_values_stay_equal(seed: int, share: float) -> None:
    image, source = made(seed), made(seed + 1, (30, 61))
    before = image.copy()
    part, whole = match_histogram(image, source, share), match_histogram(image, source, 1.0)
    np.testing.assert_allclose(part, image + np.float32(share) * (whole - image), atol=1e-5)
    background = image == image.min(axis=(1, 2), keepdims=True)
    assert all(np.ptp(channel[flat]) < 1e-6 for channel, flat in zip(part, background, strict=True))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("shape", [(40, 52), (41, 51)])
def test_with_itself_as_source_an_image_stays(shape: tuple[int, int]) -> None:
    image = made(3, shape)
    np.testing.assert_allclose(match_histogram(image, image, 1.0), image, atol=1e-6)


@pytest.mark.parametrize("flat", ["image", "source"])
def test_constant_slices_stay_finite(flat: str) -> None:
    images = {"image": made(1), "source": made(2)} | {flat: np.full((2, 40, 52), 1.5, np.float32)}
    draw = Augmentation(histogram_share=1.0)
    label = np.zeros((40, 52), np.uint8)
    got, _ = apply_augmentation(
        draw, images["image"], label, patch_size=(40, 52), center_yx=(20, 26), style_CHW=images["source"]
    )
    assert np.isfinite(got).all()


def test_the_style_is_taken_before_the_patch_is_cut_and_needs_a_source() -> None:
    image, source, label = made(1), made(2), np.zeros((40, 52), np.uint8)
    draw = Augmentation(histogram_share=0.6)
    window = {"patch_size": (16, 12), "center_yx": (20, 26)}
    got, _ = apply_augmentation(draw, image, label, **window, style_CHW=source)
    whole = match_histogram(image, source, 0.6)
    np.testing.assert_array_equal(got, whole[:, 12:28, 20:32])
    with pytest.raises(AssertionError, match="style"):
        apply_augmentation(draw, image, label, **window)


def stack(case_id: str, subject: str, vendor: str, slices: int) -> list[SliceRef]:
    return [SliceRef(case_id, z, (), (z,), subject, vendor) for z in range(slices)]


COHORT = [
    *stack("1_ED", "1", "A", 4),
    *stack("1_ES", "1", "A", 4),
    *stack("2_ED", "2", "A", 9),
    *stack("3_ED", "3", "B", 6),
    *stack("4_ED", "4", "B", 5),
    *stack("5_ED", "5", "B", 5),
    *stack("6_ED", "6", "C", 3),
]
DRAWS = (np.arange(1200) + 0.5) / 1200


@pytest.mark.parametrize("ref", COHORT, ids=lambda ref: ref.name)
def test_another_vendor_each_alike_then_its_cases_alike(ref: SliceRef) -> None:
    sources = StyleSources(COHORT)
    drawn = [sources.source(ref, drawn) for drawn in DRAWS]
    vendors = Counter(each.vendor for each in drawn)
    assert ref.vendor not in vendors and len(vendors) == 2
    assert set(vendors.values()) == {len(DRAWS) // 2}
    for vendor in vendors:
        of_cases = Counter(each.case_id for each in drawn if each.vendor == vendor)
        assert max(of_cases.values()) - min(of_cases.values()) <= 1


def test_of_one_vendor_another_subject_never_its_own_other_phase() -> None:
    one_vendor = [ref for ref in COHORT if ref.vendor == "A"]
    sources = StyleSources(one_vendor)
    assert {sources.source(one_vendor[0], drawn).case_id for drawn in DRAWS} == {"2_ED"}
    assert {sources.source(one_vendor[-1], drawn).case_id for drawn in DRAWS} == {"1_ED", "1_ES"}


def test_slices_of_the_same_height() -> None:
    two = [*stack("a", "1", "", 4), *stack("b", "2", "", 12)]
    sources = StyleSources(two)
    assert [sources.source(ref, 0.3).z for ref in two[:4]] == [1, 4, 7, 10]
    assert [sources.source(ref, 0.3).z for ref in two[4:]] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_every_number_below_one_has_a_source() -> None:
    sources = StyleSources(COHORT)
    for drawn in (0.0, np.nextafter(1, 0), np.nextafter(0.5, 0), 0.5):
        assert sources.source(COHORT[0], float(drawn)).vendor != "A"


def test_one_subject_has_no_source() -> None:
    with pytest.raises(InputError, match="at least two subjects"):
        StyleSources([*stack("1_ED", "1", "A", 4), *stack("1_ES", "1", "A", 4)])
