"""Patches of 2.5-D: the same window for all slices shown, one curve of intensities for a scan, and the middle as in 2d."""

from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slice_source import EVERYTHING, NOTHING, make_plan

from utseg.augment.apply import apply_augmentation
from utseg.augment.draw import Augmentation, draw_augmentation
from utseg.augment.loader import SliceLoader, list_slices
from utseg.augment.style import take_style

GEOMETRY = NOTHING.model_copy(
    update={"rotation_probability": 0.7, "scale_probability": 0.7, "mirror_axes": ("y", "x")}
)
two_and_a_half = partial(make_plan, configuration="2.5d", neighbour_distance_mm=10.0)


@dataclass(frozen=True)
class Stacks:
    """Two stacks of five slices of noise, 5 and 10 mm apart."""

    def records(self) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(
                case_id=case_id,
                slices=[SimpleNamespace(labels=[0, 1])] * 5,
                subject=case_id,
                groups={},
                slice_distance_mm=distance_mm,
            )
            for case_id, distance_mm in (("near", 5.0), ("wide", 10.0))
        ]

    def read_slice(self, case_id: str, z: int) -> tuple[np.ndarray, np.ndarray]:
        image = np.random.default_rng((len(case_id), ord(case_id[0]), z)).standard_normal((1, 40, 50))
        label = np.zeros((40, 50), np.uint8)
        label[10 + z : 30, 12:33] = 1
        return image.astype(np.float32), label


STORE = Stacks()


def batch(plan, iteration: int):
    return SliceLoader(STORE, list_slices(STORE.records(), plan), plan, seed=5).make_batch(iteration)


def test_the_middle_and_the_label_are_those_of_2d():
    for iteration in range(4):
        flat = batch(make_plan(augmentation=GEOMETRY), iteration)
        deep = batch(two_and_a_half(augmentation=GEOMETRY), iteration)
        assert flat.names == deep.names and deep.image_BCHW.shape[1] == 3
        np.testing.assert_array_equal(flat.label_BHW, deep.label_BHW)
        np.testing.assert_array_equal(flat.image_BCHW, deep.image_BCHW[:, 1:2])


def test_neighbours_are_those_at_the_planned_distance_of_the_same_case():
    plan = two_and_a_half(augmentation=NOTHING, patch_size=(40, 50))
    seen = set()
    for iteration in range(3):
        made = batch(plan, iteration)
        for name, image_CHW in zip(made.names, made.image_BCHW, strict=True):
            case_id, z = name.split("/")[0], int(name[-3:])
            step = 2 if case_id == "near" else 1
            for channel, place in enumerate((max(z - step, 0), z, min(z + step, 4))):
                np.testing.assert_array_equal(image_CHW[channel], STORE.read_slice(case_id, place)[0][0])
            seen.add(name)
    assert len(seen) == 10


@pytest.mark.parametrize("make", [make_plan, two_and_a_half])
def test_no_slice_is_read_twice_for_a_patch(make):
    """And in 2d one slice is read for each patch."""
    plan, reads = make(augmentation=NOTHING), []

    def read_slice(case_id: str, z: int) -> tuple[np.ndarray, np.ndarray]:
        reads.append((case_id, z))
        return STORE.read_slice(case_id, z)

    slices = list_slices(STORE.records(), plan)
    shown = {ref.name: len(set(ref.shown)) for ref in slices}
    store = SimpleNamespace(read_slice=read_slice)
    made = SliceLoader(store, slices, plan, seed=5, cache_bytes=0).make_batch(0)
    assert len(reads) == sum(shown[name] for name in made.names)


def scan(channels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Slices of very different brightness, (channels · 3, Y, X), and a label."""
    rng = np.random.default_rng(4)
    image = rng.standard_normal((channels, 3, 30, 34)) * [[[[0.3]], [[1.0]], [[2.0]]]] + [
        [[[-1]], [[0]], [[2]]]
    ]
    label = np.zeros((30, 34), np.uint8)
    label[8:20, 9:25] = 1
    return image.reshape(-1, 30, 34).astype(np.float32), label


WINDOW = {"patch_size": (24, 40), "center_yx": (15, 14)}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_geometry_is_one_draw_for_all_slices(seed: int):
    image, label = scan()
    draw = draw_augmentation(np.random.default_rng(seed), GEOMETRY)
    together, its_label = apply_augmentation(draw, image, label, **WINDOW, slices=3)
    for channel, one_slice in enumerate(image):
        alone, label_alone = apply_augmentation(draw, one_slice[None], label, **WINDOW)
        np.testing.assert_array_equal(together[channel], alone[0])
        np.testing.assert_array_equal(its_label, label_alone)


@pytest.mark.parametrize(
    "draw",
    [
        Augmentation(brightness=0.3, contrast=0.7, gamma=1.4),
        Augmentation(contrast=1.4, gamma=0.7, gamma_inverted=True),
        Augmentation(histogram_share=0.8),
    ],
)
def test_a_scan_changes_by_one_curve(draw: Augmentation):
    """A brighter value stays brighter, in whichever of the slices it is: no slice has a curve of its own."""
    image, label = scan()
    source = scan()[0] ** 3
    changed, _ = apply_augmentation(
        draw, image, label, patch_size=label.shape, center_yx=(15, 17), style_CHW=source, slices=3
    )
    assert not np.allclose(changed, image)
    for before, after in zip(image.reshape(2, -1), changed.reshape(2, -1), strict=True):
        assert np.diff(after[np.argsort(before)]).min() >= -1e-5


def test_a_whole_histogram_is_that_of_the_source_scan():
    image, _ = scan()
    source = (scan()[0] * 0.5 - 1)[:, :20]
    taken = take_style(Augmentation(histogram_share=1.0), image, source, 3)
    for got, wanted in zip(taken.reshape(2, -1), source.reshape(2, -1), strict=True):
        np.testing.assert_allclose(
            np.percentile(got, [5, 50, 95]), np.percentile(wanted, [5, 50, 95]), atol=0.05
        )


def test_mirroring_in_z_exchanges_the_neighbours_and_nothing_else():
    image, label = scan()
    exchanged = image.reshape(2, 3, 30, 34)[:, ::-1].reshape(image.shape)
    draw = Augmentation(rotation_deg=20.0, contrast=0.8, noise_sd=0.1, noise_seed=3)
    by_hand, label_by_hand = apply_augmentation(draw, exchanged, label, **WINDOW, slices=3)
    got, its_label = apply_augmentation(replace(draw, mirror_z=True), image, label, **WINDOW, slices=3)
    np.testing.assert_array_equal(got, by_hand)
    np.testing.assert_array_equal(its_label, label_by_hand)


def test_half_of_the_draws_mirror_in_z_where_the_plan_says_so_and_no_other_draw_moves():
    with_z = EVERYTHING.model_copy(update={"mirror_axes": ("z", *EVERYTHING.mirror_axes)})
    drawn = [
        [draw_augmentation(np.random.default_rng(seed), each) for each in (EVERYTHING, with_z)]
        for seed in range(400)
    ]
    assert not any(without.mirror_z for without, _ in drawn)
    assert 150 < sum(mirrored.mirror_z for _, mirrored in drawn) < 250
    assert all(replace(mirrored, mirror_z=False) == without for without, mirrored in drawn)
