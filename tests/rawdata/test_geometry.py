"""When two volumes lie alike, and what their geometry says of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.orientations import aff2axcodes
from rawfiles import SPACING_ZYX_MM, make_affine

from utseg.rawdata.geometry import Geometry, affine_problem, as_affine

SIZE = (6, 40, 36)


def geometry(affine: np.ndarray, size: tuple[int, int, int] = SIZE) -> Geometry:
    return Geometry(size, as_affine(affine))


@given(st.tuples(*[st.floats(-3.1, 3.1)] * 3), st.booleans())
def test_spacing_and_orientation_are_those_that_nibabel_finds(
    angles: tuple[float, ...], mirrored: bool
) -> None:
    affine = make_affine(angles=angles)
    affine[:3, 1] *= -1 if mirrored else 1
    found = geometry(affine)
    np.testing.assert_allclose(found.spacing_zyx_mm, SPACING_ZYX_MM, rtol=1e-6)
    assert sorted("RAS"["RLAPSI".index(letter) // 2] for letter in found.orientation) == sorted("RAS")
    cosines = np.sort(np.abs(found.directions), axis=None)
    if np.diff(cosines).min() > 1e-3:  # no ties
        assert found.orientation == "".join(aff2axcodes(affine))
    assert affine_problem(affine) is None and found.differences(found) == []
    assert Geometry.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    "other, word",
    [
        (geometry(make_affine(), (6, 40, 37)), "size"),
        (geometry(make_affine((8.0, 1.5, 1.26))), "spacing"),
        (geometry(make_affine(origin=(-120.5, 40.25, 300.4))), "origin"),
        (geometry(make_affine(angles=(0, 0, 0.01))), "direction"),
        (geometry(make_affine() * np.array([-1, 1, 1, 1])), "direction"),
    ],
)
def test_what_differs_is_named_and_nothing_else(other: Geometry, word: str) -> None:
    mine = geometry(make_affine())
    for found in (mine.differences(other), other.differences(mine)):
        assert len(found) == 1 and found[0].startswith(word)


def test_rounding_of_other_tools_is_no_difference() -> None:
    mine = make_affine(angles=(0.3, 0.5, -0.2))
    rounded = mine.copy()
    rounded[:3, :3] = np.round(mine[:3, :3], 4)
    rounded[:3, 3] = np.round(mine[:3, 3], 2)
    assert geometry(mine).differences(geometry(rounded)) == []


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, np.nan, 1), (1, 1, np.inf), (1e-9, 1, 1), (1, 5e4, 1)])
def test_spacing_out_of_range_is_a_problem(spacing: tuple[float, float, float]) -> None:
    with np.errstate(invalid="ignore"):
        assert affine_problem(np.diag([*spacing, 1.0])) is not None


@pytest.mark.parametrize(
    "spacing_zyx, shift, alike",
    [((8.0, 1.5, 1.25), 0.09, True), ((8.0, 1.5, 1.25), 0.11, False), ((1.0, 0.2, 0.2), 0.03, False)],
)
def test_the_origin_may_be_off_by_a_tenth_of_a_millimetre_or_of_a_voxel(
    spacing_zyx: tuple[float, float, float], shift: float, alike: bool
) -> None:
    mine = geometry(make_affine(spacing_zyx, (0, 0, 0)))
    assert (mine.differences(geometry(make_affine(spacing_zyx, (0, shift, 0)))) == []) is alike
