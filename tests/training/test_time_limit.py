"""`--max-time`: what is chosen fits, and uses the time."""

import re
from itertools import chain, repeat
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utseg.errors import TimeTooShort
from utseg.training import time_limit
from utseg.training.checkpoint import BEST, LATEST
from utseg.training.processes import Processes
from utseg.training.record import RUN_FILE
from utseg.training.schedule import Schedule
from utseg.training.time_limit import (
    LEAST_EPOCHS,
    LEAST_ITERATIONS,
    epochs_that_fit,
    fit_to_time,
    keep_to_time,
    measure_iterations,
)


def fit(available, iteration_s, validation_s, planned=100, native=40, spent=0.0):
    return fit_to_time(
        available,
        iteration_s=iteration_s,
        validation_s=validation_s,
        planned_iterations_per_epoch=planned,
        native_validation_s=native,
        spent_s=spent,
    )


@given(st.floats(0.001, 5), st.floats(0, 100), st.floats(1, 1e5), st.integers(1, 500), st.floats(0, 60))
def test_the_timetable_fits_and_uses_most_of_the_time(iteration_s, validation_s, available, planned, native):
    try:
        found = fit(available, iteration_s, validation_s, planned, native)
    except TimeTooShort as error:
        fitting, least, enough = map(
            int, re.findall(r"(\d+) iterations fit, (\d+) are .* (\d+)s would", str(error))[0]
        )
        assert fitting < least == LEAST_ITERATIONS
        assert available < native + validation_s + 1.4 * least * iteration_s
        assert fit(enough, iteration_s, validation_s, planned, native)
        return
    iterations = found.epochs * found.iterations_per_epoch
    validations = found.epochs // found.validate_every + (found.epochs % found.validate_every > 0)
    taken = iterations * iteration_s + validations * validation_s + native
    assert iterations >= LEAST_ITERATIONS
    assert 1 <= found.validate_every <= found.epochs
    slack = iteration_s + validation_s
    assert taken <= available + 1e-6
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


def measured(seconds, limit_s, counting=(True,)):
    """What is measured of iterations that take so long, and how many are made."""
    now, done = 0.0, 0
    counts = chain(counting, repeat(True))

    def step(batch):
        nonlocal now, done
        now, done = now + batch, done + 1
        return next(counts)

    return measure_iterations(step, iter(seconds), limit_s, lambda: now), done


def test_the_first_iterations_are_not_measured():
    assert measured([30, 20] + [1.0] * 50, limit_s=2000) == (pytest.approx(1.0), 5)
    assert measured([3, 2] + [1.0] * 50, limit_s=500) == (pytest.approx(1.0), 12)


def test_nor_are_those_before_the_number_of_threads_is_settled():
    counting = [True, True, False, False, True, False]
    found, done = measured([1, 1, 9, 9, 2, 5, *[0.5] * 50], 600, counting)
    assert found == pytest.approx(0.5) and done == 6 + 3


def test_measuring_survives_a_run_of_few_iterations():
    assert measured([1.0, 1.0, 2.0], 60.0) == (2.0, 3)


def test_too_short_a_time_says_what_fits_and_what_would_be_enough():
    with pytest.raises(
        TimeTooShort, match=r"15 iterations fit, 100 are the least; 16\ds would be enough .* 20 s went before"
    ):
        fit(16.5 + 12, 1.0, 2, native=10, spent=20.0)


def slowed(monkeypatch, folder, epochs_done, spent_s):
    """The epochs of a run of 20, of 5 iterations each in 100 s, as they are recorded after some of them."""
    recorded = []
    record = SimpleNamespace(epochs=20, iterations_per_epoch=5, model_copy=lambda update: update["epochs"])
    monkeypatch.setattr(time_limit, "write_run", lambda record, folder: recorded.append(record))
    run = SimpleNamespace(
        loop_limit_s=100.0, record=record, processes=Processes(), request=SimpleNamespace(output=folder)
    )
    state = SimpleNamespace(iteration=5 * epochs_done, schedule=Schedule(100, 0.05))
    keep_to_time(run, state, epochs_done, spent_s)
    assert not recorded or state.schedule.iterations == 5 * recorded[0]
    return recorded


def test_a_run_that_becomes_too_slow_to_learn_anything_is_an_error_and_none_to_resume(tmp_path, monkeypatch):
    for name in (RUN_FILE, LATEST, BEST):
        (tmp_path / name).touch()
    assert slowed(monkeypatch, tmp_path, 2, 10.0) == []
    assert slowed(monkeypatch, tmp_path, 4, 30.0) == [13]
    assert slowed(monkeypatch, tmp_path, 1, 40.0) == [10]  # too early to tell
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(TimeTooShort, match="no more than 15 iterations fit") as error:
        slowed(monkeypatch, tmp_path, 2, 60.0)
    assert str(tmp_path) in str(error.value) and not list(tmp_path.iterdir())
