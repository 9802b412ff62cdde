"""Lock a run's folder, and check that `--resume` continues the run that was started there.

A resumed run must be the run that was started: plan, recipe, data, cases and seed are compared key by key.
"""

import logging
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from utseg.errors import InputError
from utseg.files import folder_lock, remove_leftovers, require_writable
from utseg.training.checkpoint import BEST, LATEST, PREVIOUS, has_checkpoint
from utseg.training.differences import differences
from utseg.training.early_end import STOP
from utseg.training.log import JSONL, PICTURE
from utseg.training.prepare import PROCESSES, Run, read_recorded
from utseg.training.record import (
    RUN_FILE,
    SUMMARY_FILE,
    VALIDATION_FOLDER,
    WEIGHTS_FILE,
    RunRecord,
    is_finished,
    scores_files,
)
from utseg.training.request import TrainRequest

logger = logging.getLogger("utseg")
FILES = (RUN_FILE, LATEST, PREVIOUS, BEST, WEIGHTS_FILE, JSONL, PICTURE, STOP)
EVENTS = "events.out.tfevents.*"


def claim(run: Run, held: ExitStack) -> Run:
    """The run to work on: as asked for where the folder is free or is to be overwritten, as recorded where it is resumed or validated.

    The folder is locked until `held` is closed. Raises InputError where a run is there and neither `--resume` nor `--overwrite` was said,
    and where none or another is there to resume, or a run of other data to validate.
    """
    request, folder = run.request, run.request.output
    if request.resume and not (folder / RUN_FILE).is_file():
        raise InputError(
            f"{folder}: nothing to resume, no run was started there; leave out --resume to start one"
        )
    require_writable(folder)
    held.enter_context(folder_lock(folder))
    remove_leftovers(folder)
    if request.of_run_there:
        recorded, recipe = read_recorded(folder)
        check_same_run(recorded, run.record, request)
        for difference in () if request.validate else differing_versions(recorded, run.record):
            logger.warning("%s: the weights may end otherwise than without interruption", difference)
        return replace(run, record=recorded, recipe=recipe)
    if not request.overwrite:
        if is_finished(folder):
            raise InputError(f"{folder}: a finished run is there; --overwrite trains again and replaces it")
        if has_checkpoint(folder):
            raise InputError(
                f"{folder}: a run that has not finished is there; --resume goes on with it, --overwrite starts again"
            )
        if (folder / WEIGHTS_FILE).is_file():  # as of a model that was imported without scores
            raise InputError(f"{folder}: a trained model is there; --overwrite trains again and replaces it")
    clear(folder)
    return run


def check_same_run(recorded: RunRecord, wanted: RunRecord, request: TrainRequest) -> None:
    """Raises InputError naming every key in which the run that was started differs from the one that is asked for."""
    if differing := differences(recorded, wanted, request):
        listed = ", ".join(differing[:8])
        verb = "validate" if request.validate else "resume"
        way = "" if request.validate else "repeat the first command with --resume, or "
        more = f" and {len(differing) - 8} more" if len(differing) > 8 else ""
        raise InputError(
            f"{request.output}: cannot {verb}, the run was started otherwise: {listed}{more}; {way}start again with --overwrite"
        )


def differing_versions(recorded: RunRecord, wanted: RunRecord) -> list[str]:
    """What may keep a resumed run from ending bit-identically: versions, threads, device, in words."""
    before = {PROCESSES: "1", **recorded.versions, "device": recorded.device}
    now = wanted.versions | {"device": wanted.device}
    return [
        f"{key} {before.get(key)} then, {now.get(key)} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


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
