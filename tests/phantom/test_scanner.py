"""Geometry is oblique and orthogonal, noise is Rician, vendors differ."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utseg.phantom.scanner import VENDORS, Grid, acquire, coil_field, draw_affine, draw_grid

GRID = Grid((8, 60, 70), 1.5, 10.0, 8.0)


@given(st.integers(0, 10_000), st.booleans())
def test_the_affine_is_oblique_orthogonal_and_has_the_spacing(seed, base_first):
    axes = draw_affine(np.random.default_rng(seed), GRID, base_first)[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    assert lengths == pytest.approx([1.5, 1.5, 10.0])
    directions = axes / lengths
    assert directions.T @ directions == pytest.approx(np.eye(3), abs=1e-9)
    assert np.abs(directions).max() < 0.9999, "no axis of the file is one of the body"
    assert np.sign(np.linalg.det(axes)) == (-1 if base_first else 1)


def test_noise_alone_is_rayleigh_distributed():
    vendor = VENDORS["D"]
    air = acquire(np.random.default_rng(0), np.zeros((8, 128, 128), np.float32), vendor, np.ones((128, 128)))
    assert air.mean() / air.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.03)
    assert air.min() >= 0


def test_acquisition_keeps_the_mean_and_takes_the_finest_detail():
    vendor = VENDORS["B"]
    stripes = np.ones((1, 96, 96), np.float32)
    stripes[:, :, ::2] = 3
    seen = acquire(np.random.default_rng(0), stripes, vendor, np.ones((96, 96)))
    assert seen.mean() == pytest.approx(2, rel=0.01)
    assert seen.std() < 0.1


@given(st.integers(0, 1000), st.floats(0.1, 0.8))
def test_the_coil_brightens_the_front(seed, strength):
    field = coil_field(np.random.default_rng(seed), GRID, strength)
    assert np.log(field).mean() == pytest.approx(0, abs=1e-4)
    assert np.abs(np.log(field)).max() == pytest.approx(strength, rel=1e-3)
    assert field[:10].mean() > field[-10:].mean()


def test_vendors_differ_in_pixels_and_signals():
    grids = {
        code: draw_grid(np.random.default_rng(1), vendor, 192, 95.0, None) for code, vendor in VENDORS.items()
    }
    assert len({grid.pixel_mm for grid in grids.values()}) == len(VENDORS)
    assert len({grid.size_zyx for grid in grids.values()}) == len(VENDORS)
    assert len({vendor.signals for vendor in VENDORS.values()}) == len(VENDORS)
    for grid in grids.values():
        assert 1.0 < grid.pixel_mm < 1.9
        assert 8 <= grid.slice_spacing_mm <= 10
        assert (grid.size_zyx[0] - 2) * grid.slice_spacing_mm >= 95
