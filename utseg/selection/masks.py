"""Out-of-fold masks: which are there already, by which weights, shown which views, from which images; and those that are not, made."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from utseg.case import Case
from utseg.errors import ArtefactError
from utseg.files import sha256
from utseg.inference.views import AS_MIRRORED_IN_TRAINING, TestTimeAugmentation
from utseg.predict.record import PREDICTION_FILE, input_checksums, read_record
from utseg.predict.stages import MASK_SUFFIX
from utseg.selection.models import FoldRun
from utseg.training.record import VALIDATION_FOLDER

if TYPE_CHECKING:
    import torch

    from utseg.predict.model import LoadedModel

logger = logging.getLogger("utseg")


class InputChecksums:
    """SHA-256 of the cases' images, each computed when it is first asked for."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str]] = {}

    def of(self, case: Case) -> dict[str, str]:
        """By file name."""
        if case.case_id not in self._known:
            self._known[case.case_id] = input_checksums(case)
        return self._known[case.case_id]


def validation_masks(run: FoldRun, cases: Sequence[Case], inputs: InputChecksums) -> list[Path]:
    """The masks of the run's validation. Raises ArtefactError where one is not on record, by these weights and this image."""
    folder = run.folder / VALIDATION_FOLDER
    if absent := missing(folder, (run,), cases, inputs):
        raise ArtefactError(
            f"{folder / absent[0].case_id}{MASK_SUFFIX}: not there, or not what {PREDICTION_FILE} says of the weights and the image "
            f"that are there now; delete {folder / 'summary.json'} and run utseg_train with --resume: it predicts the held-back cases again"
        )
    return [folder / f"{case.case_id}{MASK_SUFFIX}" for case in cases]


def labels_in(folder: Path) -> dict[str, int]:
    """How the masks of a folder number their labels. Raises ArtefactError where that is not on record."""
    record = read_record(folder)
    if record is None:
        raise ArtefactError(f"{folder}: no {PREDICTION_FILE} to be read there; run the command again")
    return record.labels


def missing(
    folder: Path,
    runs: Sequence[FoldRun],
    cases: Sequence[Case],
    inputs: InputChecksums,
    suffix: str = MASK_SUFFIX,
    tta: TestTimeAugmentation = AS_MIRRORED_IN_TRAINING,
) -> list[Case]:
    """The cases whose file is not there, whole, and by the runs' weights, shown such views, from the image that is there now."""
    record = read_record(folder)
    trained = [run.record.plan.augmentation for run in runs]
    if (
        record is None
        or sorted(model.weights_sha256 for model in record.models)
        != sorted(run.weights_sha256 for run in runs)
        or any(record.test_time_augmentation.within(each) != tta.within(each) for each in trained)
    ):
        return list(cases)

    def is_made(case: Case) -> bool:
        entry, path = record.cases.get(case.case_id), folder / f"{case.case_id}{suffix}"
        if entry is None or entry.inputs != inputs.of(case) or entry.frame != case.frame:
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
