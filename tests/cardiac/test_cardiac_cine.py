"""Volumes of a cine and its ED and ES against hearts whose volumes are known by formula."""

import numpy as np
import pytest
from hearts import LABELS, SPACING, beating_heart, heart, heart_beat
from hypothesis import given
from hypothesis import strategies as st

from utseg.cardiac.cine import find_phases, odd_frames, peak_rates, volume_curves
from utseg.phantom.anatomy import contraction
from utseg.phantom.cohort import design
from utseg.phantom.examination import Examination, PhantomSettings


def test_volumes_and_ef_of_half_an_ellipsoid_are_those_of_its_formula():
    """Half axes 80 and r mm: 2/3·π·r²·80. Discs of 2 mm, pixels of .8 mm."""
    radii = 25 * np.sqrt(heart_beat(8))
    z, y, x = np.meshgrid(np.arange(41) * 2 + 1, np.arange(72), np.arange(72), indexing="ij")
    away = np.hypot(y - 35.5, x - 35.5) * 0.8
    mask = np.stack([(away / radius) ** 2 + (z / 80) ** 2 <= 1 for radius in radii]).astype(np.uint8)
    curve = volume_curves(mask, (2.0, 0.8, 0.8), {"LV": 1})["LV"]
    exact = 2 / 3 * np.pi * radii**2 * 80 / 1000
    np.testing.assert_allclose(curve, exact, rtol=0.01)
    found = find_phases(curve)
    assert (found.ed, found.es) == (0, 3)
    assert abs(100 * (1 - curve[3] / curve[0]) - 100 * (1 - exact[3] / exact[0])) < 0.5


@given(st.tuples(*[st.floats(0.3, 3)] * 3), st.sampled_from(["LV", "MYO", "RV"]))
def test_volumes_grow_with_the_spacing_and_no_other_way(factors, role):
    mask = heart()[None]
    wider = tuple(factor * step for factor, step in zip(factors, SPACING, strict=True))
    once, more = (volume_curves(mask, spacing, LABELS)[role] for spacing in (SPACING, wider))
    np.testing.assert_allclose(more, once * np.prod(factors))


def test_a_slice_that_muscle_does_not_surround_counts_by_one_rule_only():
    mask = heart()[None].copy()
    mask[0, 1][mask[0, 1] == 2] = 0
    everything, surrounded = (volume_curves(mask, SPACING, LABELS, rule) for rule in ("all", "myocardium"))
    lost = (mask[0, 1] == 1).sum() * np.prod(SPACING) / 1000
    assert everything["LV"] - surrounded["LV"] == pytest.approx(lost)
    assert surrounded["RV"] == everything["RV"] and surrounded["MYO"] == everything["MYO"]
    assert (
        volume_curves(heart()[None], SPACING, LABELS, "myocardium")["LV"]
        == volume_curves(heart()[None], SPACING, LABELS)["LV"]
    )


@given(st.integers(6, 40), st.integers(0, 39), st.floats(0.15, 0.8), st.floats(20, 400))
def test_ed_and_es_go_with_the_cine_wherever_it_begins(frames, first, ejected, volume):
    curve = volume * heart_beat(frames, ejected=ejected)
    start = find_phases(curve)
    later = find_phases(np.roll(curve, first))
    assert start.ed == 0 and start.es == curve.argmin() and not start.odd and start.whole
    assert (later.ed, later.es) == ((start.ed + first) % frames, (start.es + first) % frames)


@pytest.mark.parametrize("factor", [0.0, 0.1, 2.0])
def test_a_frame_that_is_spoilt_becomes_neither_ed_nor_es(factor):
    curve = 120 * heart_beat(25, ed=3)
    for frame in range(25):
        spoilt = curve.copy()
        spoilt[frame] *= factor
        found = find_phases(spoilt)
        assert frame not in (found.ed, found.es)
        assert factor == 0 or found.odd == (frame,)
        assert abs((found.ed - 3 + 12) % 25 - 12) <= 1 and abs(found.es - curve.argmin()) <= 1
    pair = curve.copy()
    pair[[8, 9]] = 5
    assert odd_frames(pair) == (8, 9)


def test_of_frames_that_are_alike_ed_is_the_last_and_es_the_first():
    found = find_phases(np.array([90.0, 100, 100, 80, 60, 40, 40, 40, 60, 80]))
    assert (found.ed, found.es) == (2, 5)
    flat = find_phases(np.full(10, 80.0))
    assert (flat.ed, flat.es) == (None, None)
    nothing = find_phases(np.zeros(10))
    assert (nothing.ed, nothing.es, nothing.odd) == (None, None, ())


def test_a_cine_that_ends_at_end_systole_is_open_and_still_measured():
    curve = 100 * heart_beat(30)[:12]
    found = find_phases(curve)
    assert not found.whole and (found.ed, found.es) == (0, 11)
    assert find_phases(100 * heart_beat(30)).whole


def test_rates_of_a_cosine_are_those_of_its_derivative():
    curve = 100 + 40 * np.cos(2 * np.pi * np.arange(20) / 20)
    found = peak_rates(curve, frame_ms=50.0)
    assert found == pytest.approx(
        dict.fromkeys(("peak_ejection", "peak_filling"), 2 * np.pi * 40 / 1.0), rel=1e-3
    )


def test_ed_and_es_are_right_in_all_phantoms_of_a_cohort():
    settings = PhantomSettings(subjects=10, frames=10, matrix=56)
    for subject in design(settings.subjects):
        drawn = Examination(settings, subject)
        scene, grid = drawn.scene, drawn.scene.grid
        masks = [scene.label(contraction(phase, scene.heart.end_systole)) for phase in drawn.phases]
        spacing = (grid.slice_spacing_mm, grid.pixel_mm, grid.pixel_mm)
        found = find_phases(volume_curves(np.stack(masks), spacing, LABELS)["LV"])
        assert (found.ed, found.es, found.odd) == (drawn.ed, drawn.es, ()), subject


def test_a_heart_without_lv_or_rv_has_the_curves_that_it_has():
    mask = beating_heart(heart_beat(8))
    whole = volume_curves(mask, SPACING, LABELS)
    assert list(volume_curves(mask, SPACING, {"LV cavity": 1, "left": 7})) == ["LV"]
    regions = {"heart": (1, 2, 3), "Left Ventricle": (1,), "rv": (3,)}
    by_region = volume_curves(mask, SPACING, regions)
    assert list(by_region) == ["LV", "RV"]
    np.testing.assert_array_equal(by_region["RV"], whole["RV"])
