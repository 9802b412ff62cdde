"""Fit the length of a training into `--max-time`, from the measured time of an iteration and of validation.

The schedule then has that length: a run of ten minutes ends with a decayed learning rate, validated, like one of ten days. The measuring
steps are thrown away: the run that follows depends on the seed, the number of iterations and that of threads only.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from utseg.augment.loader import Batch
from utseg.errors import TimeTooShort
from utseg.inference.grid import windows_per_slice
from utseg.planning.plan import Plan
from utseg.training.interrupt import Interruption
from utseg.training.optimizer import set_learning_rate
from utseg.training.prepare import Run
from utseg.training.record import write_run
from utseg.training.run_folder import clear
from utseg.training.state import State, new_state
from utseg.training.step import precision, train_step
from utseg.training.validation import STEP_SIZE, validate

logger = logging.getLogger("utseg")
LEAST_EPOCHS = 20
LEAST_ITERATIONS = 100
VALIDATION_SHARE = 0.1
SAFETY = 0.04
MEASURING_SHARE = 0.03
LONGEST_MEASURING_S = 30.0
UNMEASURED_ITERATIONS = 2
LEAST_MEASURED = 3
MEASURED_ITERATIONS = 100  # that are there to measure, in a run of fewer too
TYPICAL_SIDE = 1.7
NATIVE_SECONDS_PER_CASE = 0.6
NATIVE_SECONDS = 5.0
MEASURED_CASES = 3


@dataclass(frozen=True)
class Timetable:
    """Length of a run, and how often it is validated (in epochs)."""

    epochs: int
    iterations_per_epoch: int
    validate_every: int


@dataclass(frozen=True)
class Speed:
    """Seconds of an iteration and of a validation during training."""

    iteration_s: float
    validation_s: float


def fit_run_to_time(run: Run, max_time_s: float, started: float, interruption: Interruption) -> Run:
    """The run with the number of epochs and iterations that fit, from the speed of steps and a validation that are thrown away.

    The time began at `started`.
    """
    processes, speed = run.processes, measure_speed(run, max_time_s, interruption)
    native_s = native_validation_seconds(speed.validation_s * processes.size, len(run.validation), run.plan)
    left_s = max_time_s - processes.on_first(lambda: time.monotonic() - started)
    timetable = processes.on_first(
        lambda: fit_to_time(
            left_s,
            iteration_s=speed.iteration_s,
            validation_s=speed.validation_s,
            planned_iterations_per_epoch=run.plan.iterations_per_epoch,
            native_validation_s=native_s,
            spent_s=max_time_s - left_s,
        )
    )
    logger.info(
        "%.3g s an iteration, %.3g s a validation: %d epochs of %d iterations fit into the time",
        speed.iteration_s,
        speed.validation_s,
        timetable.epochs,
        timetable.iterations_per_epoch,
    )
    recipe = run.recipe.model_copy(update={"validate_every": timetable.validate_every})
    record = run.record.model_copy(
        update={
            "epochs": timetable.epochs,
            "iterations_per_epoch": timetable.iterations_per_epoch,
            "recipe": recipe.model_dump(mode="json"),
        }
    )
    return replace(run, record=record, recipe=recipe, loop_limit_s=left_s - native_s)


def measure_speed(run: Run, max_time_s: float, interruption: Interruption) -> Speed:
    """The speed of a run's steps at a learning rate of 0, and of its validation, from a few cases."""
    state, processes = new_state(run), run.processes
    set_learning_rate(state.optimizer, 0.0)

    def step(batch: Batch) -> bool:
        settled = run.threads.is_settled  # before: the last piece of a trial is one with another number
        with run.threads.timed():
            train_step(
                state.network,
                state.optimizer,
                batch,
                run.recipe,
                run.device,
                processes.total,
                state.scaler,
                state.members_KN,
            )
        processes.check_interrupted(interruption)
        return settled and run.threads.is_settled

    with run.batches(0, max(run.iterations, MEASURED_ITERATIONS)) as batches:
        iteration_s = measure_iterations(step, batches, max_time_s, processes.now)
    cases = run.validation[: MEASURED_CASES * processes.size]
    if not cases:
        return Speed(iteration_s, 0.0)
    with precision(run.recipe.amp, run.device):
        found = validate(
            state.network,
            run.store,
            cases,
            run.plan,
            run.device,
            check=interruption.check,
            processes=processes,
        )
    return Speed(iteration_s, processes.on_first(lambda: found.seconds) / len(cases) * len(run.validation))


def keep_to_time(run: Run, state: State, number: int, spent_s: float) -> None:
    """Shortens a `--max-time` run that is slower than measured after `number` epochs, or takes that back, and records it.

    Raises TimeTooShort where too little is left to learn anything. No run is left then, or --resume would end with such a model.
    """
    if run.loop_limit_s is None or state.schedule.cools_down or state.iteration >= state.schedule.iterations:
        return
    per_epoch = run.record.iterations_per_epoch
    planned = state.schedule.iterations // per_epoch
    epochs = epochs_that_fit(run.record.epochs, number, spent_s, run.loop_limit_s)
    least = math.ceil(LEAST_ITERATIONS / 2 / per_epoch)
    if epochs < least and spent_s > run.loop_limit_s / 2:  # before that, the pace is known too roughly
        run.processes.on_first(lambda: clear(run.request.output))
        raise run.processes.for_all(
            TimeTooShort(
                f"{run.request.output}: the machine has become so slow that no more than {epochs * per_epoch} iterations fit into "
                "--max-time, from which nothing is learnt; start again with more time, or when there is less other work"
            )
        )
    epochs = max(epochs, least)
    if epochs != planned:
        logger.info("not as fast as measured: %d epochs instead of %d fit into the time", epochs, planned)
        state.schedule = state.schedule.retimed(state.iteration, epochs * per_epoch)
        record = run.record.model_copy(update={"epochs": epochs})
        run.processes.on_first(lambda: write_run(record, run.request.output))


def measure_iterations(
    step: Callable[[Batch], bool],
    batches: Iterator[Batch],
    limit_s: float,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Seconds an iteration, from the first ones: a few to get going, then as many as a small share of the limit allows.

    Those up to the last of which `step` says that it does not count, since the number of threads was being tried, are not measured.
    """
    allowed = min(MEASURING_SHARE * limit_s, LONGEST_MEASURING_S)
    began = clock()
    started, done = began, -UNMEASURED_ITERATIONS
    for batch in batches:
        counts = step(batch)
        now = clock()
        done += 1
        if done <= 0 or not counts:
            started, done = now, min(done, 0)
        elif done >= LEAST_MEASURED and now - began >= allowed:
            break
    return (clock() - started) / max(done, 1)


def fit_to_time(
    available_s: float,
    *,
    iteration_s: float,
    validation_s: float,
    planned_iterations_per_epoch: int,
    native_validation_s: float,
    spent_s: float,
) -> Timetable:
    """The longest run whose iterations, validations and final validation take no more than the available seconds.

    There are at least LEAST_EPOCHS epochs where there are that many iterations, so that a short run too has a curve; validation takes at
    most VALIDATION_SHARE. Raises TimeTooShort where fewer than LEAST_ITERATIONS fit: the U-Net on real scans, whose Dice is .03 after 25,
    begins to find hearts later. It says what time would be enough, with what was `spent_s` before.
    """
    usable = available_s * (1 - SAFETY) - native_validation_s - validation_s
    most = max(0, int(usable / iteration_s))
    per_epoch = min(planned_iterations_per_epoch, max(1, most // LEAST_EPOCHS))
    epochs, every = most // per_epoch, 1
    if most >= LEAST_ITERATIONS:
        every = max(1, math.ceil(epochs * validation_s / (VALIDATION_SHARE * usable)))
        most = int((usable - epochs // every * validation_s) / iteration_s)
        epochs = most // per_epoch
    if epochs * per_epoch < LEAST_ITERATIONS:
        wanted_s = LEAST_ITERATIONS / (1 - 2 * VALIDATION_SHARE) * iteration_s
        enough_s = spent_s + (native_validation_s + validation_s + wanted_s) / (1 - SAFETY - MEASURING_SHARE)
        raise TimeTooShort(
            f"--max-time is too short to learn anything: {epochs * per_epoch} iterations fit, {LEAST_ITERATIONS} are the least; "
            f"{math.ceil(enough_s)}s would be enough (an iteration takes {iteration_s:.3g} s, a validation {validation_s:.0f} s, "
            f"at native resolution about {native_validation_s:.0f} s, and {spent_s:.0f} s went before)"
        )
    return Timetable(epochs, per_epoch, min(every, epochs))


def epochs_that_fit(first: int, done: int, spent_s: float, available_s: float) -> int:
    """The number of epochs that fits at the pace of the `done` ones: fewer than `first` where the machine is slower, never more."""
    return max(done + 1, min(first, int(available_s * done / spent_s)))


def native_validation_seconds(validation_s: float, cases: int, plan: Plan) -> float:
    """What the validation at native resolution will take, from what one during training takes.

    Its windows have the planned step, as a network that has learnt little finds no focus; each mirroring doubles them; reading and scoring
    come on top.
    """
    if not cases:
        return 0.0
    height, width = (round(TYPICAL_SIDE * side) for side in plan.patch_size)
    windows = windows_per_slice((height, width), plan.patch_size, plan.step_size)
    windows /= windows_per_slice((height, width), plan.patch_size, STEP_SIZE)
    views = plan.augmentation.mirrored_views
    return validation_s * windows * views + NATIVE_SECONDS_PER_CASE * cases + NATIVE_SECONDS
