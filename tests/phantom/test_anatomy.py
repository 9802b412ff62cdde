"""Drawn volumes come out of the geometry, the myocardium keeps its volume, and the cycle has one ED and one ES."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utseg.phantom.anatomy import (
    PATHOLOGIES,
    Heart,
    Shape,
    contraction,
    crescent,
    cycle_phases,
    rv_taper,
    sections,
)

SEEDS = st.integers(0, 10_000)
PART = st.floats(0, 1)
DEPTHS = np.arange(-20, 140, 0.25)


def _volume_ml(length_mm: float, radius_mm: float, base_mm: float) -> float:
    cut = sections(length_mm, radius_mm, base_mm, DEPTHS, 0.25)
    return float((np.pi * cut.radius_mm**2 * cut.filled).sum() * 0.25 / 1000)


@given(SEEDS, st.sampled_from(PATHOLOGIES), PART)
def test_the_cavity_has_the_drawn_volume_and_the_myocardium_keeps_its_own(seed, pathology, contracted):
    heart = Heart(np.random.default_rng(seed), pathology)
    shape = Shape(heart, contracted)
    cavity = _volume_ml(shape.endo_length_mm, shape.endo_radius_mm, shape.base_mm)
    whole = _volume_ml(shape.epi_length_mm, shape.epi_radius_mm, shape.base_mm)
    assert cavity == pytest.approx(heart.lv_edv_ml * (1 - heart.lv_ejection_fraction * contracted), rel=0.01)
    assert whole - cavity == pytest.approx(heart.myocardium_ml, rel=0.02)


@given(SEEDS, st.sampled_from(PATHOLOGIES), PART)
def test_the_crescent_has_the_drawn_volume(seed, pathology, contracted):
    heart = Heart(np.random.default_rng(seed), pathology)
    shape = Shape(heart, contracted)
    q = (np.arange(400) + 0.5) / 400
    x = (np.arange(400) + 0.5) / 200 - 1
    outer = shape.epi_radius_mm * np.sqrt(1 - (q * shape.rv_length_mm / shape.epi_length_mm) ** 2.5)
    height = shape.rv_height_mm * rv_taper(q)[:, None] * crescent(x, heart.rv_skew)
    area = (outer[:, None] * height + height**2 / 2).mean(axis=1) * 2 * heart.rv_half_angle
    expected = heart.rv_edv_ml * (1 - heart.rv_ejection_fraction * contracted)
    assert area.mean() * shape.rv_length_mm / 1000 == pytest.approx(expected, rel=0.02)


@given(SEEDS, st.sampled_from(PATHOLOGIES))
def test_the_heart_is_plausible(seed, pathology):
    heart = Heart(np.random.default_rng(seed), pathology)
    relaxed, contracted = Shape(heart, 0), Shape(heart, 1)
    assert 80 <= heart.lv_edv_ml <= 300
    assert 0.15 <= heart.lv_ejection_fraction <= 0.8
    assert relaxed.rv_length_mm < relaxed.endo_length_mm, "the right ventricle ends before the apex"
    assert contracted.base_mm > relaxed.base_mm == 0, "the base comes down"
    walls = [shape.epi_radius_mm - shape.endo_radius_mm for shape in (relaxed, contracted)]
    assert 4 < walls[0] < walls[1] < 30, "the wall thickens"


@given(st.floats(0.3, 0.45))
def test_the_cycle_ejects_then_fills(end_systole):
    ejection = [contraction(phase, end_systole) for phase in np.linspace(0, end_systole, 30)]
    filling = [contraction(phase, end_systole) for phase in np.linspace(end_systole, 1, 30)]
    assert ejection == sorted(ejection)
    assert filling == sorted(filling, reverse=True)
    assert (ejection[0], ejection[-1], filling[-1]) == (0, pytest.approx(1), 0)


@given(st.integers(2, 40), st.floats(0.33, 0.4), st.floats(-0.03, 0.3))
def test_exactly_one_frame_is_at_ed_and_one_at_es(frames, end_systole, first_phase):
    phases, ed, es = cycle_phases(frames, end_systole, first_phase)
    contracted = [contraction(phase, end_systole) for phase in phases]
    assert len(phases) == frames
    assert ed != es
    assert contracted[ed] == min(contracted) == 0
    assert contracted[es] == max(contracted) == pytest.approx(1)
