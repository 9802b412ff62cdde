"""Draws: within their ranges, with their probabilities, and as plain numbers."""

import json
from dataclasses import asdict, fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slice_source import EVERYTHING, NOTHING

from utseg.augment.draw import INVERTED_GAMMA_SHARE, Augmentation, draw_augmentation
from utseg.planning.plan import AugmentationSettings

LATER = ("blur", "resolution", "histogram")
EARLIER = EVERYTHING.model_copy(update={f"{kind}_probability": 0.0 for kind in LATER})
RANGES = {
    "rotation_deg": ("rotation", (-40.0, 40.0), 0.0),
    "scale": ("scale", EVERYTHING.scale_range, 1.0),
    "noise_sd": ("noise", EVERYTHING.noise_sd_range, 0.0),
    "brightness": ("brightness", EVERYTHING.brightness_range, 0.0),
    "contrast": ("contrast", EVERYTHING.contrast_range, 1.0),
    "gamma": ("gamma", EVERYTHING.gamma_range, 1.0),
    "blur_sd_mm": ("blur", EVERYTHING.blur_sd_mm_range, 0.0),
    "resolution": ("resolution", EVERYTHING.resolution_range, 1.0),
    "histogram_share": ("histogram", EVERYTHING.histogram_share_range, 0.0),
}
BEFORE_LATER_KINDS = {
    0: "-16.773599409431526 0.8152894303696273 True False 0.09194873568054981 1159072725 -0.08737226774134846 1.2720555776371696 1.0 "
    "False 0.9029308397580095",
    7: "0.0 1.1953137494941095 True False 0.1835822801880186 2496377930 0.1599779892986578 1.2881713411856044 1.1334542796771323 "
    "False 0.7997015028464786",
}
"""By seed: the ten values drawn, and the next one of the generator, recorded before the kinds that came later."""


@pytest.fixture(scope="module")
def many() -> list[Augmentation]:
    rng = np.random.default_rng(0)
    return [draw_augmentation(rng, EVERYTHING) for _ in range(3000)]


@pytest.mark.parametrize("name", RANGES)
def test_each_kind_keeps_its_range_and_its_probability(name: str, many: list[Augmentation]) -> None:
    kind, (low, high), neutral = RANGES[name]
    values = np.array([getattr(augmentation, name) for augmentation in many])
    drawn = values[values != neutral]
    assert drawn.min() >= low and drawn.max() <= high
    assert np.ptp(drawn) > 0.98 * (high - low)
    assert drawn.mean() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
    assert len(drawn) / len(many) == pytest.approx(getattr(EVERYTHING, f"{kind}_probability"), abs=0.03)


@pytest.mark.parametrize("seed", BEFORE_LATER_KINDS)
@pytest.mark.parametrize("settings", [EVERYTHING, EARLIER])
def test_kinds_that_came_later_leave_the_earlier_draws_as_they_were(
    seed: int, settings: AugmentationSettings
) -> None:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, 5, 2)))
    drawn = list(asdict(draw_augmentation(rng, settings)).values())
    assert " ".join(map(str, [*drawn[:10], rng.random()])) == BEFORE_LATER_KINDS[seed]


def test_sources_are_spread_evenly(many: list[Augmentation]) -> None:
    values = np.array([each.style_source for each in many])
    assert values.min() >= 0 and values.max() < 1
    assert np.histogram(values, 4, (0, 1))[0] == pytest.approx(len(many) / 4, rel=0.1)


def test_flags_and_noise_seeds(many: list[Augmentation]) -> None:
    for name, share in (("mirror_y", 0.5), ("mirror_x", 0.5), ("gamma_inverted", INVERTED_GAMMA_SHARE)):
        assert np.mean([getattr(augmentation, name) for augmentation in many]) == pytest.approx(
            share, abs=0.03
        )
    assert len({augmentation.noise_seed for augmentation in many}) > len(many) - 5


def test_mirrors_only_the_planned_axes() -> None:
    only_x = EVERYTHING.model_copy(update={"mirror_axes": ("x",)})
    drawn = [draw_augmentation(np.random.default_rng(seed), only_x) for seed in range(50)]
    assert not any(augmentation.mirror_y for augmentation in drawn)
    assert any(augmentation.mirror_x for augmentation in drawn)


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_survives_json_and_is_the_same_for_the_same_seed(seed: int) -> None:
    first, second = (draw_augmentation(np.random.default_rng(seed), EVERYTHING) for _ in range(2))
    assert Augmentation(**json.loads(json.dumps(asdict(first)))) == first == second


@settings(deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(list(RANGES)))
def test_the_probability_of_one_kind_does_not_touch_the_others(seed: int, name: str) -> None:
    without = EVERYTHING.model_copy(update={f"{RANGES[name][0]}_probability": 0.0})
    full, reduced = (draw_augmentation(np.random.default_rng(seed), s) for s in (EVERYTHING, without))
    assert getattr(reduced, name) == RANGES[name][2]
    assert all(
        getattr(full, field.name) == getattr(reduced, field.name)
        for field in fields(Augmentation)
        if field.name != name
    )


def test_nothing_asked_for_draws_nothing() -> None:
    augmentation = draw_augmentation(np.random.default_rng(3), NOTHING)
    neutral = Augmentation(
        noise_seed=augmentation.noise_seed,
        gamma_inverted=augmentation.gamma_inverted,
        style_source=augmentation.style_source,
    )
    assert augmentation == neutral and not augmentation.interpolates and not augmentation.takes_style
