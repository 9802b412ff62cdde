"""Find the out-of-fold masks that are there, by weights, windows, precision, views and images, and make those of pairs of models.

The masks of a pair are of the mean of both models' probabilities, each of the fold that held the case back. They stay in
`selection/pairs/A+B/FOLD/` with their `prediction.json`, and are not made again as long as images, weights and masks are those on record.
"""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utseg.case import Case
from utseg.device import Precision
from utseg.errors import ArtefactError
from utseg.files import sha256
from utseg.inference.views import AS_MIRRORED_IN_TRAINING, TestTimeAugmentation
from utseg.label_map import LabelValue
from utseg.predict.ensemble import ensemble_folders
from utseg.predict.record import PREDICTION_FILE, read_record
from utseg.predict.stages import probabilities_name
from utseg.progress import progress
from utseg.rawdata.names import mask_name
from utseg.selection.models import Comparable, FoldRun, SelectionRequest, TrainedModel
from utseg.training.record import VALIDATION_FOLDER

if TYPE_CHECKING:
    import torch

    from utseg.predict.model import LoadedModel

logger = logging.getLogger("utseg")
PairOfModels = tuple[TrainedModel, TrainedModel]
SELECTION_FOLDER = "selection"
PAIRS = "pairs"
PROBABILITIES = "probabilities"
CASES_AT_ONCE = 24
"""So many have probabilities on disk at once, of each model: 24 of 10 × 256 × 256 with four classes take a few hundred MB at most."""


@dataclass(frozen=True)
class Selection:
    """A selection at work: what is asked for and compared, the SHA-256 of image files by case id, who works in parallel, what predicts."""

    request: SelectionRequest
    comparable: Comparable
    inputs: Mapping[str, Mapping[str, str]]
    executor: Executor
    device: "torch.device"

    @property
    def cases(self) -> tuple[Case, ...]:
        """All cases that are compared."""
        return self.comparable.all_cases

    @property
    def folder(self) -> Path:
        """The folder below which masks of pairs and views are."""
        return self.request.results / SELECTION_FOLDER


@dataclass(frozen=True)
class CandidateMasks:
    """One model, or a pair, with its out-of-fold mask of every case, in the order of the cases, and the runs that would predict."""

    name: str
    models: tuple[TrainedModel, ...]
    masks: tuple[Path, ...]
    runs: tuple[FoldRun, ...]

    @property
    def labels(self) -> dict[str, LabelValue]:
        """How its masks are numbered."""
        return self.runs[0].record.plan.preprocessing.labels


def mask_file(folder: Path, case: Case) -> Path:
    """The mask of a case in a folder."""
    return folder / mask_name(case.case_id, case.images[0].name)


def _probabilities_file(folder: Path, case: Case) -> Path:
    return folder / probabilities_name(case.case_id, None, 1)


def validation_masks(
    run: FoldRun, cases: Sequence[Case], inputs: Mapping[str, Mapping[str, str]]
) -> list[Path]:
    """The masks of the run's validation. Raises ArtefactError where one is not on record, by these weights and this image."""
    folder = run.folder / VALIDATION_FOLDER
    if absent := missing(folder, (run,), cases, inputs):
        raise ArtefactError(
            f"{mask_file(folder, absent[0])}: not there, or not what {PREDICTION_FILE} says of the weights and the image "
            "that are there now; run utseg_train with --validate: it predicts and scores the held-back cases again"
        )
    return [mask_file(folder, case) for case in cases]


def labels_in(folder: Path) -> dict[str, LabelValue]:
    """How the masks of a folder number their labels. Raises ArtefactError where that is not on record."""
    record = read_record(folder)
    if record is None:
        raise ArtefactError(f"{folder}: no {PREDICTION_FILE} to be read there; run the command again")
    return record.labels


def missing(
    folder: Path,
    runs: Sequence[FoldRun],
    cases: Sequence[Case],
    inputs: Mapping[str, Mapping[str, str]],
    file_of: Callable[[Path, Case], Path] = mask_file,
    tta: TestTimeAugmentation = AS_MIRRORED_IN_TRAINING,
    precision: Precision | None = None,
) -> list[Case]:
    """The cases whose file is not there, whole, and by the runs' weights, shown such views, from the image that is there now.

    They are to be made in the windows of the runs' plans, and in `precision`; None: each run in that of its validation.
    """
    record = read_record(folder)
    plans = [run.record.plan for run in runs]
    if (
        record is None
        or sorted((use.weights_sha256, use.focus, use.step_size, use.precision) for use in record.models)
        != sorted(
            (run.weights_sha256, plan.focus, plan.step_size, precision or run.precision)
            for run, plan in zip(runs, plans, strict=True)
        )
        or any(
            record.test_time_augmentation.within(plan.augmentation) != tta.within(plan.augmentation)
            for plan in plans
        )
    ):
        return list(cases)

    def is_made(case: Case) -> bool:
        entry, path = record.cases.get(case.case_id), file_of(folder, case)
        if entry is None or entry.inputs != inputs[case.case_id] or entry.frame != case.frame:
            return False
        return path.name in entry.files and path.is_file() and sha256(path) == entry.files[path.name]

    return [case for case in cases if not is_made(case)]


def load_runs(runs: Sequence[FoldRun], device: "torch.device") -> "list[LoadedModel]":
    """The models of the runs."""
    from utseg.predict.model import load_model

    return [load_model(run.folder, device) for run in runs]


@contextmanager
def quietly() -> Iterator[None]:
    """What is predicted and joined a few cases at a time would else say so each time, and warn again of what validation warned of."""
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(level)


def pair_folder(selection: Path, pair: PairOfModels, fold: str) -> Path:
    """Where the masks of a pair's fold are."""
    return selection / PAIRS / "+".join(model.name.replace("/", "-") for model in pair) / fold


def make_pairs(pairs: Sequence[PairOfModels], work: Selection) -> None:
    """Makes the masks of all pairs that are not there yet.

    Probabilities that `validation/` has are used; else the cases are predicted, a few at a time, into a folder that is removed when all
    pairs of them are joined: what is on disk at once does not grow with the number of cases.
    """
    parts = [
        (fold, of_fold[first : first + CASES_AT_ONCE])
        for fold, of_fold in work.comparable.cases.items()
        for first in range(0, len(of_fold), CASES_AT_ONCE)
    ]
    with progress("out-of-fold masks of pairs, parts", len(parts)) as advance:
        for fold, some in parts:
            try:
                _join_part(pairs, fold, some, work)
            finally:
                shutil.rmtree(work.folder / PROBABILITIES, ignore_errors=True)
            advance()


def _join_part(pairs: Sequence[PairOfModels], fold: str, cases: Sequence[Case], work: Selection) -> None:
    from utseg.predict.pipeline import predict_cases

    todo: dict[PairOfModels, list[Case]] = {}
    wanted: dict[TrainedModel, dict[str, Case]] = {}
    for pair in pairs:
        runs = [model.folds[fold] for model in pair]
        if absent := missing(pair_folder(work.folder, pair, fold), runs, cases, work.inputs):
            todo[pair] = absent
            for model in pair:
                wanted.setdefault(model, {}).update((case.case_id, case) for case in absent)
    with quietly():
        folders = {}
        for model, of_model in wanted.items():
            run, of_run = model.folds[fold], [*of_model.values()]
            folders[model] = run.folder / VALIDATION_FOLDER
            if missing(folders[model], (run,), of_run, work.inputs, _probabilities_file):
                folders[model] = work.folder / PROBABILITIES / run.name.replace("/", "-")
                loaded = load_runs((run,), work.device)
                predict_cases(
                    of_run,
                    loaded,
                    folders[model],
                    precision=run.precision,
                    save_probabilities=True,
                    workers=work.request.workers,
                )
        for pair, absent in todo.items():
            ensemble_folders(
                [folders[model] for model in pair],
                pair_folder(work.folder, pair, fold),
                case_ids=[case.case_id for case in absent],
                executor=work.executor,
            )
