"""Which slice and which place: even coverage, the planned share of foreground, and no memory of what went before."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slice_source import MadeSlices, make_plan

from utseg.augment.loader import list_slices
from utseg.augment.sampling import PatchSampler, SliceRef, draw_center

SLICES = list_slices(MadeSlices().records(), make_plan())


@settings(deadline=None)
@given(fraction=st.floats(0, 1), seed=st.integers(0, 2**40))
def test_every_pass_takes_every_slice_once(fraction: float, seed: int) -> None:
    sampler = PatchSampler(SLICES, foreground_fraction=fraction, seed=seed)
    chosen = [sampler.choose(number) for number in range(300)]
    anywhere = [ref.name for ref, value in chosen if value is None]
    for begin in range(0, len(anywhere) - len(SLICES) + 1, len(SLICES)):
        assert sorted(anywhere[begin : begin + len(SLICES)]) == sorted(ref.name for ref in SLICES)
    assert 300 - len(anywhere) == int(300 * fraction)


def test_foreground_takes_labels_in_turn_and_their_slices_evenly() -> None:
    sampler = PatchSampler(SLICES, foreground_fraction=0.4, seed=1)
    aimed = [(ref, value) for ref, value in map(sampler.choose, range(1200)) if value is not None]
    assert all(value in ref.labels for ref, value in aimed)
    assert set(Counter(value for _, value in aimed).values()) == {len(aimed) // 3}
    for value in (1, 2, 3):
        times = Counter(ref.name for ref, aim in aimed if aim == value)
        assert len(times) == sum(value in ref.labels for ref in SLICES)
        assert max(times.values()) - min(times.values()) <= 1


def test_a_choice_depends_on_seed_and_number_only() -> None:
    forwards, backwards = (PatchSampler(SLICES, foreground_fraction=0.4, seed=7) for _ in range(2))
    first = [forwards.choose(number) for number in range(200)]
    assert [backwards.choose(number) for number in reversed(range(200))] == first[::-1]
    other = PatchSampler(SLICES, foreground_fraction=0.4, seed=8)
    assert [other.choose(number) for number in range(200)] != first


def test_generators_differ_between_iterations_places_and_seeds() -> None:
    samplers = [PatchSampler(SLICES, foreground_fraction=0, seed=seed) for seed in (0, 1)]
    drawn = {s.rng(i, j).integers(2**60) for s in samplers for i in range(10) for j in range(10)}
    assert len(drawn) == 200


def test_without_any_label_patches_lie_anywhere() -> None:
    sampler = PatchSampler([SliceRef("a", 0, (), (0,))], foreground_fraction=0.5, seed=0)
    assert {sampler.choose(number)[1] for number in range(10)} == {None}


@settings(deadline=None)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    patch=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    seed=st.integers(0, 1000),
    aimed=st.booleans(),
)
def test_the_window_is_in_the_slice_or_the_slice_in_the_window(
    size: tuple[int, int], patch: tuple[int, int], seed: int, aimed: bool
) -> None:
    rng = np.random.default_rng(seed)
    label = np.zeros(size, np.uint8)
    pixel = tuple(int(rng.integers(n)) for n in size)
    label[pixel] = 2
    center = draw_center(rng, label, patch, 2 if aimed else None)
    for c, s, p, target in zip(center, size, patch, pixel, strict=True):
        start = c - p // 2
        assert min(0, s - p) <= start <= max(0, s - p)
        assert not aimed or start <= target < start + p


def test_places_are_uniform() -> None:
    rng = np.random.default_rng(0)
    label = np.zeros((30, 20), np.uint8)
    starts = Counter(draw_center(rng, label, (20, 20), None)[0] - 10 for _ in range(2200))
    assert sorted(starts) == list(range(11))
    assert min(starts.values()) > 140


@pytest.mark.parametrize("value", [1, 3])
def test_the_aim_is_any_pixel_of_the_label(value: int) -> None:
    rng = np.random.default_rng(0)
    label = np.zeros((50, 50), np.uint8)
    label[20:23, 30:32], label[40, 5] = 1, 3
    centers = {draw_center(rng, label, (5, 5), value) for _ in range(200)}
    assert centers == {(int(y), int(x)) for y, x in np.argwhere(label == value)}
