"""Out-of-fold masks that are there already: by which weights, shown which views, from which images. None is made here."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from utseg.case import Case
from utseg.errors import ArtefactError
from utseg.files import sha256
from utseg.inference.views import AS_MIRRORED_IN_TRAINING, TestTimeAugmentation
from utseg.predict.record import PREDICTION_FILE, PredictionRecord, input_checksums, read_record
from utseg.predict.stages import MASK_SUFFIX
from utseg.selection.models import FoldRun
from utseg.training.record import VALIDATION_FOLDER

logger = logging.getLogger("utseg")


class Inputs:
    """SHA-256 of the cases' images, each computed when it is first asked for."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str]] = {}

    def of(self, case: Case) -> dict[str, str]:
        """By file name."""
        if case.case_id not in self._known:
            self._known[case.case_id] = input_checksums(case)
        return self._known[case.case_id]


def single_mask(run: FoldRun, case: Case, inputs: Inputs) -> Path:
    """The mask that the run's final validation wrote. Raises ArtefactError where it is not on record, by these weights and this image."""
    folder = run.folder / VALIDATION_FOLDER
    if not is_made(folder, read_record(folder), (run,), case, inputs, MASK_SUFFIX):
        raise ArtefactError(
            f"{folder / case.case_id}{MASK_SUFFIX}: not there, or not what {PREDICTION_FILE} says of the weights and the image that are "
            f"there now; delete {folder / 'summary.json'} and run utseg_train with --resume: it predicts the held-back cases again"
        )
    return folder / f"{case.case_id}{MASK_SUFFIX}"


def labels_in(folder: Path) -> dict[str, int]:
    """How the masks of a folder number their labels. Raises ArtefactError where that is not on record."""
    record = read_record(folder)
    if record is None:
        raise ArtefactError(f"{folder}: no {PREDICTION_FILE} to be read there; run the command again")
    return record.labels


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


@contextmanager
def quietly() -> Iterator[None]:
    """What is predicted and joined a few cases at a time would else say so each time, and warn again of what validation warned of."""
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(level)
