"""What is drawn into pixels: volumes, which label touches which, slices without heart, soft edges, muscles inside the cavity."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from utseg.phantom.anatomy import PATHOLOGIES, Heart
from utseg.phantom.chest import Chest
from utseg.phantom.cine import LV, MYO, RV, Details, Scene
from utseg.phantom.scanner import VENDORS, Grid

SIGNALS = VENDORS["A"].signals
CROSS = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], bool)


@pytest.fixture(scope="module", params=PATHOLOGIES)
def scene(request) -> Scene:
    rng = np.random.default_rng(7)
    heart = Heart(rng, request.param)
    slices = int(np.ceil(heart.length_mm / 8)) + 2
    grid = Grid((slices, 120, 130), 1.6, 8.0, 6.4)
    depths = ((np.arange(slices) - 0.5) * 8).astype(np.float32)
    return Scene(heart, Chest(rng), Details(rng, slices), SIGNALS, grid, depths)


@pytest.fixture(scope="module")
def frames(scene):
    return scene.frame(0.0), scene.frame(1.0)


def _millilitres(label: np.ndarray, value: int) -> float:
    return float((label == value).sum() * 1.6**2 * 8 / 1000)


def test_volumes_and_ejection_fraction_are_those_that_were_drawn(scene, frames):
    heart = scene.heart
    ed, es = (label for _, label in frames)
    assert _millilitres(ed, LV) == pytest.approx(heart.lv_edv_ml, rel=0.08)
    assert _millilitres(ed, MYO) == pytest.approx(heart.myocardium_ml, rel=0.12)
    assert _millilitres(ed, RV) == pytest.approx(heart.rv_edv_ml, rel=0.1)
    assert _millilitres(es, MYO) == pytest.approx(_millilitres(ed, MYO), rel=0.12)
    for value, drawn in ((LV, heart.lv_ejection_fraction), (RV, heart.rv_ejection_fraction)):
        assert 1 - _millilitres(es, value) / _millilitres(ed, value) == pytest.approx(drawn, abs=0.07)


def test_myocardium_surrounds_the_cavity(frames):
    for _, label in frames:
        around = binary_dilation(label == LV, CROSS) & (label != LV)
        assert around.any()
        assert (label[around] == MYO).all()


def test_the_right_ventricle_ends_before_the_apex_and_the_stack_beyond_it(frames):
    for _, label in frames:
        has = {value: np.flatnonzero((label == value).any(axis=(1, 2))) for value in (LV, MYO, RV)}
        assert has[RV].max() < has[MYO].max()
        assert has[RV].max() < has[LV].max()
        assert not label[0].any()
        assert not label[-1].any()
        assert len(label) - 2 >= np.ptp(has[MYO]) + 1 >= 8


def test_papillary_muscles_are_dark_and_belong_to_the_cavity(scene, frames):
    inside = frames[0][0][frames[0][1] == LV]
    halfway = (SIGNALS.blood + SIGNALS.muscle_of_heart) / 2
    assert 0.01 < (inside < halfway).mean() < 0.3
    assert np.median(inside) == pytest.approx(SIGNALS.blood, rel=0.1)


def test_edges_are_soft(frames):
    image, label = frames[0]
    z = len(label) // 3
    edge = binary_dilation(label == LV, CROSS)[z] & (label[z] == MYO)
    values = image[z][edge]
    between = (values > 1.2 * SIGNALS.muscle_of_heart) & (values < 0.9 * SIGNALS.blood)
    assert between.mean() > 0.2
