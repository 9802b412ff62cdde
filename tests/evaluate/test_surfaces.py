"""Surfaces: their elements, their areas, and distances within slices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from utseg.evaluate.surfaces import area_by_code, distances_between, extract, length_by_code, voxel_surface

SPACING = (8.0, 1.5, 1.25)


def test_surface_of_a_box_is_its_shell():
    mask = np.zeros((7, 7, 7), bool)
    mask[1:6, 1:6, 1:6] = True
    assert voxel_surface(mask).sum() == 5**3 - 3**3
    assert voxel_surface(mask, planar=True).sum() == 5 * (5**2 - 3**2)
    full = np.ones((4, 4, 4), bool)
    assert voxel_surface(full).sum() == 4**3 - 2**3


def test_area_of_a_plate_and_of_a_voxel():
    plate = np.zeros((4, 60, 60), bool)
    plate[1:3] = True
    top_and_bottom = 2 * 60 * 1.5 * 60 * 1.25
    rim = 4 * 60 * 2 * 8 * (1.5 + 1.25) / 2
    area = extract(plate, SPACING, "area").weights_N.sum()
    assert area == pytest.approx(top_and_bottom + rim, rel=0.03)  # edges are cut off a little
    one = np.ones((1, 1, 1), bool)
    half = np.array(SPACING) / 2
    triangle = np.linalg.norm(np.cross((-half[0], half[1], 0), (-half[0], 0, half[2]))) / 2
    assert extract(one, SPACING, "area").weights_N.sum() == pytest.approx(8 * triangle)  # an octahedron


def test_area_of_a_ball_tends_to_that_of_a_sphere():
    z, y, x = np.mgrid[-21:22, -21:22, -21:22]
    mask = z**2 + y**2 + x**2 <= 20**2
    area = extract(mask, (1.0, 1.0, 1.0), "area").weights_N.sum()
    assert area == pytest.approx(
        4 * np.pi * 20**2, rel=0.1
    )  # marching cubes on masks overestimate by about 9 %
    assert extract(mask, (1.0, 1.0, 1.0), "voxels").weights_N is None


def test_length_of_a_rectangle_in_each_slice():
    mask = np.zeros((3, 30, 30), bool)
    mask[:2, 5:25, 5:15] = True
    found = extract(mask, SPACING, "area", planar=True)
    lengths = np.bincount(found.indices_N3[:, 0], found.weights_N, minlength=3)
    corner = np.hypot(1.5, 1.25) / 2 - (1.5 + 1.25) / 2
    expected = 2 * (20 * 1.5 + 10 * 1.25) + 4 * corner
    assert lengths == pytest.approx([expected, expected, 0])


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (8.0, 1.5, 1.25)])
def test_a_configuration_and_its_complement_have_one_area(spacing):
    areas, lengths = area_by_code(spacing), length_by_code(spacing[1:])
    assert np.array_equal(areas, areas[::-1]) and np.array_equal(lengths, lengths[::-1])
    assert areas[0] == 0 and (areas[1:-1] > 0).all() and lengths[0] == 0 and (lengths[1:-1] > 0).all()
    flat = sum(1 << bit for bit in range(4))  # the four voxels before the corner along z: a plane across z
    assert areas[flat] == pytest.approx(spacing[1] * spacing[2])


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(bool, st.tuples(*[st.integers(1, 5)] * 3)), st.data(), st.sampled_from(["voxels", "area"]))
def test_distances_within_slices_are_those_of_each_slice_alone(first, data, kind):
    second = data.draw(hnp.arrays(bool, first.shape))
    surfaces = [extract(mask, SPACING, kind, planar=True) for mask in (first, second)]
    if not (first.any() and second.any()):
        return
    together = distances_between(*surfaces, SPACING, planar=True)
    for z in range(len(first)):
        if first[z].any() and second[z].any():
            alone = [extract(mask[z : z + 1], SPACING, kind, planar=True) for mask in (first, second)]
            for one, all_of_them in zip(distances_between(*alone, SPACING), together, strict=True):
                chosen = all_of_them.where(all_of_them.planes_N == z)
                assert np.allclose(chosen.distances_N, one.distances_N)
                assert kind == "voxels" or np.array_equal(chosen.weights_N, one.weights_N)
        else:
            assert not any((side.planes_N == z).any() for side in together)
