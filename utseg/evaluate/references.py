"""Finds out what `-g` is: a raw dataset, a part of one (`labelsTr`, `Testing`), or a plain folder of label files.

Names of labels and group columns come from the dataset where one is found. Nothing is scored here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utseg.case import Case, Dataset
from utseg.errors import InputError
from utseg.evaluate.score import SUFFIXES
from utseg.files import read_json

LEVELS_UP = 3
PREDICTION_FILE = "prediction.json"


@dataclass(frozen=True)
class References:
    """Labelled cases to score against, and the labels' names and values."""

    cases: tuple[Case, ...]
    labels: Mapping[str, int]


def find_references(folder: Path, predictions: Path, dataset: Dataset | None = None) -> References:
    """The labelled cases below `folder`. `dataset` (from `-d`) gives names and groups where the folder itself belongs to none.

    Raises InputError where there is no label file, or where no name of a label is known.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no folder with reference labels is there")
    own = dataset if dataset is not None and _contains(dataset.folder, folder) else _dataset_around(folder)
    if own is not None:
        inside = tuple(case for case in own.cases if case.label is not None and _contains(folder, case.label))
        if inside:
            return References(inside, own.labels)
    files = {
        path.name[: -len(suffix)]: path
        for suffix in SUFFIXES
        for path in folder.glob(f"*{suffix}")
        if not path.name.startswith(".")
    }
    if not files:
        raise InputError(
            f"{folder}: no reference label is there (expected CASE.nii.gz files or a raw dataset)"
        )
    known = {case.case_id: case for case in dataset.cases} if dataset else {}
    labels = dataset.labels if dataset else _labels_of(predictions, folder)
    return References(
        tuple(_plain_case(name, path, known.get(name)) for name, path in sorted(files.items())), labels
    )


def of_predicted(references: References, predictions: Path) -> References:
    """Only the cases that have a prediction."""
    predicted = {path.name[: -len(suffix)] for suffix in SUFFIXES for path in predictions.glob(f"*{suffix}")}
    return References(
        tuple(case for case in references.cases if case.case_id in predicted), references.labels
    )


def unmatched_predictions(references: Sequence[Case], predictions: Path) -> list[str]:
    """Names of predictions that no reference case asks for."""
    wanted = {case.case_id for case in references}
    there = {
        path.name[: -len(suffix)]
        for suffix in SUFFIXES
        for path in predictions.glob(f"*{suffix}")
        if path.name[0] != "."
    }
    return sorted(there - wanted)


def _plain_case(name: str, path: Path, known: Case | None) -> Case:
    if known is None:
        return Case(case_id=name, subject=name, images=(), label=path)
    return Case(name, known.subject, (), path, None, known.phase, known.partition, known.groups)


def _contains(folder: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _dataset_around(folder: Path) -> Dataset | None:
    from utseg.rawdata import is_dataset, open_dataset

    for candidate in [folder.resolve(), *folder.resolve().parents[:LEVELS_UP]]:
        if is_dataset(candidate):
            return open_dataset(candidate)
    return None


def _labels_of(predictions: Path, folder: Path) -> Mapping[str, int]:
    record = predictions / PREDICTION_FILE
    if record.is_file():
        labels = read_json(record).get("labels")
        if isinstance(labels, dict) and labels:
            return {str(name): int(value) for name, value in labels.items()}
    raise InputError(
        f"{folder}: the names of the labels are not known; name the raw dataset with -d, or put its dataset.json beside the labels"
    )
