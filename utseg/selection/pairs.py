"""Makes out-of-fold masks of pairs: the mean of two models' probabilities.

Each case is predicted by the fold of each model that held it back. Probabilities that `validation/` has are used; else the held-back cases
are predicted, a few at a time, into a folder that is removed when all pairs of those cases are joined: what is on disk at once does not
grow with the number of cases. Masks of pairs stay, in `selection/pairs/A+B/FOLD/` with their `prediction.json`, and are not made again
as long as images, weights and masks are those on record.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING

from utseg.case import Case
from utseg.predict.ensemble import ensemble_folders
from utseg.predict.record import read_record
from utseg.predict.stages import MASK_SUFFIX, PROBABILITIES_SUFFIX
from utseg.progress import progress
from utseg.selection.masks import Inputs, is_made, quietly
from utseg.selection.models import FoldRun, TrainedModel
from utseg.training.record import VALIDATION_FOLDER

if TYPE_CHECKING:
    import torch

Pair = tuple[TrainedModel, TrainedModel]
PAIRS = "pairs"
PROBABILITIES = "probabilities"
CASES_AT_ONCE = 24
"""So many have probabilities on disk at once, of each model: 24 of 10 × 256 × 256 with four classes take a few hundred MB at most."""


def pair_folder(selection: Path, pair: Pair, fold: str) -> Path:
    """Where the masks of a pair's fold are."""
    return selection / PAIRS / "+".join(_flat(model.name) for model in pair) / fold


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


def _in_parts(cases: Sequence[Case]) -> Iterator[Sequence[Case]]:
    for first in range(0, len(cases), CASES_AT_ONCE):
        yield cases[first : first + CASES_AT_ONCE]


def _missing(pair: Pair, fold: str, cases: Sequence[Case], selection: Path, inputs: Inputs) -> list[Case]:
    folder = pair_folder(selection, pair, fold)
    record = read_record(folder)
    runs = [model.folds[fold] for model in pair]
    return [case for case in cases if not is_made(folder, record, runs, case, inputs, MASK_SUFFIX)]


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
