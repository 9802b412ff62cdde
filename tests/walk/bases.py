"""What the walk starts from: the template, the files of the other tests, the phantom in three layouts, and small crops of real scans.

Real scans are cropped into a temporary folder only.
"""

import csv
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from rawdata.make_template import make_template
from rawfiles import LABELS, make_mnms, make_nnunet, write_json, write_rows

from walk.raw import Raw, RawCase, Scan, put_together, take_apart

ACDC_NUMBERS = {"RV": 1, "MYO": 2, "LV": 3}
SIDE = 56
SLICES = 4
SUBJECTS = 5


def open_nnunet(folder: Path, labels: Mapping[str, int] = LABELS, subjects: bool = True) -> Raw:
    """The truth about an untouched nnU-Net folder, from its file names and `cases.csv`."""
    about = json.loads((folder / "dataset.json").read_text())
    channels = len(about["channel_names"])
    rows = {}
    if subjects and (folder / "cases.csv").exists():
        with (folder / "cases.csv").open(newline="") as handle:
            rows = {row["case"]: row["subject"] for row in csv.DictReader(handle)}
    cases = {}
    for label in sorted((folder / "labelsTr").iterdir()):
        name = label.name.removesuffix(about["file_ending"])
        images = [
            folder / "imagesTr" / f"{name}_{number:04d}{about['file_ending']}" for number in range(channels)
        ]
        cases[name] = RawCase(rows.get(name, name), images, label)
    return Raw(folder, "nnunet", dict(labels), cases, about["file_ending"], channels)


def open_mnms(folder: Path) -> Raw:
    """The truth about an untouched M&Ms folder: two cases for each labelled training subject of its table."""
    table = next(folder.glob("*.csv"))
    with table.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    cases = {}
    for row in rows:
        code = row["External code"]
        stem = folder / "Training" / "Labeled" / code / code
        if stem.parent.is_dir():
            image, label = Path(f"{stem}_sa.nii.gz"), Path(f"{stem}_sa_gt.nii.gz")
            for phase in ("ED", "ES"):
                cases[f"{code}_{phase}"] = RawCase(code, [image], label, int(row[phase]))
    return Raw(folder, "mnms", dict(LABELS), cases)


def open_acdc(folder: Path) -> Raw:
    """The truth about an untouched ACDC folder, from `Info.cfg`: frames counted from 1."""
    cases = {}
    for place in sorted((folder / "training").iterdir()):
        info = dict(line.split(": ") for line in (place / "Info.cfg").read_text().splitlines() if line)
        for phase in ("ED", "ES"):
            stem = place / f"{place.name}_frame{int(info[phase]):02d}"
            image, label = Path(f"{stem}.nii.gz"), Path(f"{stem}_gt.nii.gz")
            cases[f"{place.name}_{phase}"] = RawCase(place.name, [image], label)
    return Raw(folder, "acdc", {"background": 0, **ACDC_NUMBERS}, cases)


def template_nnunet(folder: Path, cache: Path) -> Raw:
    shutil.copytree(_made(cache / "template", make_template) / "nnunet_layout", folder)
    return open_nnunet(folder)


def template_mnms(folder: Path, cache: Path) -> Raw:
    shutil.copytree(_made(cache / "template", make_template) / "mnms_layout", folder)
    return open_mnms(folder)


def files_nnunet(folder: Path, cache: Path) -> Raw:
    return open_nnunet(make_nnunet(folder, subjects=SUBJECTS, size_zyx=(4, 48, 44)))


def files_channels(folder: Path, cache: Path) -> Raw:
    return open_nnunet(make_nnunet(folder, subjects=4, channels=2, size_zyx=(3, 40, 44)))


def files_alone(folder: Path, cache: Path) -> Raw:
    """Without cases.csv: every case is a subject."""
    return open_nnunet(make_nnunet(folder, subjects=3, table=False, size_zyx=(5, 40, 36)))


def files_mnms(folder: Path, cache: Path) -> Raw:
    return open_mnms(make_mnms(folder, subjects=SUBJECTS, frames=4, size_zyx=(4, 48, 44)))


def phantom_mnms(folder: Path, cache: Path) -> Raw:
    from utseg.phantom.cohort import make_phantom
    from utseg.phantom.examination import PhantomSettings

    def make(place: Path) -> None:
        make_phantom(place, PhantomSettings(subjects=10, frames=3, matrix=56, slices=4), workers=1)

    shutil.copytree(_made(cache / "phantom", make), folder)
    for subject in sorted((folder / "Testing").iterdir())[1:]:
        shutil.rmtree(subject)
    return open_mnms(folder)


def phantom_nnunet(folder: Path, cache: Path) -> Raw:
    source = phantom_mnms(folder.with_name(f".{folder.name}"), cache)
    _as_nnunet(source, folder)
    shutil.rmtree(source.folder)
    return open_nnunet(folder)


def phantom_acdc(folder: Path, cache: Path) -> Raw:
    """ACDC's layout and numbers: 1 RV, 2 MYO, 3 LV, one file a frame, counted from 1."""
    source = phantom_mnms(folder.with_name(f".{folder.name}"), cache)
    for number, subject in enumerate(sorted({case.subject for case in source.cases.values()}), 1):
        place = folder / "training" / f"patient{number:03d}"
        lines = []
        for phase in ("ED", "ES"):
            case = source.cases[f"{subject}_{phase}"]
            frame = case.frame or 0
            lines.append(f"{phase}: {frame + 1}")
            image, label = (_frame(path, frame) for path in (case.images[0], case.label))
            label.voxels = np.array([0, 3, 2, 1], dtype=np.uint8)[label.voxels]
            put_together(place / f"{place.name}_frame{frame + 1:02d}.nii.gz", image)
            put_together(place / f"{place.name}_frame{frame + 1:02d}_gt.nii.gz", label)
        (place / "Info.cfg").write_text(
            "\n".join([*lines, "Group: NOR", "Height: 170.0", "NbFrame: 3", "Weight: 70.0", ""])
        )
    shutil.rmtree(source.folder)
    return open_acdc(folder)


def real_acdc(folder: Path, cache: Path, shared: Path) -> Raw:
    """ACDC of the nnU-Net layout, five subjects, cropped."""
    return _cropped_nnunet(shared / "data/raw/ACDC", folder, SUBJECTS)


def real_mnms(folder: Path, cache: Path, shared: Path) -> Raw:
    return _cropped_nnunet(shared / "data/raw/MnM_AB", folder, SUBJECTS)


def real_hippocampus(folder: Path, cache: Path, shared: Path) -> Raw:
    return _cropped_nnunet(shared / "data/raw/Hippocampus", folder, 6)


def real_acdc_native(folder: Path, cache: Path, shared: Path) -> Raw:
    source = shared / "data/raw/ACDC_native/training"
    for place in sorted(source.iterdir())[:SUBJECTS]:
        target = folder / "training" / place.name
        target.mkdir(parents=True)
        shutil.copyfile(place / "Info.cfg", target / "Info.cfg")
        for label in sorted(place.glob("*_gt.nii.gz")):
            image = place / label.name.replace("_gt", "")
            _crop([image], label, target)
    return open_acdc(folder)


def real_mnms_native(folder: Path, cache: Path, shared: Path) -> Raw:
    """The two M&Ms patients of the native layout, with their own headers."""
    source = shared / "data/raw/MnM"
    table = next(source.glob("*.csv"))
    folder.mkdir(parents=True)
    shutil.copyfile(table, folder / table.name)
    for place in sorted((source / "Training/Labeled").iterdir()):
        target = folder / "Training/Labeled" / place.name
        target.mkdir(parents=True)
        _crop([place / f"{place.name}_sa.nii.gz"], place / f"{place.name}_sa_gt.nii.gz", target)
    return open_mnms(folder)


MADE: Mapping[str, Callable[[Path, Path], Raw]] = {
    "template, nnU-Net": template_nnunet,
    "template, M&Ms": template_mnms,
    "files, nnU-Net": files_nnunet,
    "files, two channels": files_channels,
    "files, no table": files_alone,
    "files, M&Ms": files_mnms,
    "phantom, M&Ms": phantom_mnms,
    "phantom, nnU-Net": phantom_nnunet,
    "phantom, ACDC": phantom_acdc,
}
REAL: Mapping[str, Callable[[Path, Path, Path], Raw]] = {
    "real ACDC": real_acdc,
    "real M&Ms": real_mnms,
    "real Hippocampus": real_hippocampus,
    "real ACDC, native": real_acdc_native,
    "real M&Ms, native": real_mnms_native,
}
LAYOUTS = {name: "mnms" if "M&Ms" in name and name != "real M&Ms" else "nnunet" for name in (*MADE, *REAL)}
LAYOUTS |= {"phantom, ACDC": "acdc", "real ACDC, native": "acdc"}


def _made(folder: Path, make: Callable[[Path], object]) -> Path:
    """Makes a folder once a walk."""
    if not folder.exists():
        make(folder)
    return folder


def _frame(path: Path, frame: int) -> Scan:
    scan = take_apart(path)
    return Scan(scan.header, scan.voxels[..., frame].copy())


def _as_nnunet(source: Raw, folder: Path) -> None:
    rows = []
    for name, case in source.cases.items():
        put_together(folder / "imagesTr" / f"{name}_0000.nii.gz", _frame(case.images[0], case.frame or 0))
        put_together(folder / "labelsTr" / f"{name}.nii.gz", _frame(case.label, case.frame or 0))
        rows.append((name, case.subject, name[-2:]))
    write_rows(folder / "cases.csv", ("case", "subject", "phase"), rows)
    about = {"channel_names": {"0": "cine-MRI"}, "labels": LABELS, "numTraining": len(rows)}
    write_json(folder / "dataset.json", {**about, "file_ending": ".nii.gz"})


def _cropped_nnunet(source: Path, folder: Path, subjects: int) -> Raw:
    about = json.loads((source / "dataset.json").read_text())
    table = source / "cases.csv"
    rows: list[dict[str, str]] = []
    if table.exists():
        with table.open(newline="") as handle:
            rows = list(csv.DictReader(handle))
        kept = list(dict.fromkeys(row["subject"] for row in rows))[:: max(1, len(rows) // 2 // subjects)]
        rows = [row for row in rows if row["subject"] in kept[:subjects]]
        names = [row["case"] for row in rows]
    else:
        names = sorted(path.name.removesuffix(".nii.gz") for path in (source / "labelsTr").iterdir())
        names = names[:subjects]
    for name in names:
        (folder / "labelsTr").mkdir(parents=True, exist_ok=True)
        _crop([source / "imagesTr" / f"{name}_0000.nii.gz"], source / "labelsTr" / f"{name}.nii.gz", folder)
    if rows:
        write_rows(folder / "cases.csv", tuple(rows[0]), [tuple(row.values()) for row in rows])
    write_json(folder / "dataset.json", about | {"numTraining": len(names)})
    return open_nnunet(folder, about["labels"])


def _crop(images: list[Path], label: Path, target: Path) -> None:
    """Cuts image and label about the label: SIDE pixels a side, SLICES slices. Headers stay, but for size and origin."""
    scan = take_apart(label)
    drawn = scan.voxels if scan.voxels.ndim == 3 else scan.voxels.max(axis=3)
    middle = [int(np.median(where)) for where in np.nonzero(drawn)]
    start, index = [], []
    for axis, size in enumerate(drawn.shape):
        side = min(size, SLICES if axis == 2 else SIDE)
        start.append(int(np.clip(middle[axis] - side // 2, 0, size - side)))
        index.append(slice(start[-1], start[-1] + side))
    for path in (*images, label):
        found = take_apart(path)
        header = found.header
        for kind, rows in (("sform", ("srow_x", "srow_y", "srow_z")), ("qform", ("x", "y", "z"))):
            if int(header[f"{kind}_code"]) <= 0:
                continue
            affine = header.get_sform() if kind == "sform" else header.get_qform()
            moved = affine[:3, :3] @ start
            for row, shift in zip(rows, moved, strict=True):
                if kind == "sform":
                    header[row][3] += shift
                else:
                    header[f"qoffset_{row}"] += shift
        is_nnunet = (target / "labelsTr").is_dir()
        place = target / ("labelsTr" if path == label else "imagesTr") if is_nnunet else target
        put_together(place / path.name, Scan(header, found.voxels[tuple(index)]))
