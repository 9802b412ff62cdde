"""Makes raw files and datasets for tests: small, synthetic, and damaged on request.

`make_nifti` writes byte by byte what it is told, so that headers which no library would write can be made. Nothing of `utseg` is used
here: these files are what it is held against.
"""

import csv
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

LABELS = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}
SPACING_ZYX_MM = (8.0, 1.5, 1.25)
MNMS_CSV = "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"
Edit = Callable[[Any], None]


def make_affine(
    spacing_zyx_mm: Sequence[float] = SPACING_ZYX_MM,
    origin: Sequence[float] = (-120.5, 40.25, 300.125),
    angles: Sequence[float] = (0.0, 0.0, 0.0),
) -> NDArray[np.float64]:
    """Voxel xyz to RAS mm: turned by the angles (radians) about x, y and z, rounded to float32 as a header holds it."""
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [(1, 2), (0, 2), (0, 1)][axis]
        turn = np.eye(3)
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array(spacing_zyx_mm[::-1])
    affine[:3, 3] = origin
    return affine.astype(np.float32).astype(np.float64)


def make_nifti(
    path: Path,
    array_zyx: NDArray[Any],
    affine: NDArray[np.float64] | None = None,
    *,
    version: int = 1,
    order: str = "<",
    sform_code: int = 1,
    qform_code: int = 1,
    edit: Edit | None = None,
) -> Path:
    """Writes an array (Z, Y, X), or (T, Z, Y, X) of a cine, as it is. `edit` may change any field of the header (a structured array)."""
    affine = make_affine() if affine is None else affine
    header = (nib.Nifti1Header if version == 1 else nib.Nifti2Header)(endianness=order)
    header.set_data_dtype(array_zyx.dtype)
    header.set_data_shape(array_zyx.shape[::-1])
    if array_zyx.ndim == 4:
        header["pixdim"][4] = 30.0
    header.set_xyzt_units("mm", "msec")
    header.set_qform(affine, code=qform_code)
    header.set_sform(affine, code=sform_code)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = header.template_dtype.itemsize + 4
    header["magic"] = b"n+1" if version == 1 else b"n+2\0\r\n\x1a\n"
    if edit is not None:
        edit(header)
    voxels = np.ascontiguousarray(array_zyx, dtype=array_zyx.dtype.newbyteorder(order)).tobytes()
    write_content(path, header.binaryblock + bytes(4) + voxels)
    return path


def write_content(path: Path, content: bytes) -> None:
    """Writes bytes, compressed where the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, 6, mtime=0) if path.name.endswith(".gz") else content)


def read_content(path: Path) -> bytes:
    """The bytes of a file, decompressed where its name ends in .gz."""
    data = path.read_bytes()
    return gzip.decompress(data) if path.name.endswith(".gz") else data


def edit_header(path: Path, edit: Edit) -> None:
    """Changes header fields of a NIfTI-1 file; the voxels stay."""
    content = read_content(path)
    header = nib.Nifti1Header(content[:348], endianness="<", check=False)
    edit(header)
    write_content(path, header.binaryblock + content[348:])


def make_heart(
    size_zyx: tuple[int, int, int] = (6, 40, 36), *, seed: int = 0, contraction: float = 0.0
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """An image and its label map (Z, Y, X): a ring with a crescent beside it, on a noisy ground; the first and last slice are empty."""
    depth, height, width = size_zyx
    generator = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.arange(length) for length in size_zyx), indexing="ij")
    scale = min(height, width) / 36
    taper = (1 - 0.5 * z / depth) * (1 - 0.4 * contraction) * scale
    distance = np.hypot(y - height / 2, x - width / 2)
    beside = np.hypot(y - height / 2, x - width / 2 + 9 * scale)
    label = np.zeros(size_zyx, dtype=np.uint8)
    label[beside < 7 * taper] = 3
    label[distance < 8.5 * taper] = 2
    label[distance < 5 * taper] = 1
    if depth > 2:
        label[[0, -1]] = 0
    brightness = np.array([60, 220, 110, 200])[label] + generator.normal(0, 12, size_zyx)
    return brightness.clip(0, 4095).astype(np.int16), label


def make_nnunet(
    folder: Path,
    *,
    subjects: int = 3,
    channels: int = 1,
    table: bool = True,
    ending: str = ".nii.gz",
    size_zyx: tuple[int, int, int] = (6, 40, 36),
) -> Path:
    """A dataset in the nnU-Net layout: ED and ES of each subject, vendors A and B in turn, centres 1 and 2."""
    rows = []
    for number in range(subjects):
        for phase, contraction in (("ED", 0.0), ("ES", 1.0)):
            case = f"s{number:02d}_{phase}"
            image, label = make_heart(size_zyx, seed=number, contraction=contraction)
            for channel in range(channels):
                make_nifti(folder / "imagesTr" / f"{case}_{channel:04d}{ending}", image + channel)
            make_nifti(folder / "labelsTr" / f"{case}{ending}", label)
            rows.append((case, f"s{number:02d}", phase, "AB"[number % 2], str(number % 2 + 1)))
    write_json(
        folder / "dataset.json",
        {
            "channel_names": {str(channel): f"channel {channel}" for channel in range(channels)},
            "labels": LABELS,
            "numTraining": len(rows),
            "file_ending": ending,
        },
    )
    if table:
        write_rows(folder / "cases.csv", ("case", "subject", "phase", "vendor", "centre"), rows)
    return folder


def make_mnms(
    folder: Path,
    *,
    subjects: int = 3,
    place: str = "Training/Labeled",
    frames: int = 3,
    size_zyx: tuple[int, int, int] = (6, 40, 36),
    first: int = 0,
) -> Path:
    """A dataset in the native M&Ms layout; ED is the last frame and ES the first in every second subject. Adds to a CSV that is there."""
    rows: list[dict[str, str]] = []
    if (folder / MNMS_CSV).exists():
        with (folder / MNMS_CSV).open(newline="") as handle:
            rows += list(csv.DictReader(handle))
    for number in range(first, first + subjects):
        code = f"A{number}B{number}C{number}"
        ed, es = (0, frames - 1) if number % 2 == 0 else (frames - 1, 0)
        images, labels = zip(
            *(
                make_heart(size_zyx, seed=number, contraction=float(abs(t - ed)) / frames)
                for t in range(frames)
            ),
            strict=True,
        )
        label = np.stack(labels)
        label[[t for t in range(frames) if t not in (ed, es)]] = 0
        make_nifti(folder / place / code / f"{code}_sa.nii.gz", np.stack(images))
        make_nifti(folder / place / code / f"{code}_sa_gt.nii.gz", label)
        rows.append(
            {
                "": str(len(rows)),
                "External code": code,
                "VendorName": ("Siemens", "Philips")[number % 2],
                "Vendor": "AB"[number % 2],
                "Centre": str(number % 2 + 1),
                "Pathology": "HCM" if number % 3 else "NOR",
                "Age": "50",
                "Sex": "F",
                "ED": str(ed),
                "ES": str(es),
            }
        )
    write_rows(folder / MNMS_CSV, tuple(rows[0]), [tuple(row.values()) for row in rows])
    return folder


ACDC_LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}


def make_acdc(
    folder: Path,
    *,
    subjects: int = 3,
    place: str = "training",
    labelled: bool = True,
    first: int = 1,
    size_zyx: tuple[int, int, int] = (6, 40, 36),
) -> Path:
    """A dataset in the native ACDC layout: ED is frame 1, ES frame 3 of a cine of four, all counted from 1; labels in ACDC's numbers."""
    for number in range(first, first + subjects):
        name = f"patient{number:03d}"
        patient = folder / place / name
        frames = [make_heart(size_zyx, seed=number, contraction=t / 3) for t in (0, 2, 3, 1)]
        make_nifti(patient / f"{name}_4d.nii.gz", np.stack([image for image, _ in frames]))
        for frame in (1, 3):
            image, label = frames[frame - 1]
            make_nifti(patient / f"{name}_frame{frame:02d}.nii.gz", image)
            if labelled:
                in_acdc = np.array([0, 3, 2, 1], np.uint8)[label]
                make_nifti(patient / f"{name}_frame{frame:02d}_gt.nii.gz", in_acdc)
        group = ("DCM", "NOR")[number % 2]
        (patient / "Info.cfg").write_text(
            f"ED: 1\nES: 3\nGroup: {group}\nHeight: 170.0\nNbFrame: 4\nWeight: 70.0\n"
        )
    return folder


def write_rows(
    path: Path,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    separator: str = ",",
    encoding: str = "utf-8",
) -> None:
    """Writes a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as handle:
        writer = csv.writer(handle, delimiter=separator)
        writer.writerow(columns)
        writer.writerows(rows)


def write_json(path: Path, value: Any, *, indent: int | None = None) -> None:
    """Writes JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=indent) + "\n")


def change_json(path: Path, *, remove: Sequence[str] = (), **changes: Any) -> None:
    """Replaces and removes keys of a JSON object in a file."""
    value = json.loads(path.read_text())
    write_json(path, {key: value[key] for key in value if key not in remove} | changes)


def change_voxels(
    path: Path, change: Callable[[NDArray[Any]], NDArray[Any]], dtype: str | None = None
) -> None:
    """Rewrites the voxels of a NIfTI file, (Z, Y, X) or (T, Z, Y, X), as another dtype if given; affine and codes stay."""
    image = nib.load(path)
    voxels = np.asarray(image.dataobj).T.astype(dtype or image.get_data_dtype())
    codes = {"sform_code": int(image.header["sform_code"]), "qform_code": int(image.header["qform_code"])}
    make_nifti(path, change(voxels), np.asarray(image.affine), **codes)


def _truncated(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def _replaced(content: bytes) -> Callable[[Path], None]:
    return lambda path: (path.write_bytes(content), None)[1]


def _header(**values: Any) -> Callable[[Path], None]:
    """Sets header fields; `name__index` is one element of an array."""

    def edit(header: Any) -> None:
        for key, value in values.items():
            name, _, index = key.partition("__")
            if index:
                header[name][int(index)] = value
            else:
                header[name] = value

    return lambda path: edit_header(path, edit)


def _no_position(header: Any) -> None:
    header["sform_code"] = header["qform_code"] = 0
    header["pixdim"][1] = 0


def _sheared(header: Any) -> None:
    header["qform_code"] = 0
    header["srow_x"][1] = 0.2


def _set_voxels(value: float, count: int, dtype: str) -> Callable[[Path], None]:
    def change(voxels: NDArray[Any]) -> NDArray[Any]:
        voxels.reshape(-1)[:count] = value
        return voxels

    return lambda path: change_voxels(path, change, dtype)


def _cine(path: Path) -> None:
    change_voxels(path, lambda voxels: np.stack([voxels, voxels]))


def _rgb(path: Path) -> None:
    content = read_content(path)
    header = nib.Nifti1Header(content[:348], endianness="<", check=False)
    header["datatype"], header["bitpix"] = 128, 24
    write_content(path, header.binaryblock + bytes(4) + bytes(3 * int(np.prod(header["dim"][1:4]))))


def _turned(header: Any) -> None:
    affine = make_affine(angles=(0.0, 0.0, 0.1))
    header["qform_code"] = 0
    header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]


def _shifted(header: Any) -> None:
    header["qform_code"] = 0
    header["srow_x"][3] += 3


def _respaced(header: Any) -> None:
    header["qform_code"] = 0
    header["pixdim"][3] *= 1.1
    for row in ("srow_x", "srow_y", "srow_z"):
        header[row][2] *= 1.1


# Kinds of damage to one NIfTI file, by the number of the fault that they show.
CORRUPTIONS: Mapping[str, Callable[[Path], None]] = {
    "truncated": _truncated,  # 1 in .nii.gz, 3 in .nii
    "flipped": _flipped,  # 2
    "empty": _replaced(b""),  # 4
    "png": _replaced(b"\x89PNG\r\n\x1a\n" + bytes(200)),  # 4
    "absurd": _header(dim__1=30000, dim__2=30000, dim__3=30000),  # 5
    "larger": _header(dim__3=32000),  # 5: not absurd, but more than the file can hold
    "sheared": lambda path: edit_header(path, _sheared),  # 6
    "no spacing": lambda path: edit_header(path, _no_position),  # 7
    "4-D": _cine,  # 8
    "RGB": _rgb,  # 8
    "NaN": _set_voxels(float("nan"), 5, "float32"),  # 9
    "Inf": _set_voxels(float("inf"), 5, "float32"),  # 9
    "size": lambda path: change_voxels(path, lambda voxels: voxels[:, :-1]),  # 10
    "spacing": lambda path: edit_header(path, _respaced),  # 10
    "origin": lambda path: edit_header(path, _shifted),  # 11
    "direction": lambda path: edit_header(path, _turned),  # 11
    "unknown label": _set_voxels(7, 12, "uint8"),  # 14
    "negative label": _set_voxels(-1, 3, "int16"),  # 14
    "fractional label": _set_voxels(1.5, 4, "float32"),  # 14
    "background only": lambda path: change_voxels(path, np.zeros_like),  # 15
    "constant": lambda path: change_voxels(path, lambda voxels: np.full_like(voxels, 100)),  # 19
}


def corrupt(path: Path, kind: str) -> Path:
    """Damages a NIfTI file in place; `kind` is a key of CORRUPTIONS."""
    CORRUPTIONS[kind](path)
    return path
