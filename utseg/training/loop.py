"""The one loop that trains every network: prepare, make or restore the state, step, validate, save, and validate at native resolution.

What is trained and how is in the recipe; what it is trained on is in the plan and the slices. A run is a function of its record and, on a
CPU, of the number of threads of each iteration, which is in its log: with the same numbers it ends with the same weights, bit for bit,
however often it was killed and resumed. A resumed run goes on with the number it was saved with; what was done after the checkpoint is done
again, and logged anew, with the numbers that are fastest then.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace

from utseg.augment.loader import Batch
from utseg.compute.threads import changes
from utseg.errors import InputError, Interrupted, UsageError, UtsegError
from utseg.progress import progress
from utseg.training import checkpoint
from utseg.training.checkpoint import random_state
from utseg.training.early_end import STOP, end_early
from utseg.training.interrupt import Interruption, Stopped, interruptible
from utseg.training.log import Epoch, RunLog, report
from utseg.training.optimizer import set_learning_rate
from utseg.training.prepare import Run, check_same_everywhere, prepare
from utseg.training.processes import Processes, join_processes
from utseg.training.recipe import Recipe
from utseg.training.record import RUN_FILE, WEIGHTS_FILE, write_run
from utseg.training.request import TrainRequest
from utseg.training.run_folder import claim, unfinish
from utseg.training.state import State, best_checkpoint, latest_checkpoint, new_state, resumed_state
from utseg.training.step import LossNotFinite, Sums, precision, train_step, warn_if_emulated
from utseg.training.time_limit import fit_run_to_time, keep_to_time
from utseg.training.validation import Validation, validate

logger = logging.getLogger("utseg")
OVERLAYS = 3
EPOCHS_WITH_OVERLAYS = 20

Finish = Callable[[Run, State, bool], dict[str, float | None]]


def train(request: TrainRequest, recipe: Recipe, finish: Finish) -> dict[str, float]:
    """Trains, or goes on with `request.resume`; then rank 0 calls `finish`, which saves and validates the model.

    With `request.validate` nothing is trained, and a run that has not come to the end of its training is an InputError.
    `finish` is told whether the run was complete when it was found, and returns the Dice of each label. Returns those that are defined.
    """
    started = time.monotonic()
    processes = join_processes()
    with processes.naming_errors(), ExitStack() as held:
        if request.validate and processes.size > 1:
            raise UsageError("--validate: one process predicts; run it without torchrun")
        request = after_restart(request, processes)
        wanted = processes.fail_together(lambda: prepare(request, recipe, processes))
        check_same_everywhere(wanted)  # before rank 0 takes over what an earlier run recorded
        run = processes.fail_together(lambda: claim(wanted, held) if processes.is_first else wanted)
        record, recipe = processes.on_first(lambda: (run.record, run.recipe))
        run = replace(run, record=record, recipe=recipe)
        warn_if_emulated(recipe.amp, run.device)
        with run.threads, interruptible(one_of_many=processes.size > 1) as interruption:
            run, state = start(run, started, interruption)
            is_complete = state.is_complete
            if not is_complete:
                processes.on_first(lambda: unfinish(request.output))
                run_schedule(run, state, interruption)
        dice = finish(run, state, is_complete) if processes.is_first else {}
    if processes.is_first:
        report(dice, request)
    return {name: value for name, value in dice.items() if value is not None}


def after_restart(request: TrainRequest, processes: Processes) -> TrainRequest:
    """The request as it is meant when torchrun has started the processes again: to go on where a run is there."""
    if not processes.restarts:
        return request
    is_there = processes.on_first(lambda: (request.output / RUN_FILE).is_file())
    return replace(request, resume=is_there, overwrite=False)


def start(run: Run, started: float, interruption: Interruption) -> tuple[Run, State]:
    """The state to go on from. A new run is fitted to `--max-time`, which began at `started`, and recorded first."""
    folder, processes = run.request.output, run.processes
    if run.request.of_run_there:
        saved = processes.on_first(lambda: checkpoint.load_latest(folder))
        state = None if saved is None else resumed_state(run, saved)
        if run.request.validate and not (state and state.is_complete):
            raise processes.for_all(
                InputError(
                    f"{folder}: nothing to validate, there is no checkpoint of the end of its training; the command that started it goes "
                    "on with it, with --resume (a model that was imported: utseg_predict and utseg_evaluate)"
                )
            )
        if state is None and (folder / WEIGHTS_FILE).is_file():
            raise processes.for_all(
                InputError(
                    f"{folder}: nothing to resume, the training came to its end and its checkpoints are gone; its model stays as it is "
                    "(--overwrite trains again)"
                )
            )
        if state is None:
            logger.info("%s: the run was stopped before its first checkpoint and begins anew", folder)
            return run, new_state(run)
        if not run.request.validate:
            logger.info("resuming after iteration %d of %d", state.iteration, state.schedule.iterations)
        return run, state
    if run.request.max_time_s is not None:
        try:
            run = fit_run_to_time(run, run.request.max_time_s, started, interruption)
        except Stopped:
            raise processes.for_all(
                Interrupted(f"stopped by {interruption.reason} before training began; run again to start")
            ) from None
    processes.on_first(lambda: write_run(run.record, folder))
    return run, new_state(run)


def run_schedule(run: Run, state: State, interruption: Interruption) -> None:
    """Trains until the schedule is complete. After a signal the state is saved and Interrupted raised."""
    folder, processes = run.request.output, run.processes
    stop = folder / STOP
    logger.info("to end early, with the cool-down of the schedule: touch %s", stop)
    began = saved = processes.now()
    remaining = state.schedule.iterations - state.iteration
    shows_progress = processes.is_first and sys.stderr.isatty()
    bar = progress("train", remaining) if shows_progress else nullcontext(lambda: None)
    state.network.train()
    with (
        RunLog(folder, state.history) if processes.is_first else nullcontext() as log,
        run.batches(state.iteration, remaining) as batches,
        bar as advance,
    ):
        try:
            while not state.is_complete:
                schedule = state.schedule
                if state.sums.iterations == run.record.iterations_per_epoch:
                    end_epoch(run, state, log, interruption, began)
                    now = processes.now()
                else:
                    iterate(run, state, batches)
                    advance()
                    now = processes.check_interrupted(interruption)
                # Another schedule is in run.json already, and a resumed run must follow it.
                must = state.is_complete or state.schedule is not schedule
                if must or now - saved > 60 * run.recipe.save_minutes:
                    save(run, state)
                    saved = now
        except Stopped:
            save(run, state)
            raise processes.for_all(
                Interrupted(
                    f"{folder}: stopped by {interruption.reason} after iteration {state.iteration} of {state.schedule.iterations}, all is "
                    f"saved; the same command with --resume goes on (to end a run properly: touch {stop} while it trains)"
                )
            ) from None
        if log is not None:
            log.picture()
    processes.on_first(lambda: stop.unlink(missing_ok=True))


def save(run: Run, state: State) -> None:
    """Writes the latest checkpoint, with the random states of all processes; they go on when it is there."""
    generators = run.processes.gather(random_state())
    run.processes.on_first(
        lambda: checkpoint.save_latest(latest_checkpoint(state, generators, run.threads), run.request.output)
    )


def iterate(run: Run, state: State, batches: Iterator[Batch]) -> None:
    """One iteration. A loss that is not finite ends the run before the step."""
    began = time.perf_counter()
    batch = next(batches)
    assert batch.iteration == state.iteration, "the loader and the loop are at the same iteration"
    waited = time.perf_counter() - began
    settings = run.recipe
    rate = state.schedule.learning_rate(
        state.iteration, settings.optimizer.learning_rate, settings.schedule.power
    )
    set_learning_rate(state.optimizer, rate)
    try:
        with run.threads.timed() as threads:
            loss, terms, norm = train_step(
                state.network,
                state.optimizer,
                batch,
                run.recipe,
                run.device,
                run.processes.total,
                state.scaler,
                state.members_KN,
            )
    except LossNotFinite as error:
        slices = ", ".join(name for part in run.processes.gather(batch.names) for name in part)
        best = (
            f"the best checkpoint (epoch {state.best_epoch}) is kept"
            if state.best_epoch
            else "there is no best checkpoint yet"
        )
        raise run.processes.for_all(
            UtsegError(
                f"{run.request.output}: iteration {state.iteration + 1} (epoch {state.epoch + 1}): {error} on {slices}; "
                f"stopped before the step, {best}; look at these slices, or lower the learning rate (--set optimizer.learning_rate=…)"
            )
        ) from None
    if state.average:
        state.average.add(state.network)
    state.iteration += 1
    state.sums.add(loss, terms, norm, threads)
    seconds = time.perf_counter() - began
    state.sums.seconds += seconds
    state.sums.data_wait += waited
    state.seconds += seconds


def end_epoch(run: Run, state: State, log: RunLog | None, interruption: Interruption, began: float) -> None:
    """Validates where it is due, saves the best, logs. The state changes only after validation, which may be stopped."""
    number, record, processes = state.epoch + 1, run.record, run.processes
    validation = None
    if number % run.recipe.validate_every == 0 or state.iteration >= state.schedule.iterations:
        epochs = state.schedule.iterations // record.iterations_per_epoch
        pictures = shows_pictures(number, epochs, run.recipe.validate_every)
        with precision(run.recipe.amp, run.device):
            validation = validate(
                state.model,
                run.store,
                run.validation,
                run.plan,
                run.device,
                loss=run.recipe.loss,
                overlays=OVERLAYS if pictures else 0,
                check=interruption.check,
                processes=processes,
            )
    score, best = validation.mean_dice if validation else None, state.best_score
    # Where there is nothing to compare (no validation cases), later is better.
    is_best = validation is not None and (best is None or (score is not None and score >= best))
    if is_best:
        processes.on_first(lambda: checkpoint.save_best(best_checkpoint(state, score), run.request.output))
        state.best_score, state.best_epoch = score, number
    keep_to_time(run, state, number, processes.now() - began)
    end_early(run, state, number, score)
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


def epoch_record(run: Run, state: State, validation: Validation | None, is_best: bool) -> Epoch:
    """The epoch's line in `training.jsonl`. `iterations` is the length of the whole schedule.

    `threads`: the first iteration (from 1) of each number of them.
    """
    sums = state.sums
    return {
        "epoch": state.epoch + 1,
        "epochs": state.schedule.iterations // run.record.iterations_per_epoch,
        "iteration": state.iteration,
        "iterations": state.schedule.iterations,
        "slices": sums.iterations * run.plan.batch_size,
        "threads": changes(sums.threads, state.iteration - sums.iterations + 1),
        "loss": sums.loss / sums.iterations,
        "terms": {name: value / sums.iterations for name, value in sums.terms.items()},
        "gradient_norm": sums.gradient_norm / max(1, sums.iterations - sums.skipped),
        "skipped_steps": sums.skipped,
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
