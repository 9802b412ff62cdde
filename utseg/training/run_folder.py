"""Who may work in a run's folder: a new run, the same run resumed, or nobody. Called while the folder's lock is held."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

from utseg.errors import InputError
from utseg.settings import validate
from utseg.training.checkpoint import BEST, LATEST, PREVIOUS, has_checkpoint
from utseg.training.log import JSONL, PICTURE
from utseg.training.prepare import Run, check_same_run, differing_versions
from utseg.training.recipe import Recipe
from utseg.training.record import (
    RUN_FILE,
    SUMMARY_FILE,
    VALIDATION_FOLDER,
    WEIGHTS_FILE,
    is_finished,
    read_run,
    scores_files,
)

logger = logging.getLogger("utseg")
FILES = (RUN_FILE, LATEST, PREVIOUS, BEST, WEIGHTS_FILE, JSONL, PICTURE)
EVENTS = "events.out.tfevents.*"


def claim(run: Run) -> Run:
    """The run to work on: as asked for where the folder is free or is to be overwritten, as recorded where it is resumed.

    Raises InputError where a run is there and neither `--resume` nor `--overwrite` was said, and where another run is there to resume.
    """
    request, folder = run.request, run.request.output
    if request.resume:
        recorded = read_run(folder)
        recipe = validate(Recipe, recorded.recipe, str(folder / RUN_FILE))
        check_same_run(recorded, run.record, request)
        for difference in differing_versions(recorded, run.record):
            logger.warning("%s: the weights may end otherwise than without interruption", difference)
        return replace(run, record=recorded, recipe=recipe)
    if not request.overwrite:
        if is_finished(folder):
            raise InputError(f"{folder}: a finished run is there; --overwrite trains again and replaces it")
        if has_checkpoint(folder):
            raise InputError(
                f"{folder}: a run that has not finished is there; --resume goes on with it, --overwrite starts again"
            )
    clear(folder)
    return run


def require_run(folder: Path) -> None:
    """Raises InputError where no run was started in the folder."""
    if not (folder / RUN_FILE).is_file():
        raise InputError(
            f"{folder}: nothing to resume, no run was started there; leave out --resume to start one"
        )


def clear(folder: Path) -> None:
    """Removes everything that a run writes, the record first: what is left in between is no run."""
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    for events in folder.glob(EVENTS):
        events.unlink()
    if (folder / VALIDATION_FOLDER).is_dir():
        shutil.rmtree(folder / VALIDATION_FOLDER)


def unfinish(folder: Path) -> None:
    """Takes back that the run has finished: it goes on from an older checkpoint."""
    (folder / WEIGHTS_FILE).unlink(missing_ok=True)
    (folder / VALIDATION_FOLDER / SUMMARY_FILE).unlink(missing_ok=True)
    for events in scores_files(folder):
        events.unlink()
