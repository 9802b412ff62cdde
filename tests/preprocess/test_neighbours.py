"""What 2.5-D shows with each slice, against slices gathered one by one; and which plans are of it."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from plans import NO_AUGMENTATION, make_plan

from utseg.errors import SettingError
from utseg.planning.override import override
from utseg.preprocess.neighbours import shown_slices, with_neighbours

DISTANCES = st.floats(2, 25)


def plan_of(distance_mm: float, **changes):
    return make_plan(configuration="2.5d", neighbour_distance_mm=distance_mm, **changes)


def volume(channels: int, slices: int) -> np.ndarray:
    return np.random.default_rng(slices).standard_normal((channels, slices, 3, 4)).astype(np.float32)


@given(channels=st.integers(1, 2), slices=st.integers(1, 9), planned=DISTANCES, distance=DISTANCES)
def test_each_slice_is_shown_between_those_nearest_to_the_planned_distance(
    channels, slices, planned, distance
):
    image = volume(channels, slices)
    away = [abs(steps * distance - planned) for steps in range(1, 20)]
    assume(sorted(away)[1] - min(away) > 1e-6)
    steps = 1 + int(np.argmin(away))
    names = ("first", "second")[:channels]
    shown = with_neighbours(image, plan_of(planned, channel_names=names), distance)
    assert shown.shape[0] == plan_of(planned, channel_names=names).in_channels == 3 * channels
    for c in range(channels):
        for z in range(slices):
            below, above = max(z - steps, 0), min(z + steps, slices - 1)
            for channel, place in enumerate((below, z, above)):
                np.testing.assert_array_equal(shown[3 * c + channel, z], image[c, place])


@given(channels=st.integers(1, 2), slices=st.integers(1, 6), distance=DISTANCES)
def test_a_reversed_stack_is_shown_reversed(channels, slices, distance):
    image, plan = volume(channels, slices), plan_of(10.0)
    shown = with_neighbours(image, plan, distance).reshape(channels, 3, *image.shape[1:])
    reversed_stack = with_neighbours(image[:, ::-1], plan, distance).reshape(shown.shape)
    np.testing.assert_array_equal(reversed_stack, shown[:, ::-1, ::-1])


def test_2d_shows_each_slice_as_it_is():
    image = volume(2, 5)
    assert with_neighbours(image, make_plan(), 10.0) is image
    assert shown_slices(make_plan(), 5, 10.0).tolist() == [[z] for z in range(5)]


@pytest.mark.parametrize(
    ("configuration", "changes", "said"),
    [
        (
            "2d",
            {"neighbour_distance_mm": 8},
            "neighbour_distance_mm: expected millimetres in 2.5d, null in 2d",
        ),
        ("2.5d", {"neighbour_distance_mm": None}, "neighbour_distance_mm: expected millimetres in 2.5d"),
        ("2.5d", {"neighbour_distance_mm": 0}, "neighbour_distance_mm: .* greater than .*; found 0"),
        ("2.5d", {"neighbour_distance_mm": 1e300}, "neighbour_distance_mm: .* less than or equal to 1000"),
        ("2.5d", {"neighbour_distance_mm": float("inf")}, "neighbour_distance_mm: .* finite"),
        (
            "2d",
            {"augmentation.mirror_axes": ["z"]},
            r"--set: augmentation\.mirror_axes: z exchanges .* expected y and x only; found \('z',\)$",
        ),
    ],
)
def test_values_of_the_other_configuration_are_refused(configuration, changes, said):
    plan = plan_of(8.0) if configuration == "2.5d" else make_plan()
    with pytest.raises(SettingError, match=said):
        override(plan, changes)


def test_only_mirrorings_in_the_plane_are_views():
    axes = NO_AUGMENTATION.model_copy(update={"mirror_axes": ("z", "x")})
    assert (NO_AUGMENTATION.mirrored_views, axes.mirrored_views) == (1, 2)
