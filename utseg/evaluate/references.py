"""Finds out what `-g` is: a raw dataset, a part of one (`labelsTr`, `Testing`), or a plain folder of label files.

Names of labels and group columns come from the dataset where one is found; labels are matched with those of the masks by name.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from utseg.case import Case, Dataset
from utseg.errors import CaseErrors, InputError, explained_by, listing
from utseg.evaluate.pairs import UnrecordedSide, files_by_case
from utseg.files import read_json, require_no_broken_link
from utseg.label_map import Labels, all_values, labels_of_json, structures
from utseg.labels import in_words, match_labels, same_numbering
from utseg.predict.record import PREDICTION_FILE
from utseg.rawdata import dataset_around, open_dataset
from utseg.rawdata.content import dicom_in, dicom_refusal
from utseg.rawdata.description import DESCRIPTION_FILE, read_description

logger = logging.getLogger("utseg")
LABEL_FOLDERS = ("labelsTr", "labelsTs")


@dataclass(frozen=True)
class References:
    """Labelled cases to score against, and how they and the masks number their labels. `warnings` are those of the dataset.

    `labels`: names and values in the references; `mask_labels`: those in the masks, which match by name. `assumed`: the side that nothing
    says the numbering of, so that it is taken for the other's.
    """

    cases: tuple[Case, ...]
    labels: Labels
    mask_labels: Labels
    assumed: UnrecordedSide | None = None
    warnings: tuple[str, ...] = ()


def find_references(
    folder: Path, predictions: Path, dataset: Dataset | None = None, labels: Labels | None = None
) -> References:
    """The labelled cases below `folder`. `dataset` (from `-d`) names their labels and groups, where the folder's own does not contradict.
    `labels`: how both sides number their labels, where nothing that is there says it. Numbers alone may be repeated anyway.

    Raises InputError where there is no label file, where no name of a label is known, and where those of references and masks, or of
    references and `dataset`, do not match, and where references of another dataset are no cases of `dataset`.
    """
    if predictions.resolve() == folder.resolve():
        raise InputError(
            f"{predictions}: the masks (-p) and the reference labels (-g) are the same folder; every score would be perfect: "
            "name the folder that utseg_predict wrote"
        )
    if not require_no_broken_link(folder).is_dir():
        raise InputError(f"{folder}: no folder with reference labels is there")
    around = dataset if dataset is not None and _contains(dataset.folder, folder) else None
    if around is None and (root := dataset_around(folder)) is not None:
        around = open_dataset(root)
    source = dataset or around
    warnings = source.warnings if source else ()
    known = {case.case_id: case for case in source.cases} if source else {}
    cases = () if around is None else _inside(around, folder)
    if not cases:
        with explained_by(warnings):
            files = _label_files(folder)
        cases = tuple(Case(name, name, (), path) for name, path in files.items())
    cases = tuple(_as_known(case, known.get(case.case_id)) for case in cases)
    beside = (around.labels, around.folder) if around is not None else _labels_beside(folder)
    if dataset is not None and beside is not None and not same_numbering(dataset.labels, beside[0]):
        raise InputError(
            f"-d {dataset.name}: its labels are {in_words(dataset.labels)}, those of the references are {in_words(beside[0])} by "
            f"{beside[1]}; leave -d out (if it is the masks that are numbered so, put its {DESCRIPTION_FILE} beside them)"
        )
    others = [case.case_id for case in cases if case.case_id not in known]
    if others and dataset and around and around.folder.resolve() != dataset.folder.resolve():
        raise InputError(
            f"-d {dataset.name}: {len(others)} of the {len(cases)} reference cases are not in it ({listing(others)}), they are of "
            f"{around.folder}; leave -d out, or name the dataset that they are of"
        )
    found, of_masks = (
        beside if source is None else (source.labels, source.folder),
        labels_of_masks(predictions),
    )
    if labels is not None and not _named_elsewhere(labels, found, of_masks):
        require_same(labels, found, of_masks)
        return References(cases, labels, labels, "masks", warnings)
    references = _with_labels(cases, found, of_masks, folder, predictions)
    return replace(references, warnings=warnings)


def require_same(labels: Labels, *known: tuple[Labels, Path] | None) -> None:
    """Raises InputError where `labels`, as typed, are not those that stand somewhere: labels and that place."""
    for there in known:
        if there is not None and not same_numbering(there[0], labels):
            raise InputError(
                f"--labels {in_words(labels)}: by {there[1]} they are {in_words(there[0])}; leave --labels out"
            )


def _named_elsewhere(labels: Labels, *known: tuple[Labels, Path] | None) -> bool:
    """Whether `labels`, as typed, are numbers alone, the values of all labels wherever these have names."""
    numbers = all(name == str(value) for name, value in structures(labels).items())
    named = [all_values(there[0]) for there in known if there is not None]
    return numbers and bool(named) and all(values == all_values(labels) for values in named)


def _inside(dataset: Dataset, folder: Path) -> tuple[Case, ...]:
    """The labelled cases of a dataset below the folder."""
    whole = folder.resolve() == dataset.folder.resolve()
    return tuple(
        case for case in dataset.cases if case.label is not None and (whole or _contains(folder, case.label))
    )


def _with_labels(
    cases: tuple[Case, ...],
    found: tuple[Labels, Path] | None,
    of_masks: tuple[Labels, Path] | None,
    folder: Path,
    predictions: Path,
) -> References:
    """`found`, `of_masks`: the labels of references and masks, and where they stand, as far as they are known."""
    if found is None:
        if of_masks is None:
            raise InputError(
                f"{folder}: the names of the labels are not known; name the raw dataset with -d, put its dataset.json beside the labels, "
                "or say --labels LV=1 MYO=2"
            )
        return References(cases, of_masks[0], of_masks[0], "references")
    if of_masks is None:
        if files_by_case(predictions):  # an empty folder is refused later
            logger.info(
                "%s: nothing says how the masks are numbered; taken as %s", predictions, in_words(found[0])
            )
        return References(cases, found[0], found[0], "masks")
    matching = match_labels(found[0], of_masks[0], we=str(found[1]), they=str(of_masks[1]))
    if not same_numbering(found[0], of_masks[0]):
        logger.info("labels of references and masks matched by name: %s", matching.in_words())
    return References(cases, found[0], of_masks[0])


def of_predicted(references: References, predictions: Path) -> References:
    """Only the cases that have a prediction."""
    masks = files_by_case(predictions)
    return replace(references, cases=tuple(case for case in references.cases if case.case_id in masks))


def _as_known(case: Case, known: Case | None) -> Case:
    """The case with subject, phase and groups as a dataset knows them."""
    if known is None:
        return case
    return replace(
        case, subject=known.subject, phase=known.phase, partition=known.partition, groups=known.groups
    )


def _label_files(folder: Path) -> dict[str, Path]:
    """The files of a plain folder by the name of the case. Raises InputError where there is none, CaseErrors where two have one name."""
    files = files_by_case(folder)
    if problems := [
        f"{folder}: case {name}: two references, {paths[0].name} and {paths[1].name}; keep one"
        for name, paths in files.items()
        if len(paths) > 1
    ]:
        raise CaseErrors(problems)
    if not files:
        if dicom_in(folder) is not None:
            raise dicom_refusal(folder)
        found = listing(sorted(path.name for path in folder.iterdir() if path.name[0] != ".")) or "nothing"
        raise InputError(
            f"{folder}: no reference label is there (expected CASE.nii.gz files or a raw dataset); found {found}"
        )
    return {name: paths[0] for name, paths in files.items()}


def _contains(folder: Path, path: Path) -> bool:
    """Whether a path is the folder or lies in it. A link in the folder lies there, wherever it leads."""
    if ".." not in path.parts and path.absolute().is_relative_to(folder.absolute()):
        return True
    if path.resolve() == folder.resolve():
        return True
    return (path.parent.resolve() / path.name).is_relative_to(folder.resolve())


def labels_of_masks(folder: Path) -> tuple[Labels, Path] | None:
    """The labels of the masks in a folder, and where they stand: its `prediction.json`, `dataset.json`, or the dataset that it belongs to.

    None where none is there. Raises InputError where one is there and cannot be read.
    """
    record = folder / PREDICTION_FILE
    if record.is_file():
        value = read_json(record)
        found = value.get("labels") if isinstance(value, dict) else None
        if (labels := labels_of_json(found)) is not None:
            return labels, record
        raise InputError(
            f"{record}: labels: expected an object with names of labels and whole numbers, found {str(found)[:80]}; "
            f"predict again, or put the masks without it into a folder with a {DESCRIPTION_FILE}"
        )
    if (folder / DESCRIPTION_FILE).is_file():
        return read_description(folder / DESCRIPTION_FILE).labels, folder / DESCRIPTION_FILE
    root = dataset_around(folder)
    return None if root is None else (open_dataset(root).labels, root)


def _labels_beside(folder: Path) -> tuple[Labels, Path] | None:
    """The labels' names and values by `dataset.json` beside the references, and that file."""
    beside = (folder, folder.absolute().parent) if folder.absolute().name in LABEL_FOLDERS else (folder,)
    for where in beside:
        if (where / DESCRIPTION_FILE).is_file():
            return read_description(where / DESCRIPTION_FILE).labels, where / DESCRIPTION_FILE
    return None
