"""End a run before its planned end, properly: on a plateau of its validation Dice (`--patience`), or as a file says (`RUN/stop`).

Nothing is cut off. From where the learning rate is, the rest of the schedule is passed through in a fraction of the epochs done, down to
zero; the run then finishes as any other.
"""

import logging
import math
from collections.abc import Sequence

from utseg.training.prepare import Run
from utseg.training.record import EarlyEnd, write_run
from utseg.training.state import State

logger = logging.getLogger("utseg")
STOP = "stop"
COOL_DOWN_SHARE = 0.25  # of the epochs done, so that a fifth of the whole run is cool-down
LEAST_SCORES = 3
SMOOTHING = 0.9  # nnU-Net's, of the running mean of the validation Dice


def end_early(run: Run, state: State, number: int, score: float | None) -> None:
    """Shortens the schedule after `number` epochs where it is time to end, and records it. `score`: the mean Dice of the last of them.

    A resumed run decides as its record says that it did. All processes decide alike. Nothing happens where what is left of the schedule
    is no longer than the cool-down.
    """
    planned = state.schedule.iterations // run.record.iterations_per_epoch
    epochs = number + math.ceil(COOL_DOWN_SHARE * number)
    if state.schedule.cools_down or epochs >= planned:
        return
    scores = [*(line["mean_dice"] for line in state.history), score]
    why = run.processes.on_first(lambda: _why_now(run, number, scores))
    if why is None:
        return
    logger.info(
        "%s: the schedule is shortened from %d to %d epochs, to end with its cool-down", why, planned, epochs
    )
    state.schedule = state.schedule.retimed(
        state.iteration, epochs * run.record.iterations_per_epoch, cools_down=True
    )
    ended = EarlyEnd(why=why, epoch=number, planned_epochs=run.record.planned_epochs)
    record = run.record.model_copy(update={"epochs": epochs, "ended_early": ended})
    run.processes.on_first(lambda: write_run(record, run.request.output))


def _why_now(run: Run, number: int, scores: Sequence[float | None]) -> str | None:
    """What ends the run after this epoch, in words, or None."""
    if decided := run.record.ended_early:  # killed before the checkpoint of that decision
        return decided.why if decided.epoch == number else None
    if (run.request.output / STOP).exists():
        return f"the file {STOP}"
    patience = run.record.patience
    without = epochs_without_gain(scores)
    known = sum(score is not None for score in scores[len(scores) - without :])
    if patience and scores[-1] is not None and without >= patience and known >= min(patience, LEAST_SCORES):
        return f"no better running mean of the validation Dice in {patience} epochs"
    return None


def epochs_without_gain(scores: Sequence[float | None]) -> int:
    """Epochs since the running mean of the scores, one an epoch, was highest, or still 0. Those without a score count too."""
    mean, best, at = None, -math.inf, 0
    for number, score in enumerate(scores, 1):
        if score is not None:
            mean = score if mean is None else SMOOTHING * mean + (1 - SMOOTHING) * score
            if mean > best or mean == 0:
                best, at = mean, number
    return len(scores) - at
