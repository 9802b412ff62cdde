"""Makes the images of raw_data_template/ anew: `python tests/rawdata/make_template.py`. Synthetic shapes, 24 × 24 pixels, 4 slices."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from rawfiles import LABELS, make_acdc, make_affine, make_heart, make_nifti, write_json, write_rows

SIZE_ZYX = (4, 24, 24)
TEMPLATE = Path(__file__).parents[2] / "raw_data_template"
CSV_COLUMNS = [
    "External code",
    "VendorName",
    "Vendor",
    "Centre",
    "Pathology",
    "Age",
    "Sex",
    "Height",
    "Weight",
    "ED",
    "ES",
]
CASE_COLUMNS = ("case", "subject", "phase", "vendor", "centre", "pathology")


def make_template(folder: Path) -> None:
    """Writes all layouts, filled in, into a folder."""
    _make_mnms(folder / "mnms_layout")
    make_acdc(folder / "acdc_layout", subjects=2, size_zyx=(4, 16, 16))
    make_acdc(
        folder / "acdc_layout", subjects=1, place="testing", labelled=False, first=3, size_zyx=(4, 16, 16)
    )
    _make_nnunet(folder / "nnunet_layout")


def _make_mnms(folder: Path) -> None:
    for place, code, seed in (
        ("Training/Labeled", "A1B2C3", 1),
        ("Training/Labeled", "D4E5F6", 2),
        ("Testing", "G7H8I9", 3),
    ):
        frames = [make_heart(SIZE_ZYX, seed=seed, contraction=contraction) for contraction in (0.0, 1.0)]
        affine = make_affine((10.0, 1.8, 1.8), angles=(0.3, -0.2, 0.1))
        images = (np.stack([image for image, _ in frames]) // 8).astype(np.uint8)
        stem = folder / place / code / f"{code}_sa"
        make_nifti(stem.with_name(f"{code}_sa.nii.gz"), images, affine)
        make_nifti(stem.with_name(f"{code}_sa_gt.nii.gz"), np.stack([label for _, label in frames]), affine)
    rows = [
        ("0", "A1B2C3", "Siemens", "A", "1", "HCM", "52", "F", "168", "64", "0", "1"),
        ("1", "D4E5F6", "Philips", "B", "2", "NOR", "37", "M", "", "", "0", "1"),
        ("2", "G7H8I9", "Canon", "D", "5", "DCM", "61", "M", "180", "83", "0", "1"),
    ]
    write_rows(folder / "dataset_information.csv", ("", *CSV_COLUMNS), rows)


def _make_nnunet(folder: Path) -> None:
    rows = []
    for number, vendor in ((1, "A"), (2, "B")):
        for phase, contraction in (("ED", 0.0), ("ES", 1.0)):
            case = f"patient{number:03d}_{phase}"
            image, label = make_heart(SIZE_ZYX, seed=number, contraction=contraction)
            affine = make_affine((10.0, 1.8, 1.8))
            make_nifti(folder / "imagesTr" / f"{case}_0000.nii.gz", (image // 8).astype(np.uint8), affine)
            make_nifti(folder / "labelsTr" / f"{case}.nii.gz", label, affine)
            rows.append((case, f"patient{number:03d}", phase, vendor, str(number), "NOR"))
    image, _ = make_heart(SIZE_ZYX, seed=3)
    make_nifti(
        folder / "imagesTs" / "patient003_ED_0000.nii.gz",
        (image // 8).astype(np.uint8),
        make_affine((10.0, 1.8, 1.8)),
    )
    rows.append(("patient003_ED", "patient003", "ED", "B", "2", "DCM"))
    write_rows(folder / "cases.csv", CASE_COLUMNS, rows)
    about = {"channel_names": {"0": "cine-MRI"}, "labels": LABELS, "numTraining": 4, "file_ending": ".nii.gz"}
    write_json(folder / "dataset.json", about, indent=2)


if __name__ == "__main__":
    make_template(TEMPLATE)
