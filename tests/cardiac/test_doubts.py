"""A heart as it should be has no flags; each thing that is done to it has the flag that is for it, and only that."""

import numpy as np
import pytest
from hearts import LABELS, SPACING, beating_heart, heart_beat

from utseg.cardiac.cine import find_phases
from utseg.cardiac.doubts import doubt_curve, doubt_masks, doubt_measures, doubt_slices, doubt_times
from utseg.cardiac.volumes import measures_of

CURVE = 120 * heart_beat(25)


def flags(**curves: np.ndarray) -> set[tuple[str, str]]:
    main = curves.get("LV", curves.get("RV"))
    return {(flag.name, flag.severity) for flag in doubt_curve(curves, find_phases(main))}


def with_(curve: np.ndarray, frame: int, volume: float) -> np.ndarray:
    changed = curve.copy()
    changed[frame] = volume
    return changed


def test_curves_are_doubted_where_they_are_not_a_heart_beat():
    assert flags(LV=CURVE, RV=1.1 * CURVE, MYO=np.full(25, 100.0)) == set()
    assert flags(LV=with_(CURVE, 4, 5.0)) == {("jumps", "check")}
    assert len([*doubt_curve({"LV": with_(CURVE, 4, 5.0)}, find_phases(with_(CURVE, 4, 5.0)))]) == 1
    assert flags(LV=CURVE, RV=with_(CURVE, 20, 300.0)) == {("jumps", "check")}
    assert flags(LV=with_(CURVE, 4, 0.0)) == {("missing_frames", "check")}
    assert flags(LV=CURVE * (np.arange(25) % 9 == 0)) == {("missing_frames", "note")}
    assert flags(LV=0 * CURVE) == {("empty", "check")}
    assert flags(LV=np.full(25, 80.0)) == {("no_phases", "check")}
    assert flags(LV=CURVE[:9]) == {("open_cycle", "check")}
    assert flags(LV=CURVE[::-1]) == set()
    close = 100 + np.interp(np.arange(25), [0, 2, 10, 24], [20.0, -20, 15, 18])
    assert flags(LV=close) == {("phases_apart", "check")}


@pytest.mark.parametrize(
    ("volumes", "expected"),
    [
        ({"LV": (120, 50), "RV": (130, 60), "MYO": (100, 110)}, set()),
        ({"LV": (120, 50), "RV": (130, 80)}, {("stroke_volumes", "note")}),
        ({"LV": (120, 50), "RV": (130, 110)}, {("stroke_volumes", "check")}),
        ({"LV": (120, 50), "MYO": (100, 150)}, {("mass", "check")}),
        ({"LV": (120, 118)}, {("ef", "check")}),
        ({"LV": (120, 130), "RV": (130, 60)}, {("ef", "check")}),
        ({"RV": (120, 10)}, {("ef", "check")}),
    ],
)
def test_measures_that_no_heart_has(volumes, expected):
    measures: dict[str, float] = {}
    for role, ml in volumes.items():
        measures |= measures_of(role, *map(float, ml))
    mass = 1.05 * volumes["MYO"][1] if "MYO" in volumes else None
    assert {(flag.name, flag.severity) for flag in doubt_measures(measures, mass)} == expected


def test_masks_that_are_cut_off_or_lack_a_slice():
    mask = beating_heart(np.array([1.0]))[0]

    def found(mask_zyx: np.ndarray) -> set[str]:
        return {flag.name for flag in doubt_masks({"ED": mask_zyx}, SPACING, LABELS)}

    assert found(mask) == set()
    assert found(mask[1:]) == {"base_cut"} and found(mask[::-1][:-1]) == {"base_cut"}
    narrowed = mask[1:].copy()
    narrowed[0][:34][narrowed[0][:34] == 1] = 2
    assert found(narrowed) == set()
    assert found(mask[:6]) == {"apex_cut"} and found(mask[::-1][5:]) == {"apex_cut"}
    assert "few_slices" in found(mask[:4])
    gap = mask.copy()
    gap[4] = 0
    assert found(gap) == {"gaps", "one_component"}


def test_thickness_is_told_from_distance():
    assert not [*doubt_slices(8.0, None, None)] and not [*doubt_slices(8.0, 8.0, 8.0)]
    (gap,) = doubt_slices(10.0, 8.0, 10.0)
    assert (
        gap.name == "slice_gap"
        and "8 mm thick and 10 mm apart: discs are 10 mm high, gaps of 2 mm count" in gap.words
    )
    assert [flag.name for flag in doubt_slices(10.0, None, 8.0)] == ["slice_distance"]
    assert [flag.name for flag in doubt_times(20, 30.0, 800.0)] == ["open_cycle"]
    assert not [*doubt_times(25, 32.0, 800.0)]
