"""Lock a run's folder, and check that `--resume` continues the run that was started there.

A resumed run must be the run that was started: plan, recipe, data, cases and seed are compared key by key.
"""

import logging
import shutil
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from utseg.errors import InputError
from utseg.files import folder_lock, remove_leftovers, require_writable
from utseg.training.checkpoint import BEST, LATEST, PREVIOUS, has_checkpoint
from utseg.training.early_end import STOP
from utseg.training.log import JSONL, PICTURE
from utseg.training.prepare import HISTOGRAMS, PROCESSES, Run, read_recorded
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
MAY_DIFFER = (
    "device",
    "versions",
    "git_revision",
    "started",
    "plan.reasons",
    "plan.estimated_memory_gb",
    "initial_weights.saw",
    "initial_weights.scans",
    "ended_early",
    "training_scans",
)
DATA = ("selection", "training_cases", "validation_cases", "data_sha256")
OF_A_FOLD = ("plan.batch_size", f"plan.{HISTOGRAMS}")
"""By `--fit`, and for the cases of a fold."""
THEN_NOW = "%s (%s then, %s now)"
THERE_HERE = "%s (%s there, %s here)"
TIMETABLE = ("epochs", "iterations_per_epoch", "recipe.validate_every")
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


def differences(recorded: RunRecord, wanted: RunRecord, request: TrainRequest) -> list[str]:
    """Every key in which the run that was started differs from the one that is asked for, with both values.

    The timetable (epochs, validation) is the recorded one, which `--max-time` may have set, and so is the precision, which the processor
    may have set; to ask for another one is a difference. Of a run that is only validated, the data alone are compared.
    """
    free = set(MAY_DIFFER)
    free |= {key for key in TIMETABLE if not (key == "epochs" and request.epochs)}
    if "validate_every" in request.settings:
        free.remove("recipe.validate_every")
    if request.settings.get("amp", "auto") == "auto":
        free.add("recipe.amp")
    recorded = recorded.model_copy(update={"epochs": recorded.planned_epochs})
    found = _differing(recorded, wanted, free)
    asked = {key: pair for key, pair in found.items() if key in DATA or not request.validate}
    return [_difference(key, *pair, THEN_NOW) for key, pair in asked.items()]


def unlike(first: RunRecord, other: RunRecord) -> list[str]:
    """In which values of plan and recipe another fold's run differs from the first one's, with both values; and in its length, if twofold.

    What `--max-time` and `--fit` may have set, and what is planned for the cases of a fold, may differ.
    """
    free = {*MAY_DIFFER, *TIMETABLE, *OF_A_FOLD}
    found = _differing(first, first.model_copy(update={"plan": other.plan, "recipe": other.recipe}), free)
    lengths = first.epochs * first.iterations_per_epoch, other.epochs * other.iterations_per_epoch
    if max(lengths) >= 2 * min(lengths):
        found["iterations"] = lengths
    return [_difference(key, *pair, THERE_HERE) for key, pair in found.items()]


def _differing(recorded: RunRecord, wanted: RunRecord, free: Collection[str]) -> dict[str, tuple[Any, Any]]:
    """Both values of the keys that differ, but for those that are free and what is below them."""
    before, now = (dict(_flat(record.model_dump(mode="json"))) for record in (recorded, wanted))
    return {
        key: (before.get(key), now.get(key))
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
        and not any(key == name or key.startswith(f"{name}.") for name in free)
    }


def _difference(key: str, before: Any, now: Any, words: str) -> str:
    long = isinstance(before, list) or max(len(str(before)), len(str(now))) > 60
    return key if long else words % (key, before, now)


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


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
