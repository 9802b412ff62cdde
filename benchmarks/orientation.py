"""Whether the copies of a scan with other file axes have its anatomy: Dice against the mask of the scan itself, and flags.

    python benchmarks/orientation.py HOME -d NAME CASE… [-m MODEL] [-f FOLD] [--device cpu]

CASE are cases of the raw dataset NAME. Each is copied losslessly by nibabel into eight in-plane arrangements with the slices along each of
the three file axes, and all are predicted by one call of `utseg_predict`. Printed for each copy: the lowest Dice over labels of its mask,
by the patient's axes, with the mask of the unchanged scan, and whether `quality.csv` names orientation; last, how many copies agree (at
least .99), are flagged, and are neither: silently wrong.
"""

import argparse
import csv
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

from utseg.commands.predict import main as predict
from utseg.home import Home
from utseg.rawdata import open_dataset

AGREES = 0.99
AXES = (2, 0, 1)


def main() -> None:
    """Copies, predicts, compares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("home", type=Path)
    parser.add_argument("-d", dest="dataset", required=True)
    parser.add_argument("cases", nargs="+", metavar="CASE")
    arguments, more = parser.parse_known_args()
    dataset = open_dataset(Home.locate(arguments.home).raw_dataset(arguments.dataset)[1])
    cases = {case.case_id: case for case in dataset.cases}
    with tempfile.TemporaryDirectory() as folder:
        scans, masks = Path(folder) / "scans", Path(folder) / "masks"
        scans.mkdir()
        for name in arguments.cases:
            image = nib.load(cases[name].images[0])
            frame = cases[name].frame
            write_copies(with_spacing(image if frame is None else image.slicer[..., frame]), name, scans)
        words = ["-i", scans, "-o", masks, "-d", arguments.dataset, "--home", arguments.home, *more]
        if predict([str(word) for word in words]):
            raise SystemExit(1)
        with (masks / "quality.csv").open(newline="") as file:
            flagged = {row["case"]: "orientation: " in row["reasons"] for row in csv.DictReader(file)}
        found = []
        for name in arguments.cases:
            expected = canonical(masks / f"{name}__0_2.nii.gz")
            for copy in sorted(masks.glob(f"{name}__*.nii.gz")):
                case = copy.name.removesuffix(".nii.gz")
                lowest = lowest_dice(canonical(copy), expected)
                found.append((lowest >= AGREES, flagged[case]))
                print(f"{case:<32} {lowest:.4f} {'orientation' if flagged[case] else ''}")
    agree, told = sum(same for same, _ in found), sum(flag for _, flag in found)
    silent = sum(not same and not flag for same, flag in found)
    print(f"{len(found)} copies: {agree} agree, {told} flagged, {silent} silently wrong")


def with_spacing(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """The image with the spacing of `pixdim` in its affine: nibabel's copies of a file with an sform of unit lengths lose it."""
    affine = image.affine.copy()
    affine[:3, :3] *= np.array(image.header.get_zooms()[:3]) / np.linalg.norm(affine[:3, :3], axis=0)
    return nib.Nifti1Image(np.asarray(image.dataobj), affine)


def write_copies(image: nib.Nifti1Image, name: str, folder: Path) -> None:
    """NAME__I_A.nii.gz: arrangement I of the slices, which lie along axis A of the file; the scan is 0_2."""
    for number, (swap, first, second) in enumerate(arrangements()):
        for axis in AXES:
            rows, columns = (other for other in range(3) if other != axis)
            to = (columns, rows, axis) if swap else (rows, columns, axis)
            copy = image.as_reoriented(np.column_stack([to, (first, second, 1)]))
            nib.save(copy, folder / f"{name}__{number}_{axis}.nii.gz")


def arrangements() -> Iterator[tuple[bool, int, int]]:
    """Whether the in-plane axes are exchanged, and their signs; as they are first."""
    return itertools.product((False, True), (1, -1), (1, -1))


def canonical(path: Path) -> np.ndarray:
    """A mask by the patient's axes."""
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


def lowest_dice(mask: np.ndarray, expected: np.ndarray) -> float:
    """The lowest over all labels of either."""
    labels = sorted(set(np.unique(mask)) | set(np.unique(expected)) - {0})
    pairs = [((mask == label), (expected == label)) for label in labels if label]
    return min((2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs), default=1.0)


if __name__ == "__main__":
    main()
