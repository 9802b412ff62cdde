"""Out-of-fold masks of single models, as training left them, and of pairs, which are made here: the mean of two models' probabilities.

Each case is predicted by the fold of each model that held it back. Probabilities that `validation/` has are used; else the held-back cases
are predicted, a few at a time, into a folder that is removed when all pairs of those cases are joined: what is on disk at once does not
grow with the number of cases. Masks of pairs stay, in `selection/pairs/A+B/FOLD/` with their `prediction.json`, and are not made again
as long as images, weights and masks are those on record.
"""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from utseg.case import Case
from utseg.errors import ArtefactError
from utseg.files import sha256
from utseg.predict.ensemble import ensemble_folders
from utseg.predict.record import PREDICTION_FILE, PredictionRecord, input_checksums, read_record
from utseg.predict.stages import MASK_SUFFIX, PROBABILITIES_SUFFIX
from utseg.predict.views import AS_MIRRORED_IN_TRAINING, TestTimeAugmentation
from utseg.progress import progress
from utseg.runs import VALIDATION_FOLDER
from utseg.selection.models import FoldRun, TrainedModel

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("utseg")
Pair = tuple[TrainedModel, TrainedModel]
PAIRS = "pairs"
PROBABILITIES = "probabilities"
CASES_AT_ONCE = 24
"""So many have probabilities on disk at once, of each model: 24 of 10 × 256 × 256 with four classes take a few hundred MB at most."""


class Inputs:
    """SHA-256 of the cases' images, each computed when it is first asked for."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str]] = {}

    def of(self, case: Case) -> dict[str, str]:
        """By file name."""
        if case.case_id not in self._known:
            self._known[case.case_id] = input_checksums(case)
        return self._known[case.case_id]


def pair_folder(selection: Path, pair: Pair, fold: str) -> Path:
    """Where the masks of a pair's fold are."""
    return selection / PAIRS / "+".join(_flat(model.name) for model in pair) / fold


def single_mask(run: FoldRun, case: Case, inputs: Inputs) -> Path:
    """The mask that the run's final validation wrote. Raises ArtefactError where it is not on record, by these weights and this image."""
    folder = run.folder / VALIDATION_FOLDER
    if not is_made(folder, read_record(folder), (run,), case, inputs, MASK_SUFFIX):
        raise ArtefactError(
            f"{folder / case.case_id}{MASK_SUFFIX}: not there, or not what {PREDICTION_FILE} says of the weights and the image that are "
            f"there now; delete {folder / 'summary.json'} and run utseg_train with --resume: it predicts the held-back cases again"
        )
    return folder / f"{case.case_id}{MASK_SUFFIX}"


def make_pairs(
    pairs: Sequence[Pair],
    cases: Mapping[str, Sequence[Case]],
    selection: Path,
    inputs: Inputs,
    *,
    device: "torch.device",
    executor: Executor,
    workers: int | None = None,
) -> None:
    """Makes the masks of all pairs that are not there yet. `cases`: by fold, those that both models of every pair held back in it."""
    scratch = selection / PROBABILITIES
    parts = [(fold, some) for fold, of_fold in cases.items() for some in _in_parts(of_fold)]
    try:
        with progress("out-of-fold masks of pairs, parts", len(parts)) as advance:
            for fold, some in parts:
                todo = {pair: _missing(pair, fold, some, selection, inputs) for pair in pairs}
                todo = {pair: missing for pair, missing in todo.items() if missing}
                with quietly():
                    folders = _all_probabilities(todo, fold, scratch, inputs, device, workers)
                    for pair, missing in todo.items():
                        ensemble_folders(
                            [folders[model] for model in pair],
                            pair_folder(selection, pair, fold),
                            case_ids=[case.case_id for case in missing],
                            executor=executor,
                        )
                shutil.rmtree(scratch, ignore_errors=True)
                advance()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def quietly() -> Iterator[None]:
    """What is predicted and joined a few cases at a time would else say so each time, and warn again of what validation warned of."""
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(level)


def _in_parts(cases: Sequence[Case]) -> Iterator[Sequence[Case]]:
    for first in range(0, len(cases), CASES_AT_ONCE):
        yield cases[first : first + CASES_AT_ONCE]


def _missing(pair: Pair, fold: str, cases: Sequence[Case], selection: Path, inputs: Inputs) -> list[Case]:
    folder = pair_folder(selection, pair, fold)
    record = read_record(folder)
    runs = [model.folds[fold] for model in pair]
    return [case for case in cases if not is_made(folder, record, runs, case, inputs, MASK_SUFFIX)]


def is_made(
    folder: Path,
    record: PredictionRecord | None,
    runs: Sequence[FoldRun],
    case: Case,
    inputs: Inputs,
    suffix: str,
    tta: TestTimeAugmentation = AS_MIRRORED_IN_TRAINING,
) -> bool:
    """Whether the case's file is there, whole, and by the runs' weights, shown such views, from the image that is there now."""
    if record is None or case.case_id not in record.cases:
        return False
    if sorted(model.weights_sha256 for model in record.models) != sorted(run.weights_sha256 for run in runs):
        return False
    trained = [run.record.plan.augmentation for run in runs]
    if any(record.test_time_augmentation.within(each) != tta.within(each) for each in trained):
        return False
    entry, name = record.cases[case.case_id], f"{case.case_id}{suffix}"
    if entry.inputs != inputs.of(case) or entry.frame != case.frame or name not in entry.files:
        return False
    return (folder / name).is_file() and sha256(folder / name) == entry.files[name]


def _all_probabilities(
    todo: Mapping[Pair, Sequence[Case]],
    fold: str,
    scratch: Path,
    inputs: Inputs,
    device: "torch.device",
    workers: int | None,
) -> dict[TrainedModel, Path]:
    """For each model of the pairs a folder with the probabilities of the cases that its pairs lack."""
    wanted: dict[TrainedModel, dict[str, Case]] = {}
    for pair, missing in todo.items():
        for model in pair:
            wanted.setdefault(model, {}).update((case.case_id, case) for case in missing)
    return {
        model: _probabilities(model.folds[fold], list(cases.values()), scratch, inputs, device, workers)
        for model, cases in wanted.items()
    }


def _probabilities(
    run: FoldRun,
    cases: Sequence[Case],
    scratch: Path,
    inputs: Inputs,
    device: "torch.device",
    workers: int | None,
) -> Path:
    """A folder with the probabilities of the cases: `validation/` where that has all, else a new one."""
    validation = run.folder / VALIDATION_FOLDER
    record = read_record(validation)
    if all(is_made(validation, record, (run,), case, inputs, PROBABILITIES_SUFFIX) for case in cases):
        return validation
    from utseg.predict.model import load_model
    from utseg.predict.pipeline import predict_cases

    folder = scratch / _flat(run.name)
    predict_cases(cases, [load_model(run.folder, device)], folder, save_probabilities=True, workers=workers)
    return folder


def _flat(name: str) -> str:
    return name.replace("/", "-")
