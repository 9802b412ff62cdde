"""Finds out what `-g` is: a raw dataset, a part of one (`labelsTr`, `Testing`), or a plain folder of label files.

Names of labels and group columns come from the dataset where one is found. Nothing is scored here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from utseg.case import Case, Dataset
from utseg.errors import CaseErrors, InputError, explained_by, listing
from utseg.evaluate.score import SUFFIXES
from utseg.files import read_json, require_no_broken_link

DESCRIPTION_FILE = "dataset.json"
LABEL_FOLDERS = ("labelsTr", "labelsTs")
PREDICTION_FILE = "prediction.json"


@dataclass(frozen=True)
class References:
    """Labelled cases to score against, and the labels' names and values. `warnings` are those of the dataset they belong to."""

    cases: tuple[Case, ...]
    labels: Mapping[str, int]
    warnings: tuple[str, ...] = ()


def find_references(folder: Path, predictions: Path, dataset: Dataset | None = None) -> References:
    """The labelled cases below `folder`. `dataset` (from `-d`) gives names and groups where the folder itself belongs to none.

    Raises InputError where there is no label file, or where no name of a label is known.
    """
    if predictions.resolve() == folder.resolve():
        raise InputError(
            f"{predictions}: the masks (-p) and the reference labels (-g) are the same folder; every score would be perfect: "
            "name the folder that utseg_predict wrote"
        )
    if not require_no_broken_link(folder).is_dir():
        raise InputError(f"{folder}: no folder with reference labels is there")
    own = dataset if dataset is not None and _contains(dataset.folder, folder) else _own_dataset(folder)
    if own is not None:
        whole = folder.resolve() == own.folder.resolve()
        inside = tuple(
            case for case in own.cases if case.label is not None and (whole or _contains(folder, case.label))
        )
        if inside:
            return References(inside, own.labels, own.warnings)
    source = dataset or own
    warnings = source.warnings if source else ()
    with explained_by(warnings):
        files = _label_files(folder)
    known = {case.case_id: case for case in source.cases} if source else {}
    labels = source.labels if source else _labels_of(predictions, folder)
    return References(
        tuple(_plain_case(name, path, known.get(name)) for name, path in sorted(files.items())),
        labels,
        warnings,
    )


def of_predicted(references: References, predictions: Path) -> References:
    """Only the cases that have a prediction."""
    predicted = {path.name[: -len(suffix)] for suffix in SUFFIXES for path in predictions.glob(f"*{suffix}")}
    return replace(references, cases=tuple(case for case in references.cases if case.case_id in predicted))


def _plain_case(name: str, path: Path, known: Case | None) -> Case:
    if known is None:
        return Case(case_id=name, subject=name, images=(), label=path)
    return Case(name, known.subject, (), path, None, known.phase, known.partition, known.groups)


def _label_files(folder: Path) -> dict[str, Path]:
    """The files of a plain folder by the name of the case. Raises InputError where there is none, CaseErrors where two have one name."""
    files: dict[str, Path] = {}
    problems = []
    for suffix in SUFFIXES:
        for path in sorted(folder.glob(f"*{suffix}")):
            name = path.name[: -len(suffix)]
            if path.name.startswith("."):
                continue
            if name in files:
                problems.append(
                    f"{folder}: case {name}: two references, {files[name].name} and {path.name}; keep one"
                )
            files[name] = path
    if problems:
        raise CaseErrors(problems)
    if not files:
        found = listing(sorted(path.name for path in folder.iterdir() if path.name[0] != ".")) or "nothing"
        raise InputError(
            f"{folder}: no reference label is there (expected CASE.nii.gz files or a raw dataset); found {found}"
        )
    return files


def _contains(folder: Path, path: Path) -> bool:
    """Whether a path is the folder or lies in it. A link in the folder lies there, wherever it leads."""
    if ".." not in path.parts and path.absolute().is_relative_to(folder.absolute()):
        return True
    if path.resolve() == folder.resolve():
        return True
    return (path.parent.resolve() / path.name).is_relative_to(folder.resolve())


def _own_dataset(folder: Path) -> Dataset | None:
    from utseg.rawdata import dataset_around, open_dataset

    root = dataset_around(folder)
    return None if root is None else open_dataset(root)


def _labels_of(predictions: Path, folder: Path) -> Mapping[str, int]:
    """The labels' names and values from `dataset.json` beside the references, or else from the record of the predictions."""
    from utseg.rawdata.description import read_description

    beside = (folder, folder.absolute().parent) if folder.absolute().name in LABEL_FOLDERS else (folder,)
    for place in beside:
        if (place / DESCRIPTION_FILE).is_file():
            return read_description(place / DESCRIPTION_FILE).labels
    record = predictions / PREDICTION_FILE
    if record.is_file():
        value = read_json(record)
        labels = value.get("labels") if isinstance(value, dict) else None
        if isinstance(labels, dict) and labels and all(type(number) is int for number in labels.values()):
            return labels
        raise InputError(
            f"{record}: labels: expected an object with names of labels and whole numbers, found {str(labels)[:80]}; "
            "name the raw dataset with -d"
        )
    raise InputError(
        f"{folder}: the names of the labels are not known; name the raw dataset with -d, or put its dataset.json beside the labels"
    )
