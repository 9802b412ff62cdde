"""Figures of one case against shapes whose size is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utseg.fingerprint.case import measure_channel, measure_label
from utseg.fingerprint.model import PERCENTILES

SPACING = (8.0, 1.5, 1.5)


def disc(radius_mm: float, hole_mm: float = 0.0, spacing_mm: float = 1.5) -> np.ndarray:
    """Two slices of four hold a disc, or a ring, around (40, 50) pixels."""
    y, x = np.mgrid[:80, :100]
    distance = np.hypot(y - 40, x - 50) * spacing_mm
    mask = np.zeros((4, 80, 100), dtype=bool)
    mask[1:3] = (distance <= radius_mm) & (distance >= hole_mm)
    return mask


def test_a_disc_has_its_diameter_twice():
    figures = measure_label(disc(30.0), SPACING)
    assert figures is not None
    assert figures.diameter_mm == pytest.approx(60, abs=1.5)
    assert figures.thickness_mm == pytest.approx(60, abs=3)
    assert figures.slices == 2
    assert figures.extent_zyx_px == (2, 41, 41)
    assert figures.extent_zyx_mm == pytest.approx((16, 61.5, 61.5))
    assert figures.volume_ml == pytest.approx(np.pi * 30**2 * 16 / 1000, rel=0.03)
    assert figures.slice_box_px_largest == figures.slice_box_px_median == 41


def test_a_ring_is_as_thick_as_its_wall():
    figures = measure_label(disc(30.0, hole_mm=20.0), SPACING)
    assert figures is not None
    assert figures.thickness_mm == pytest.approx(10, abs=2.2)
    assert figures.slice_box_px_largest == 41


def test_thickness_counts_at_the_image_border():
    mask = np.zeros((1, 20, 20), dtype=bool)
    mask[0, :6] = True
    figures = measure_label(mask, (1.0, 1.0, 1.0))
    assert figures is not None
    assert figures.thickness_mm == pytest.approx(6, abs=1)


def test_the_offset_is_in_mm_from_the_given_centre():
    figures = measure_label(disc(15.0), SPACING, center_yx=(30.0, 54.0))
    assert figures is not None
    assert figures.offset_yx_mm == pytest.approx((15.0, -6.0))


def test_an_empty_mask_has_no_figures():
    assert measure_label(np.zeros((2, 5, 5), dtype=bool), SPACING) is None


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), values=st.integers(2, 500))
def test_percentiles_and_shares_agree_with_their_definition(seed: int, values: int):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, values, (3, 9, 11)).astype(np.float32)
    label = (rng.random((3, 9, 11)) < 0.3).astype(np.uint8)
    figures = measure_channel(image, label)
    for percentile, value, below in zip(
        PERCENTILES, figures.percentiles, figures.labelled_below, strict=True
    ):
        exact = np.percentile(image.astype(np.float64), percentile)
        assert value == pytest.approx(exact, rel=1e-4, abs=1e-4)
        assert below == pytest.approx(float((image[label > 0] < exact).mean()), abs=0.02)
    assert figures.mean == pytest.approx(float(image.mean()), rel=1e-4)
    assert figures.sd == pytest.approx(float(image.std()), rel=1e-4)
