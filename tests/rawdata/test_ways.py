"""Which way a scan lies, by header, and what is done about it."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rawfiles import make_affine

from utseg.rawdata.geometry import Geometry
from utseg.rawdata.ways import AS_IT_LIES, Arrangement, Way, arrange, group_ways, unit_vector

SIZE_XYZ = (36, 40, 6)
LPS = np.diag([-1.4, -1.4, 10.0, 1.0])
RAS = np.diag([1.4, 1.4, 10.0, 1.0])
OBLIQUE = make_affine(angles=(0.4, -0.5, 0.3))
SWAPS = list(itertools.product((False, True), (1, -1), (1, -1)))


def way(affine: np.ndarray, size: tuple[int, int, int] = SIZE_XYZ) -> Way:
    return Geometry.of_file(size, affine).way


def copied(affine: np.ndarray, swap: bool, flip_y: int, flip_x: int) -> Way:
    """That of a lossless in-plane copy: axes flipped with the origin moved, then exchanged."""
    matrix = affine.copy()
    for axis, sign in ((0, flip_x), (1, flip_y)):
        if sign < 0:
            matrix[:3, 3] += matrix[:3, axis] * (SIZE_XYZ[axis] - 1)
            matrix[:3, axis] *= -1
    size = SIZE_XYZ
    if swap:
        matrix, size = matrix[:, [1, 0, 2, 3]], (SIZE_XYZ[1], SIZE_XYZ[0], SIZE_XYZ[2])
    return way(matrix, size)


def turned(scan: Way, arrangement: Arrangement) -> Way:
    """Where rows and columns point to once the slices are turned."""
    y, x = (scan.x, scan.y) if arrangement.swap else (scan.y, scan.x)
    signs = -1 if arrangement.flip_y else 1, -1 if arrangement.flip_x else 1
    return Way(y=unit_vector(signs[0] * np.array(y)), x=unit_vector(signs[1] * np.array(x)))


@pytest.mark.parametrize(
    "affine, nominal",
    [
        (LPS, True),  # all of ACDC
        (RAS, True),
        (np.eye(4), True),
        (np.array([[-1, 0, 0, 17.5], [0, 1, 0, -19.5], [0, 0, 8, -20], [0, 0, 0, 1.0]]), True),  # no codes
        (RAS + np.outer([1, 1, 1, 0], [0, 0, 0, 1]), False),
        (LPS[:, [1, 0, 2, 3]], False),  # exchanged axes are something to say
        (OBLIQUE, False),
    ],
)
def test_a_header_without_orientation_is_told(affine: np.ndarray, nominal: bool) -> None:
    assert way(affine).nominal is nominal


@pytest.mark.parametrize("swap, flip_y, flip_x", SWAPS)
def test_copies_of_a_truly_oriented_scan_are_turned_back_for_certain(
    swap: bool, flip_y: int, flip_x: int
) -> None:
    ways = (way(OBLIQUE),)
    scan = copied(OBLIQUE, swap, flip_y, flip_x)
    placement = arrange(scan, ways)
    back = turned(scan, placement.arrangement)
    np.testing.assert_allclose((back.y, back.x), (ways[0].y, ways[0].x), atol=2e-6)
    assert placement.doubt == ""
    assert (placement.arrangement == AS_IT_LIES) is ((swap, flip_y, flip_x) == (False, 1, 1))


@pytest.mark.parametrize("swap, flip_y, flip_x", SWAPS)
@pytest.mark.parametrize("affine", [LPS, RAS])
def test_copies_of_a_scan_without_orientation_are_turned_and_doubted(
    affine: np.ndarray, swap: bool, flip_y: int, flip_x: int
) -> None:
    ways = (way(affine),)
    scan = copied(affine, swap, flip_y, flip_x)
    placement = arrange(scan, ways)
    back = turned(scan, placement.arrangement)
    assert (back.y, back.x) == (ways[0].y, ways[0].x)
    assert bool(placement.doubt) is ((swap, flip_y, flip_x) != (False, 1, 1))


def test_headers_without_orientation_turn_nothing() -> None:
    placement = arrange(way(RAS), (way(LPS),))  # two republished datasets, with hearts in one arrangement
    assert placement.arrangement == AS_IT_LIES and "holds no orientation" in placement.doubt
    placement = arrange(way(LPS), (way(OBLIQUE),))
    assert placement.arrangement == AS_IT_LIES and "holds no orientation" in placement.doubt
    placement = arrange(way(OBLIQUE), (way(LPS),))
    assert placement.arrangement == AS_IT_LIES and "training scans' headers hold no" in placement.doubt


def test_the_same_header_is_no_doubt_and_nothing_known_neither() -> None:
    assert arrange(way(LPS), (way(RAS), way(LPS))).doubt == ""
    seldom = way(LPS).model_copy(update={"seldom": True})
    assert arrange(way(LPS), (way(RAS), seldom)).doubt.startswith("the training scans lie 2 ways and fewer")
    assert arrange(way(LPS), ()) == arrange(way(OBLIQUE), (way(OBLIQUE),))
    cropped = LPS + np.outer([5, 5, 0, 0], [0, 0, 0, 1])
    assert arrange(way(cropped), (way(LPS),)).doubt == ""


def test_a_scan_of_another_plane_is_left_and_doubted() -> None:
    sagittal = Way(y=unit_vector(np.array([0, 0, -1])), x=unit_vector(np.array([0, 1, 0])))
    axial = Way(y=unit_vector(np.array([0, -1, 0])), x=unit_vector(np.array([-1, 0, 0])))
    placement = arrange(sagittal, (axial,))
    assert placement.arrangement == AS_IT_LIES and "another plane" in placement.doubt
    between = Way(y=unit_vector(np.array([1, -1, 0])), x=unit_vector(np.array([-1, -1, 0])))
    just_beyond = Way(y=unit_vector(np.array([1.05, -1, 0])), x=unit_vector(np.array([-1, -1.05, 0])))
    assert arrange(between, (axial,)).doubt == ""
    assert arrange(just_beyond, (axial,)).arrangement == AS_IT_LIES and arrange(just_beyond, (axial,)).doubt


def test_a_way_never_seen_is_doubted_where_the_training_scans_lay_several() -> None:
    quarter = way(OBLIQUE @ np.diag([1, -1, 1, 1])[:, [1, 0, 2, 3]])  # 90° in the plane
    ways = tuple(found for found, _ in group_ways([way(OBLIQUE)] * 3 + [quarter]))
    assert len(ways) == 2
    assert arrange(quarter, ways).doubt == "" and arrange(way(OBLIQUE), ways).doubt == ""
    placement = arrange(copied(OBLIQUE, False, 1, -1), ways)
    assert placement.arrangement != AS_IT_LIES and "2 ways" in placement.doubt


@given(st.lists(st.tuples(*[st.floats(-1.2, 1.2)] * 3), min_size=1, max_size=12))
def test_every_scan_lies_in_a_way_of_its_group(angles: list[tuple[float, float, float]]) -> None:
    scans = [way(make_affine(angles=each)) for each in angles] + [way(LPS)]
    grouped = group_ways(scans)
    assert sum(count for _, count in grouped) == len(scans)
    assert all(arrange(scan, [found for found, _ in grouped]) == arrange(scans[0], ()) for scan in scans)
    assert [count for _, count in grouped] == sorted((count for _, count in grouped), reverse=True)
    assert sorted(map(repr, group_ways(scans[::-1]))) == sorted(map(repr, grouped))


@given(st.lists(st.tuples(*[st.floats(-0.2, 0.2)] * 3), min_size=1, max_size=12))
def test_a_usual_cohort_lies_one_way(angles: list[tuple[float, float, float]]) -> None:
    ((found, count),) = group_ways(
        [way(make_affine((1, 1, 1), (0, 0, 0), each) @ OBLIQUE) for each in angles]
    )
    assert count == len(angles) and found.includes(way(OBLIQUE))


def test_headers_with_and_without_orientation_are_two_ways_though_they_say_the_same() -> None:
    moved = RAS + np.outer([1, 1, 1, 0], [0, 0, 0, 1])
    grouped = group_ways([way(RAS), way(moved), way(moved)])
    assert [(found.nominal, count) for found, count in grouped] == [(False, 2), (True, 1)]


def test_the_phantom_cohort_lies_one_way(tiny_phantom) -> None:
    from utseg.rawdata import open_dataset
    from utseg.rawdata.gate import read_image

    cases = open_dataset(tiny_phantom).training_cases()
    ((found, count),) = group_ways([read_image(case.images[0], case.frame)[1].way for case in cases])
    assert count == len(cases) and not found.nominal


def test_two_real_scans_that_lie_90_degrees_apart_are_two_ways(shared) -> None:
    from utseg.rawdata import open_dataset
    from utseg.rawdata.gate import read_image

    cases = {case.subject: case for case in open_dataset(shared / "data" / "raw" / "MnM").cases}
    scans = [read_image(case.images[0], case.frame)[1].way for case in cases.values()]
    assert len(scans) == 2 and len(group_ways(scans)) == 2
