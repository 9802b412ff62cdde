"""The learning rate against the published formula."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utseg.training.recipe import ScheduleSettings
from utseg.training.schedule import Schedule, warmup_share


@given(st.integers(20, 400), st.integers(1, 250))
def test_every_iteration_follows_the_published_formula(epochs, iterations_per_epoch):
    settings = ScheduleSettings(warmup_epochs=5, warmup_largest_share=1.0)
    total = epochs * iterations_per_epoch
    schedule = Schedule(total, warmup_share(settings, epochs))
    for iteration in {0, 1, total // 9, total // 2, total - 1}:
        epoch = iteration / iterations_per_epoch
        expected = (
            0.05 * math.exp(10 * (epoch / 5 - 1)) if epoch < 5 else 0.05 * (1 - iteration / total) ** 0.9
        )
        assert schedule.learning_rate(iteration, 0.05, 0.9) == pytest.approx(expected, rel=1e-9)


def test_warm_up_is_a_bounded_share_of_a_short_run():
    settings = ScheduleSettings(warmup_epochs=5, warmup_largest_share=0.1)
    assert warmup_share(settings, 150) == pytest.approx(5 / 150)
    assert warmup_share(settings, 10) == 0.1


def test_without_warm_up_the_peak_comes_first():
    assert Schedule(100, 0.0).learning_rate(0, 0.1, 0.9) == 0.1


@given(st.integers(1, 20), st.integers(2, 20), st.data())
def test_a_rate_that_changes_once_an_epoch_is_that_of_its_first_iteration(per_epoch, epochs, data):
    """As nnU-Net's, (1 − epoch/epochs)^.9; retimed at the end of an epoch, too."""
    schedule = Schedule(per_epoch * epochs, 0.0, held=per_epoch)
    iteration = data.draw(st.integers(0, per_epoch * epochs - 1))
    expected = (1 - iteration // per_epoch / epochs) ** 0.9
    assert schedule.learning_rate(iteration, 1.0, 0.9) == pytest.approx(expected)
    short = schedule.retimed(per_epoch, 2 * per_epoch)
    assert short.learning_rate(2 * per_epoch - 1, 1.0, 0.9) == schedule.learning_rate(per_epoch, 1.0, 0.9)


@given(st.integers(2, 1000), st.data())
def test_a_retimed_schedule_goes_on_where_it_was_and_still_ends_at_zero(total, data):
    at = data.draw(st.integers(0, total - 1))
    shorter = data.draw(st.integers(at + 1, total))
    schedule = Schedule(total, 0.05)
    short = schedule.retimed(at, shorter)
    assert short.progress(at) == schedule.progress(at)
    assert short.progress(shorter) == pytest.approx(1)
    rates = [short.progress(iteration) for iteration in range(at, shorter)]
    assert rates == sorted(rates)
    assert short.retimed(at, total).progress(total) == pytest.approx(1)
