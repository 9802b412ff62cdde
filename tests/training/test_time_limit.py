"""`--max-time`: what is chosen fits, and uses the time."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utseg.errors import InputError
from utseg.training.time_limit import LEAST_EPOCHS, epochs_that_fit, fit_to_time, measure_iterations


def fit(available, iteration_s, validation_s, planned=100, native=40):
    return fit_to_time(
        available,
        iteration_s=iteration_s,
        validation_s=validation_s,
        planned_iterations_per_epoch=planned,
        native_validation_s=native,
    )


@given(st.floats(0.001, 5), st.floats(0, 100), st.floats(1, 1e5), st.integers(1, 500), st.floats(0, 60))
def test_the_timetable_fits_and_uses_most_of_the_time(iteration_s, validation_s, available, planned, native):
    try:
        found = fit(available, iteration_s, validation_s, planned, native)
    except InputError as error:
        assert available * 0.96 < native + validation_s + iteration_s
        assert "needed" in str(error)
        return
    iterations = found.epochs * found.iterations_per_epoch
    validations = found.epochs // found.validate_every + (found.epochs % found.validate_every > 0)
    taken = iterations * iteration_s + validations * validation_s + native
    assert iterations >= 1
    assert 1 <= found.validate_every <= found.epochs
    slack = iteration_s + validation_s
    assert taken <= available + 1e-6 + slack * (iterations == 1)
    epoch_s = iteration_s * found.iterations_per_epoch  # what is left of an epoch is not trained
    assert taken >= 0.85 * (available - slack - native) - epoch_s - slack
    assert found.epochs >= 0.85 * min(LEAST_EPOCHS, iterations) - 1


def test_validation_takes_a_tenth_at_most():
    found = fit(900, 0.3, 20)
    assert found.epochs // found.validate_every * 20 <= 0.1 * 900
    assert found.validate_every > 1


def test_cheap_validation_is_done_every_epoch():
    found = fit(900, 0.3, 1)
    assert found.validate_every == 1


def test_a_run_slower_than_measured_is_shortened_and_only_then():
    assert epochs_that_fit(20, 5, 20.0, 200.0) == 20
    assert epochs_that_fit(20, 5, 50.0, 200.0) == 20
    assert epochs_that_fit(20, 5, 100.0, 200.0) == 10
    assert epochs_that_fit(20, 5, 1000.0, 200.0) == 6


def test_the_first_iterations_are_not_counted():
    pauses = iter([0.3, 0.2] + [0.01] * 50)
    seconds = measure_iterations(lambda batch: time.sleep(batch), pauses, limit_s=4.0)
    assert 0.01 <= seconds < 0.1


def test_measuring_survives_a_run_of_few_iterations():
    assert measure_iterations(lambda batch: time.sleep(0.01), iter([0]), 60.0) > 0


def test_too_short_a_time_says_what_is_needed():
    with pytest.raises(InputError, match="too short"):
        fit(5, 0.3, 2, native=10)
