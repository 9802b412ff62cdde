"""`--max-time`: how many iterations fit, from a measured throughput. The schedule then has that length, so that a run of ten minutes
ends with a decayed learning rate, validated, like one of ten days.

The measuring steps are thrown away: the run that follows depends on the seed and the number of iterations only.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from utseg.augment.loader import Batch
from utseg.errors import InputError

logger = logging.getLogger("utseg")
LEAST_EPOCHS = 20
VALIDATION_SHARE = 0.1
SAFETY = 0.04
MEASURING_SHARE = 0.03
LONGEST_MEASURING_S = 30.0
UNMEASURED_ITERATIONS = 2
LEAST_MEASURED = 3
NATIVE_FACTOR = 2.25
NATIVE_SECONDS_PER_CASE = 0.6
NATIVE_SECONDS = 5.0


@dataclass(frozen=True)
class Speed:
    """Measured seconds: of one iteration (loader included), of one validation of all cases."""

    iteration_s: float
    validation_s: float


@dataclass(frozen=True)
class Timetable:
    """Length of a run, and how often it is validated (in epochs)."""

    epochs: int
    iterations_per_epoch: int
    validate_every: int


def measure_iterations(
    step: Callable[[Batch], object],
    batches: Iterator[Batch],
    budget_s: float,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Seconds an iteration, from the first ones: a few to get going, then as many as a small share of the budget allows."""
    allowed = min(MEASURING_SHARE * budget_s, LONGEST_MEASURING_S)
    began = clock()
    started, done = began, 0
    for done, batch in enumerate(batches, 1 - UNMEASURED_ITERATIONS):
        step(batch)
        now = clock()
        if done <= 0:
            started = now
        elif done >= LEAST_MEASURED and now - began >= allowed:
            break
    return (clock() - started) / max(done, 1)


def fit_to_time(
    available_s: float, speed: Speed, *, planned_iterations_per_epoch: int, native_validation_s: float
) -> Timetable:
    """The longest run whose iterations, validations and final validation take no more than the available seconds.

    There are at least LEAST_EPOCHS epochs where there are that many iterations, so that a short run too has a curve; validation takes at
    most VALIDATION_SHARE. Raises InputError where not even one iteration fits.
    """
    usable = available_s * (1 - SAFETY) - native_validation_s - speed.validation_s
    most = int(usable / speed.iteration_s)
    if most < 1:
        least = (native_validation_s + speed.validation_s + 2 * speed.iteration_s) / (1 - SAFETY)
        raise InputError(
            f"--max-time is too short: an iteration takes {speed.iteration_s:.2g} s, validation {speed.validation_s:.2g} s, "
            f"at native resolution about {native_validation_s:.2g} s; {max(available_s, 0):.0f} s are left, {least:.0f} s are needed"
        )
    per_epoch = min(planned_iterations_per_epoch, max(1, most // LEAST_EPOCHS))
    epochs = most // per_epoch
    every = max(1, math.ceil(epochs * speed.validation_s / (VALIDATION_SHARE * usable)))
    iterations = int((usable - epochs // every * speed.validation_s) / speed.iteration_s)
    epochs = max(1, iterations // per_epoch)
    return Timetable(epochs, per_epoch, min(every, epochs))


def epochs_that_fit(first: int, done: int, spent_s: float, available_s: float) -> int:
    """The number of epochs that fits at the pace of the `done` ones: fewer than `first` where the machine is slower, never more."""
    return max(done + 1, min(first, int(available_s * done / spent_s)))


def native_validation_seconds(validation_s: float, cases: int, mirror_axes: int) -> float:
    """What the validation at native resolution will take, from what one during training takes.

    Its windows overlap more and are computed in float32, each mirroring doubles them; reading and scoring come on top.
    """
    if not cases:
        return 0.0
    return (
        validation_s * NATIVE_FACTOR * (1 << mirror_axes) + NATIVE_SECONDS_PER_CASE * cases + NATIVE_SECONDS
    )
