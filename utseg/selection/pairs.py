"""Makes out-of-fold masks of pairs: the mean of two models' probabilities.

Each case is predicted by the fold of each model that held it back. Probabilities that `validation/` has are used; else the held-back cases
are predicted, a few at a time, into a folder that is removed when all pairs of those cases are joined: what is on disk at once does not
grow with the number of cases. Masks of pairs stay, in `selection/pairs/A+B/FOLD/` with their `prediction.json`, and are not made again
as long as images, weights and masks are those on record.
"""

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING

from utseg.case import Case
from utseg.predict.ensemble import ensemble_folders
from utseg.predict.stages import PROBABILITIES_SUFFIX
from utseg.progress import progress
from utseg.selection.masks import InputChecksums, load_runs, missing, quietly
from utseg.selection.models import FoldRun, TrainedModel
from utseg.training.record import VALIDATION_FOLDER

if TYPE_CHECKING:
    import torch

PairOfModels = tuple[TrainedModel, TrainedModel]
PAIRS = "pairs"
PROBABILITIES = "probabilities"
CASES_AT_ONCE = 24
"""So many have probabilities on disk at once, of each model: 24 of 10 × 256 × 256 with four classes take a few hundred MB at most."""


def pair_folder(selection: Path, pair: PairOfModels, fold: str) -> Path:
    """Where the masks of a pair's fold are."""
    return selection / PAIRS / "+".join(model.name.replace("/", "-") for model in pair) / fold


def make_pairs(
    pairs: Sequence[PairOfModels],
    cases: Mapping[str, Sequence[Case]],
    selection: Path,
    inputs: InputChecksums,
    *,
    device: "torch.device",
    executor: Executor,
    workers: int | None = None,
) -> None:
    """Makes the masks of all pairs that are not there yet. `cases`: by fold, those that both models of every pair held back in it."""
    scratch = selection / PROBABILITIES
    parts = [
        (fold, of_fold[first : first + CASES_AT_ONCE])
        for fold, of_fold in cases.items()
        for first in range(0, len(of_fold), CASES_AT_ONCE)
    ]
    try:
        with progress("out-of-fold masks of pairs, parts", len(parts)) as advance:
            for fold, some in parts:
                todo = {
                    pair: absent
                    for pair in pairs
                    if (
                        absent := missing(pair_folder(selection, pair, fold), _runs(pair, fold), some, inputs)
                    )
                }
                wanted: dict[TrainedModel, dict[str, Case]] = {}
                for pair, absent in todo.items():
                    for model in pair:
                        wanted.setdefault(model, {}).update((case.case_id, case) for case in absent)
                with quietly():
                    folders = {
                        model: _probabilities(
                            model.folds[fold], [*of_model.values()], scratch, inputs, device, workers
                        )
                        for model, of_model in wanted.items()
                    }
                    for pair, absent in todo.items():
                        ensemble_folders(
                            [folders[model] for model in pair],
                            pair_folder(selection, pair, fold),
                            case_ids=[case.case_id for case in absent],
                            executor=executor,
                        )
                shutil.rmtree(scratch, ignore_errors=True)
                advance()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _runs(pair: PairOfModels, fold: str) -> list[FoldRun]:
    return [model.folds[fold] for model in pair]


def _probabilities(
    run: FoldRun,
    cases: Sequence[Case],
    scratch: Path,
    inputs: InputChecksums,
    device: "torch.device",
    workers: int | None,
) -> Path:
    """A folder with the probabilities of the cases: `validation/` where that has all, else a new one."""
    validation = run.folder / VALIDATION_FOLDER
    if not missing(validation, (run,), cases, inputs, PROBABILITIES_SUFFIX):
        return validation
    from utseg.predict.pipeline import predict_cases

    folder = scratch / run.name.replace("/", "-")
    predict_cases(cases, load_runs((run,), device), folder, save_probabilities=True, workers=workers)
    return folder
