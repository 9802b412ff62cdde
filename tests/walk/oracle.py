"""What must hold of artefacts, from nibabel and numpy alone: sizes, spacings, ml and Dice by the labels' names, geometry of masks.

Each check gives lines about what is wrong; none where all is right. JSON, CSV and npz are read as any other program would read them.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK
from numpy.typing import NDArray

from walk.raw import Raw, RawCase, read, stored_pixdim

ML_WITHIN = 2e-3  # relative
RESAMPLED_WITHIN = 0.3  # of a label's volume, and as many voxels as follow
RESAMPLED_VOXELS = 60
DICE_WITHIN = 1e-4


def check_fingerprint(raw: Raw, preprocessed: Path) -> Iterator[str]:
    """Cases, subjects, sizes, spacings and ml of each label in `fingerprint.json`."""
    about = json.loads((preprocessed / "fingerprint.json").read_text())
    found = {case["case_id"]: case for case in about["cases"]}
    if set(about["labels"]) != set(raw.labels):
        yield f"labels {about['labels']}, expected {raw.labels}"
    for name in sorted(set(raw.cases) - set(found) - raw.hidden):
        yield f"case {name} is not in the fingerprint"
    for name in sorted(set(found) - set(raw.cases)):
        yield f"case {name} is in the fingerprint, expected {sorted(raw.cases)}"
    for name in sorted(set(found) & set(raw.cases)):
        yield from (f"case {name}: {line}" for line in _check_case(raw.cases[name], found[name], raw))


def _check_case(case: RawCase, found: Mapping[str, Any], raw: Raw) -> Iterator[str]:
    twins = set().union(*(group for group in raw.same_fold if case.subject in group))
    if found["subject"] not in {case.subject} | twins:
        yield f"subject {found['subject']}, expected {case.subject}"
    axes = list(zip(found["size_zyx"], found["spacing_zyx_mm"], strict=True))
    mine = sorted(case.axes)
    for (size, spacing), (own_size, own_spacing) in zip(sorted(axes), mine, strict=True):
        if size != own_size or abs(spacing / own_spacing - 1) > ML_WITHIN:
            yield f"size and spacing {axes}, expected {case.axes} in some order"
            break
    thickest = max(spacing for _, spacing in case.axes)
    if 1 in (size for size, _ in case.axes):
        if axes[0][0] != 1:
            yield f"slices along an axis of {axes[0][0]}, expected the one of size 1 of {case.axes}"
    elif sum(spacing > 0.99 * thickest for _, spacing in case.axes) == 1 and axes[0][1] < 0.99 * thickest:
        yield f"slices along the axis of {axes[0][1]:g} mm, expected the one of {thickest:g} mm"
    for name in raw.labels.keys() - {"ignore"}:
        ml, expected = found["labels"].get(name, {}).get("volume_ml", 0.0), case.ml.get(name, 0.0)
        if abs(ml - expected) > ML_WITHIN * expected:
            yield f"{name} {ml:.4f} ml, expected {expected:.4f} ml"


def check_slices(raw: Raw, plan_folder: Path) -> Iterator[str]:
    """The slices to train from: their number, and each label's area within what resampling changes."""
    labels = json.loads((plan_folder / "plan.json").read_text())["preprocessing"]["labels"]
    for folder in sorted((plan_folder / "slices").iterdir()):
        if folder.name not in raw.cases:
            continue
        case, files = raw.cases[folder.name], sorted(folder.glob("*.npz"))
        label_ZYX = np.stack([np.load(file)["label"] for file in files])
        if not all(np.isfinite(np.load(file)["image"]).all() for file in files):
            yield f"slices of {folder.name}: not finite"
        voxels = float(np.prod([size for size, _ in case.axes]))
        voxel_ml = float(np.prod([spacing for _, spacing in case.axes])) / 1000
        for name, value in labels.items():
            count = float((label_ZYX == value).sum()) * voxels / label_ZYX.size
            expected = case.ml.get(name, 0.0) / voxel_ml
            if (
                value
                and name != "ignore"
                and abs(count - expected) > RESAMPLED_WITHIN * expected + RESAMPLED_VOXELS
            ):
                yield f"slices of {folder.name}: {name} on {count:.0f} voxels, expected about {expected:.0f}"


def check_folds(raw: Raw, preprocessed: Path) -> Iterator[str]:
    """No subject on both sides of a fold, and those that are one scan on the same side."""
    folds = json.loads((preprocessed / "splits.json").read_text())
    groups = [{subject} for subject in {case.subject for case in raw.cases.values()}] + raw.same_fold
    for number, fold in enumerate(folds):
        for group in groups:
            if group & set(fold["training"]) and group & set(fold["validation"]):
                yield f"fold {number}: {sorted(group)} on both sides"


def check_masks(raw: Raw, names: Sequence[str], masks: Path, labels: Mapping[str, int]) -> Iterator[str]:
    """Each mask lies as its image's file: size, affine, codes, units; voxels are uint8 and labels."""
    for name in names:
        path, image = masks / f"{name}.nii.gz", raw.cases[name].images[0]
        if not path.exists():
            yield f"no mask of {name}"
            continue
        mask = nib.load(path)
        values = np.asanyarray(mask.dataobj)
        if mask.get_data_dtype() != np.uint8 or not set(np.unique(values)) <= set(labels.values()):
            yield f"mask of {name}: {mask.get_data_dtype()} with {np.unique(values)[:9]}"
        if image.name.endswith((".nii", ".nii.gz")):
            yield from (f"mask of {name}: {line}" for line in _unlike(mask, nib.load(image)))
        else:
            yield from (f"mask of {name}: {line}" for line in _unlike_itk(path, image))


def _unlike(mask: Any, image: Any) -> Iterator[str]:
    sizes = mask.shape[:3], image.shape[:3]
    if sizes[0] != sizes[1]:
        yield f"size {sizes[0]}, expected {sizes[1]}"
    if not np.allclose(mask.affine, image.affine, atol=1e-5):
        yield f"affine {mask.affine.tolist()}, expected {image.affine.tolist()}"
    for key in ("sform_code", "qform_code", "xyzt_units"):
        if int(mask.header[key]) != int(image.header[key]):
            yield f"{key} {int(mask.header[key])}, expected {int(image.header[key])}"
    mine, other = stored_pixdim(mask), stored_pixdim(image)
    if np.isfinite(other).all() and (other > 0).all() and not np.allclose(mine, other):
        yield f"pixdim {mine}, expected {other}"


def _unlike_itk(mask: Path, image: Path) -> Iterator[str]:
    mine, other = SimpleITK.ReadImage(str(mask)), SimpleITK.ReadImage(str(image))
    for key in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        if not np.allclose(getattr(mine, key)(), getattr(other, key)(), atol=1e-4):
            yield f"{key} {getattr(mine, key)()}, expected {getattr(other, key)()}"


Score = tuple[float | None, float, float]
"""Dice (None where both are empty), ml of the reference, ml of the prediction."""


def own_scores(
    raw: Raw, names: Sequence[str], masks: Path, mask_labels: Mapping[str, int]
) -> dict[tuple[str, str], Score]:
    """Dice and ml of each case and label, with labels by their names; without what cannot be compared."""
    scores = {}
    for name in names:
        case = raw.cases[name]
        try:
            if case.label.name.endswith((".nii", ".nii.gz")):
                reference, spacing = read(case.label, case.frame)
            else:
                reference, spacing = _read_itk(case.label)
        except nib.filebasedimages.ImageFileError:
            continue  # another format under this name: to be refused
        spacing = spacing * raw.unit_mm
        prediction, _ = read(masks / f"{name}.nii.gz")
        if case.label.name.endswith((".nii", ".nii.gz")):
            reference = _brought(reference, case.label, masks / f"{name}.nii.gz")
        if reference.shape != prediction.shape:
            continue  # nothing to compare: to be refused
        known = np.rint(reference) != raw.labels.get("ignore", -1)
        for label, value in raw.labels.items():
            if value and label in mask_labels and label != "ignore":
                scores[name, label] = _score(
                    known & (prediction == mask_labels[label]), np.rint(reference) == value, spacing
                )
    return scores


def _brought(values: NDArray[Any], source: Path, target: Path) -> NDArray[Any]:
    """Voxels of one file in the axis order and direction of another."""
    mine, other = (nib.io_orientation(nib.load(path).affine) for path in (source, target))
    return np.asarray(nib.apply_orientation(values, nib.orientations.ornt_transform(mine, other)))


def _read_itk(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    image = SimpleITK.ReadImage(str(path))
    return SimpleITK.GetArrayFromImage(image).T, np.array(image.GetSpacing())


def _score(prediction: NDArray[Any], reference: NDArray[Any], spacing: NDArray[np.float64]) -> Score:
    ml = spacing.prod() / 1000
    both, mine, other = (float(each.sum()) for each in (prediction & reference, prediction, reference))
    return (2 * both / (mine + other) if mine + other else None), other * ml, mine * ml


def check_scores(expected: Mapping[tuple[str, str], Score], scores: Path) -> Iterator[str]:
    """`metrics.csv` against the own scores."""
    with (scores / "metrics.csv").open(newline="") as handle:
        rows = {(row["case"], row["label_name"]): row for row in csv.DictReader(handle)}
    for key in sorted(set(expected) - set(rows)):
        yield f"metrics.csv has no row {key}"
    for key in sorted(set(expected) & set(rows)):
        row, (dice, reference_ml, prediction_ml) = rows[key], expected[key]
        if dice is not None and (not row["dice"] or abs(float(row["dice"]) - dice) > DICE_WITHIN):
            yield f"{key}: Dice {row['dice']}, expected {dice:.5f}"
        for column, ml in (("reference_ml", reference_ml), ("prediction_ml", prediction_ml)):
            if abs(float(row[column] or "nan") - ml) > ML_WITHIN * ml or not row[column]:
                yield f"{key}: {column} {row[column]}, expected {ml:.5f}"


def least_dice(first: NDArray[Any], second: NDArray[Any]) -> float:
    """The lowest Dice over the values that either mask has, background too."""
    values = set(np.unique(first)) | set(np.unique(second))
    return min(float(_score(first == value, second == value, np.ones(3))[0] or 0) for value in values)
