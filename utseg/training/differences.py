"""In what two records of runs differ, in words: a run and what is asked for now, or two folds of one network. Imports no torch."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from utseg.errors import listing
from utseg.planning.plan import HISTOGRAMS
from utseg.training.record import RunRecord
from utseg.training.request import TrainRequest

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


def unlike_folds(runs: Sequence[RunRecord]) -> dict[str, str]:
    """By fold, of the folds of one network, how it was trained otherwise than the first: which values of plan and recipe differ, and how.

    Also its length, where that is twofold. What `--max-time` and `--fit` may have set, and what is planned for the cases of a fold, may
    differ.
    """
    first, *others = runs
    found = {other.selection: _unlike(first, other) for other in others}
    return {
        fold: f"was trained otherwise than {first.selection}: {listing(differing)}; both count as one model"
        for fold, differing in found.items()
        if differing
    }


def _unlike(first: RunRecord, other: RunRecord) -> list[str]:
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
