"""Which mask belongs to which reference, both read in the values of one set of labels, and whether they are numbered alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from utseg.case import Case
from utseg.errors import CaseErrors, InputError, listing
from utseg.files import require_no_broken_link
from utseg.label_map import Labels, LabelValue, all_values, has_regions, painted, structures
from utseg.labels import ignored, in_words, match_labels
from utseg.rawdata.description import DESCRIPTION_FILE
from utseg.rawdata.names import NIFTI_ENDINGS, PICTURE_ENDINGS, letter_case_differs, letter_case_pairs

if TYPE_CHECKING:
    from utseg.rawdata.geometry import Geometry

AS_IT_IS, AS_MATCHED = 0.1, 0.5
"""Dice over all voxels of the labels in question: below the first as they are numbered, and at least the second as they lie."""

UnrecordedSide = Literal["masks", "references"]


@dataclass(frozen=True)
class MaskPair:
    """A labelled case and the file of its mask. `labels`: names and values to score by; those of the two files match by name."""

    case: Case
    mask: Path
    labels: Labels
    reference_labels: Labels
    mask_labels: Labels

    def read_whole(self) -> "tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_], Geometry]":
        """Mask and reference (Z, Y, X), where the reference is ignored, and how they lie. Raises InputError where that differs."""
        from utseg.rawdata.gate import read_label

        assert self.case.label is not None, "only labelled cases are scored"
        found_ZYX, geometry = read_label(
            self.case.label, with_background(self.reference_labels), self.case.frame
        )
        predicted_ZYX, mask_geometry = read_label(self.mask, with_background(self.mask_labels))
        if differences := mask_geometry.differences(geometry):
            raise InputError(
                f"{self.mask}: does not lie on the grid of its reference {self.case.label}: {'; '.join(differences)}"
            )
        mask_ZYX = self._translated(predicted_ZYX, self.mask, self.mask_labels)
        reference_ZYX = self._translated(found_ZYX, self.case.label, self.reference_labels)
        return mask_ZYX, reference_ZYX, ignored(found_ZYX, self.reference_labels), geometry

    def _translated(self, label_ZYX: NDArray[np.uint8], path: Path, labels: Labels) -> NDArray[np.uint8]:
        return match_labels(self.labels, labels, we="the scores", they=str(path)).translate(label_ZYX)


def with_background(labels: Labels) -> dict[str, LabelValue]:
    """The labels that a file may have, background among them."""
    return {"background": 0} | {name: value for name, value in labels.items() if value}


def files_by_case(folder: Path) -> dict[str, list[Path]]:
    """The NIfTI files of a folder by the name of the case, sorted; pictures where there are none of these.

    A link counts, for the gate says where it leads nowhere.
    """
    found: dict[str, list[Path]] = {}
    for endings in (NIFTI_ENDINGS, PICTURE_ENDINGS):
        for suffix in endings if not found else ():
            for path in folder.glob(f"*{suffix}"):
                if path.name[0] != "." and (path.is_file() or path.is_symlink()):
                    found.setdefault(path.name[: -len(suffix)], []).append(path)
    return dict(sorted(found.items()))


def require_masks(predictions: Path) -> None:
    """Raises InputError where there is no such folder, or no mask in it."""
    if not require_no_broken_link(predictions).is_dir():
        raise InputError(f"{predictions}: no folder with predictions is there")
    if not files_by_case(predictions):
        found = listing(sorted(path.name for path in predictions.iterdir() if path.name[0] != "."))
        raise InputError(
            f"{predictions}: no mask is there (expected CASE{NIFTI_ENDINGS[0]} files); found {found or 'nothing'}"
        )


def match(cases: Sequence[Case], predictions: Path, *, refuse_extra: bool = False) -> list[tuple[Case, Path]]:
    """Each case with its prediction's file. Raises CaseErrors that lists all cases without one or without a reference, and, with
    refuse_extra, all predictions that no case asks for."""
    require_masks(predictions)
    masks = files_by_case(predictions)
    labelled = [case for case in cases if case.label is not None]
    pairs = [(case, masks[case.case_id][0]) for case in labelled if len(masks.get(case.case_id, ())) == 1]
    problems = [
        f"case {case.case_id}: two predictions, {found[0].name} and {found[1].name}; keep one"
        for case in labelled
        if len(found := masks.get(case.case_id, [])) > 1
    ]
    if same := [case.case_id for case, path in pairs if case.label and _is_same(path, case.label)]:
        problems.append(
            f"{predictions}: for {len(same)} of {len(cases)} cases the mask (-p) is the reference label (-g) itself: {listing(same)}; "
            "name the folder that utseg_predict wrote"
        )
    if unlabelled := [case.case_id for case in cases if case.label is None]:
        problems.append(
            f"{len(unlabelled)} of {len(cases)} cases have no reference label: {', '.join(unlabelled)}"
        )
    missing = [case.case_id for case in labelled if case.case_id not in masks]
    extra = sorted(masks.keys() - {case.case_id for case in cases})
    if differing := letter_case_differs(missing, extra, "the references", "among the predictions"):
        problems.append(f"{predictions}: {differing}; write them alike")
        alike = letter_case_pairs(missing, extra)
        missing = [name for name in missing if name not in alike]
        extra = [name for name in extra if name not in alike.values()]
    if missing:
        problems.append(
            f"{predictions}: no prediction CASE{NIFTI_ENDINGS[0]} for {len(missing)} of {len(cases)} cases: {', '.join(missing)}; "
            "predict them, or score only what is there with --only-predicted"
        )
    if extra and refuse_extra:
        problems.append(
            f"{predictions}: no reference for {len(extra)} predictions: {', '.join(extra)}; "
            "add their references, or score only what has one with --only-referenced"
        )
    if problems:
        raise CaseErrors(problems)
    if not pairs:
        raise InputError(f"{predictions}: nothing to evaluate: no labelled case was found")
    return pairs


def _is_same(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


def count_overlap(
    prediction_ZYX: NDArray[np.uint8], reference_ZYX: NDArray[np.uint8], labels: Labels
) -> NDArray[np.int64]:
    """Voxels by value in the mask (rows) and in the reference (columns)."""
    size = max(all_values(labels)) + 1
    both = prediction_ZYX.astype(np.intp).ravel() * size + reference_ZYX.ravel()
    return np.bincount(both, minlength=size * size).reshape(size, size).astype(np.int64)


def require_plausible(
    overlaps: Sequence[NDArray[np.int64]], labels: Labels, predictions: Path, assumed: UnrecordedSide
) -> None:
    """Raises InputError where two labels or more hardly overlap themselves, and each lies on another one. Regions overlap anyhow.

    assumed: the side whose numbering is not on record, and was taken for the other's.
    """
    from scipy.optimize import linear_sum_assignment

    if has_regions(labels):
        return
    total = np.sum(overlaps, axis=0)
    names = {painted(value): name for name, value in structures(labels).items()}
    values = list(names)
    inner = total[np.ix_(values, values)]
    sizes = total[values].sum(1)[:, None] + total[:, values].sum(0)[None]
    dice = 2 * inner / np.maximum(sizes, 1)
    rows, columns = linear_sum_assignment(-dice)
    moved = [
        (row, column)
        for row, column in zip(rows, columns, strict=True)
        if dice[row, row] < AS_IT_IS and dice[row, column] >= AS_MATCHED
    ]
    if len(moved) < 2:
        return
    found = ", ".join(
        f"{values[row]} is taken for {names[values[row]]} (Dice {dice[row, row]:.2f}) and lies on {names[values[column]]} "
        f"({dice[row, column]:.2f})"
        for row, column in moved
    )
    raise InputError(
        f"{predictions}: masks and references are numbered differently, and how the {assumed} are is not on record: as {in_words(labels)} "
        f"in the masks {found}; put a {DESCRIPTION_FILE} with the labels of the {assumed} beside them"
    )
