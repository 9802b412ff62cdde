"""The one loop that trains every network: prepare, make or restore the state, step, validate, save, and validate at native resolution.

What is trained and how is in the recipe; what it is trained on is in the plan and the slices. A run is a function of its record: on a CPU
with the same number of threads it ends with the same weights, bit for bit, however often it was killed and resumed.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace

from utseg.augment.loader import Batch, training_batches
from utseg.compute.pool import available_cores
from utseg.errors import Interrupted, UtsegError
from utseg.files import folder_lock, remove_leftovers, require_writable
from utseg.progress import progress
from utseg.training import checkpoint
from utseg.training.checkpoint import random_state
from utseg.training.interrupt import Interruption, Stopped, interruptible
from utseg.training.log import Epoch, RunLog, report
from utseg.training.optimizer import set_learning_rate
from utseg.training.prepare import Run, check_same_everywhere, prepare
from utseg.training.processes import World, joined
from utseg.training.recipe import Recipe
from utseg.training.record import RUN_FILE, write_run
from utseg.training.request import TrainRequest, TrainResult
from utseg.training.run_folder import claim, require_run, unfinish
from utseg.training.state import State, best_packed, new_state, packed, restored
from utseg.training.step import LossNotFinite, Sums, precision, train_step
from utseg.training.time_limit import (
    Speed,
    epochs_that_fit,
    fit_to_time,
    measure_iterations,
    native_validation_seconds,
)
from utseg.training.validation import Validation, validate

logger = logging.getLogger("utseg")
GPU_LOADER_WORKERS = 6
OVERLAYS = 3
EPOCHS_WITH_OVERLAYS = 20
MEASURED_CASES = 3


Finish = Callable[[Run, State, bool], dict[str, float | None]]


def train(request: TrainRequest, recipe: Recipe, finish: Finish) -> TrainResult:
    """Trains, or goes on with `request.resume`; then rank 0 calls `finish`, which saves and validates the model.

    `finish` is told whether the run was complete when it was found, and returns the Dice of each label.
    """
    started = time.monotonic()
    world = joined()
    with world.naming_errors(), ExitStack() as held:
        request = after_restart(request, world)
        run = world.together(lambda: claimed(request, recipe, world, held))
        check_same_everywhere(run)
        record, recipe = world.from_first(lambda: (run.record, run.recipe))
        run = replace(run, record=record, recipe=recipe)
        with interruptible(one_of_many=world.size > 1) as interruption:
            run, state = start(run, started, interruption)
            is_complete = state.is_complete
            if not is_complete:
                world.from_first(lambda: unfinish(request.output))
                fit(run, state, interruption)
        dice = finish(run, state, is_complete) if world.is_first else {}
    if world.is_first:
        report(dice, request)
    defined = {name: value for name, value in dice.items() if value is not None}
    return TrainResult(request.output, defined, time.monotonic() - started)


def after_restart(request: TrainRequest, world: World) -> TrainRequest:
    """The request as it is meant when torchrun has started the processes again: to go on where a run is there."""
    if not world.restarts:
        return request
    is_there = world.from_first(lambda: (request.output / RUN_FILE).is_file())
    return replace(request, resume=is_there, overwrite=False)


def claimed(request: TrainRequest, recipe: Recipe, world: World, held: ExitStack) -> Run:
    """The run to work on, checked; rank 0 holds its folder."""
    run = prepare(request, recipe, world)
    if not world.is_first:
        return run
    if request.resume:
        require_run(request.output)
    require_writable(request.output)
    held.enter_context(folder_lock(request.output))
    remove_leftovers(request.output)
    return claim(run)


def start(run: Run, started: float, interruption: Interruption) -> tuple[Run, State]:
    """The state to go on from. A new run is fitted to `--max-time`, which began at `started`, and recorded first."""
    folder, world = run.request.output, run.world
    if run.request.resume:
        saved = world.from_first(
            lambda: checkpoint.load_latest(folder) if checkpoint.has_checkpoint(folder) else None
        )
        if saved is None:
            logger.info("%s: the run was stopped before its first checkpoint and begins anew", folder)
            return run, new_state(run)
        state = restored(run, saved)
        logger.info("resuming after iteration %d of %d", state.iteration, state.course.iterations)
        return run, state
    if run.request.max_time_s is not None:
        try:
            run = fitted_to_time(run, run.request.max_time_s, started, interruption)
        except Stopped:
            raise world.for_all(
                Interrupted(f"stopped by {interruption.reason} before training began; run again to start")
            ) from None
    world.from_first(lambda: write_run(run.record, folder))
    return run, new_state(run)


def fitted_to_time(run: Run, max_time_s: float, started: float, interruption: Interruption) -> Run:
    """The run with the number of epochs and iterations that fit, from the speed of steps and a validation that are thrown away."""
    state, world = new_state(run), run.world
    set_learning_rate(state.optimizer, 0.0)

    def step(batch: Batch) -> None:
        train_step(state.network, state.optimizer, batch, run.recipe, run.device, world)
        world.pulse(interruption)

    with batches_of(run, 0, run.iterations) as batches:
        iteration_s = measure_iterations(step, batches, max_time_s, world.now)
    record, cases = run.record, run.record.validation_cases[: MEASURED_CASES * world.size]
    validation_s = 0.0
    if cases:
        with precision(run.recipe.amp, run.device):
            found = validate(
                state.network,
                run.store,
                cases,
                run.plan,
                run.device,
                check=interruption.check,
                world=world,
            )
        validation_s = world.from_first(lambda: found.seconds) / len(cases) * len(record.validation_cases)
    native_s = native_validation_seconds(
        validation_s * world.size, len(record.validation_cases), len(run.plan.augmentation.mirror_axes)
    )
    left_s = max_time_s - world.from_first(lambda: time.monotonic() - started)
    timetable = world.from_first(
        lambda: fit_to_time(
            left_s,
            Speed(iteration_s, validation_s),
            planned_iterations_per_epoch=run.plan.iterations_per_epoch,
            native_validation_s=native_s,
        )
    )
    logger.info(
        "%.3g s an iteration, %.3g s a validation: %d epochs of %d iterations fit into the time",
        iteration_s,
        validation_s,
        timetable.epochs,
        timetable.iterations_per_epoch,
    )
    recipe = run.recipe.model_copy(update={"validate_every": timetable.validate_every})
    record = record.model_copy(
        update={
            "epochs": timetable.epochs,
            "iterations_per_epoch": timetable.iterations_per_epoch,
            "recipe": recipe.model_dump(mode="json"),
        }
    )
    return replace(run, record=record, recipe=recipe, loop_limit_s=left_s - native_s)


def batches_of(run: Run, first: int, count: int) -> AbstractContextManager[Iterator[Batch]]:
    """The batches of some of the run's iterations."""
    workers = run.request.workers
    if workers is None:
        cores = available_cores() // run.world.local_size
        workers = 0 if run.device.type == "cpu" else min(GPU_LOADER_WORKERS, max(1, cores - 1))
    return training_batches(
        run.store,
        run.record.training_cases,
        run.plan,
        seed=run.record.seed,
        first_iteration=first,
        iterations=count,
        workers=workers,
        places=run.world.places(run.plan.batch_size),
    )


def fit(run: Run, state: State, interruption: Interruption) -> None:
    """Trains until the course is complete. After a signal the state is saved and Interrupted raised."""
    folder, world = run.request.output, run.world
    began = saved = world.now()
    remaining = state.course.iterations - state.iteration
    shows_progress = world.is_first and sys.stderr.isatty()
    bar = progress("train", remaining) if shows_progress else nullcontext(lambda: None)
    state.network.train()
    with (
        RunLog(folder, state.history) if world.is_first else nullcontext() as log,
        batches_of(run, state.iteration, remaining) as batches,
        bar as advance,
    ):
        try:
            while not state.is_complete:
                course = state.course
                if state.sums.iterations == run.record.iterations_per_epoch:
                    end_epoch(run, state, log, interruption, began)
                    now = world.now()
                else:
                    iterate(run, state, batches)
                    advance()
                    now = world.pulse(interruption)
                # Another course is in run.json already, and a resumed run must follow it.
                must = state.is_complete or state.course is not course
                if must or now - saved > 60 * run.recipe.save_minutes:
                    save(run, state)
                    saved = now
        except Stopped:
            save(run, state)
            raise world.for_all(
                Interrupted(
                    f"{folder}: stopped by {interruption.reason} after iteration {state.iteration} of {state.course.iterations}, all is "
                    "saved; the same command with --resume goes on"
                )
            ) from None
        if log is not None:
            log.picture()


def save(run: Run, state: State) -> None:
    """Writes the latest checkpoint, with the random states of all processes; they go on when it is there."""
    generators = run.world.gathered(random_state())
    run.world.from_first(lambda: checkpoint.save_latest(packed(state, generators), run.request.output))


def iterate(run: Run, state: State, batches: Iterator[Batch]) -> None:
    """One iteration. A loss that is not finite ends the run before the step."""
    began = time.perf_counter()
    batch = next(batches)
    assert batch.iteration == state.iteration, "the loader and the loop are at the same iteration"
    waited = time.perf_counter() - began
    settings = run.recipe
    rate = state.course.learning_rate(
        state.iteration, settings.optimizer.learning_rate, settings.schedule.power
    )
    set_learning_rate(state.optimizer, rate)
    try:
        loss, terms, norm = train_step(
            state.network, state.optimizer, batch, run.recipe, run.device, run.world
        )
    except LossNotFinite as error:
        kept = (
            f"the best checkpoint (epoch {state.best_epoch}) is kept"
            if state.best_epoch
            else "no checkpoint was chosen yet"
        )
        raise run.world.for_all(
            UtsegError(
                f"{run.request.output}: iteration {state.iteration + 1} (epoch {state.epoch + 1}): {error}; stopped before the step, "
                f"{kept}; look at these slices, or lower the learning rate (--set optimizer.learning_rate=…)"
            )
        ) from None
    if state.average:
        state.average.add(state.network)
    state.iteration += 1
    state.sums.add(loss, terms, norm)
    seconds = time.perf_counter() - began
    state.sums.seconds += seconds
    state.sums.data_wait += waited
    state.seconds += seconds


def end_epoch(run: Run, state: State, log: RunLog | None, interruption: Interruption, began: float) -> None:
    """Validates where it is due, saves the best, logs. The state changes only after validation, which may be stopped."""
    number, record, world = state.epoch + 1, run.record, run.world
    validation = None
    if number % run.recipe.validate_every == 0 or state.iteration >= state.course.iterations:
        pictures = shows_pictures(number, record.epochs, run.recipe.validate_every)
        with precision(run.recipe.amp, run.device):
            validation = validate(
                state.outcome,
                run.store,
                record.validation_cases,
                run.plan,
                run.device,
                loss=run.recipe.loss,
                overlays=OVERLAYS if pictures else 0,
                check=interruption.check,
                world=world,
            )
    is_best = validation is not None and is_at_least(validation.mean_dice, state.best_score)
    if validation is not None and is_best:
        world.from_first(
            lambda: checkpoint.save_best(best_packed(state, validation.mean_dice), run.request.output)
        )
        state.best_score, state.best_epoch = validation.mean_dice, number
    keep_to_time(run, state, number, world.now() - began)
    state.seconds += validation.seconds if validation else 0.0
    epoch = epoch_record(run, state, validation, is_best and state.best_score is not None)
    state.history.append(epoch)
    state.sums = Sums()
    if log is not None:
        log.epoch(epoch, validation.overlays if validation else ())


def shows_pictures(number: int, epochs: int, validate_every: int) -> bool:
    """Whether the validation of this epoch comes with pictures: the first, the last and those in between, about twenty in all."""
    every = validate_every * max(1, epochs // validate_every // EPOCHS_WITH_OVERLAYS)
    return number == validate_every or number >= epochs or number % every == 0


def is_at_least(score: float | None, best: float | None) -> bool:
    """Whether a mean Dice is as good as the best so far. Where there is none to compare (no validation cases), later is better."""
    return best is None or (score is not None and score >= best)


def keep_to_time(run: Run, state: State, number: int, spent_s: float) -> None:
    """Shortens a `--max-time` run that is slower than measured, or takes that back, and records it."""
    if run.loop_limit_s is None or state.iteration >= state.course.iterations:
        return
    planned = state.course.iterations // run.record.iterations_per_epoch
    epochs = epochs_that_fit(run.record.epochs, number, spent_s, run.loop_limit_s)
    if epochs != planned:
        logger.info("not as fast as measured: %d epochs instead of %d fit into the time", epochs, planned)
        state.course = state.course.retimed(state.iteration, epochs * run.record.iterations_per_epoch)
        record = run.record.model_copy(update={"epochs": epochs})
        run.world.from_first(lambda: write_run(record, run.request.output))


def epoch_record(run: Run, state: State, validation: Validation | None, is_best: bool) -> Epoch:
    """The epoch's line in `training.jsonl`. `iterations` is the length of the whole schedule."""
    sums = state.sums
    return {
        "epoch": state.epoch + 1,
        "epochs": state.course.iterations // run.record.iterations_per_epoch,
        "iteration": state.iteration,
        "iterations": state.course.iterations,
        "slices": sums.iterations * run.plan.batch_size,
        "loss": sums.loss / sums.iterations,
        "terms": {name: value / sums.iterations for name, value in sums.terms.items()},
        "gradient_norm": sums.gradient_norm / sums.iterations,
        "learning_rate": max(group["lr"] for group in state.optimizer.param_groups),
        "validation_losses": validation.losses if validation else None,
        "validation_dice": validation.dice if validation else None,
        "mean_dice": validation.mean_dice if validation else None,
        "both_empty": validation.empty if validation else None,
        "best": is_best,
        "seconds": sums.seconds + (validation.seconds if validation else 0.0),
        "data_wait_seconds": sums.data_wait,
        "validation_seconds": validation.seconds if validation else 0.0,
        "total_seconds": state.seconds,
    }
