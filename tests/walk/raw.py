"""A raw dataset as the walk knows it: which case lies in which files, and what nibabel and numpy alone say of them. Nothing of utseg."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from rawfiles import read_content, write_content

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")


@dataclass
class RawCase:
    """One labelled volume. `frame` is its frame in a cine, counted from 0. `axes` and `ml` are what was read before any mutation."""

    subject: str
    images: list[Path]
    label: Path
    frame: int | None = None
    ml: dict[str, float] = field(default_factory=dict)
    axes: list[tuple[int, float]] = field(default_factory=list)


@dataclass
class Raw:
    """A dataset on disk and the truth about it. Mutations change both.

    `say`: words of which one line of the output must hold each, should the dataset be accepted. `same_fold`: subjects that must not be
    split. `hidden`: cases that may be left out, as long as that is said. `unit_mm`: of the lengths in the headers.
    """

    folder: Path
    layout: str  # nnunet, mnms or acdc
    labels: dict[str, int]
    cases: dict[str, RawCase]
    ending: str = ".nii.gz"
    channels: int = 1
    say: list[str] = field(default_factory=list)
    same_fold: list[set[str]] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)
    unit_mm: float = 1.0

    def files(self, what: str = "both") -> list[Path]:
        """The image files, the label files or both, each once."""
        found: dict[Path, None] = {}
        for case in self.cases.values():
            if what != "labels":
                found.update(dict.fromkeys(case.images))
            if what != "images":
                found[case.label] = None
        return list(found)

    def pick(self, index: int) -> tuple[str, RawCase]:
        """A case by any whole number."""
        names = sorted(self.cases)
        name = names[index % len(names)]
        return name, self.cases[name]

    def measure(self) -> None:
        """Reads size, spacing and ml of every case that nibabel can read."""
        for case in self.cases.values():
            if case.label.name.endswith((".nii", ".nii.gz")):
                case.axes, case.ml = measure(case.label, self.labels, case.frame, self.unit_mm)


def read(path: Path, frame: int | None = None) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """One volume (x, y, z) and its spacing as ITK has it: pixdim's, or the affine's where pixdim cannot be used."""
    image = nib.load(path)
    values = np.asanyarray(image.dataobj)
    if values.ndim == 4:
        values = values[..., frame or 0]
    pixdim = stored_pixdim(image)
    usable = np.isfinite(pixdim).all() and (pixdim > 0).all()
    lengths = pixdim if usable else np.linalg.norm(image.affine[:3, :3], axis=0)
    return values, lengths


def stored_pixdim(image: Any) -> NDArray[np.float64]:
    """pixdim of an image as its file has it; nibabel turns negative ones round when it loads."""
    with image.file_map["header" if "header" in image.file_map else "image"].get_prepare_fileobj(
        "rb"
    ) as file:
        header = type(image.header).from_fileobj(file, check=False)
    return np.asarray(header["pixdim"][1:4], dtype=float)


def measure(
    path: Path, labels: Mapping[str, int], frame: int | None = None, unit_mm: float = 1.0
) -> tuple[list[tuple[int, float]], dict[str, float]]:
    """(size, spacing) of each file axis, and ml of each label by its name."""
    values, spacing = read(path, frame)
    spacing = spacing * unit_mm
    whole = np.rint(values)
    ml = {
        name: float((whole == value).sum() * spacing.prod() / 1000) for name, value in labels.items() if value
    }
    return [(int(size), float(step)) for size, step in zip(values.shape, spacing, strict=True)], ml


@dataclass
class Scan:
    """A NIfTI file taken apart: the header as stored, and the stored voxels (x, y, z[, t]) before any scaling."""

    header: Any
    voxels: NDArray[Any]


def take_apart(path: Path) -> Scan:
    content = read_content(path)
    for order in "<>":
        size = int(np.frombuffer(content[:4], order + "i4")[0])
        if size in (348, 540):
            kind = nib.Nifti1Header if size == 348 else nib.Nifti2Header
            header = kind(content[:size], endianness=order, check=False)
            break
    shape = tuple(int(side) for side in header["dim"][1 : int(header["dim"][0]) + 1])
    dtype = header.get_data_dtype()
    offset = int(header["vox_offset"])
    flat = np.frombuffer(content[offset : offset + int(np.prod(shape)) * dtype.itemsize], dtype)
    return Scan(header, flat.reshape(shape, order="F").astype(dtype.newbyteorder("=")))


def put_together(path: Path, scan: Scan) -> None:
    """Writes a scan; size, type and offset of the header follow the voxels, all else is as it stands."""
    header, voxels = scan.header, scan.voxels
    header["dim"][:] = 1
    header["dim"][0] = voxels.ndim
    header["dim"][1 : voxels.ndim + 1] = voxels.shape
    header.set_data_dtype(voxels.dtype)
    header["vox_offset"] = header.template_dtype.itemsize + 4
    ordered = voxels.astype(voxels.dtype.newbyteorder(header.endianness))
    write_content(path, header.binaryblock + bytes(4) + ordered.tobytes(order="F"))


def turned(scan: Scan, axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> Scan:
    """The same scan with its file axes permuted and flipped; every position in the header is brought along."""
    sizes = [scan.voxels.shape[axis] for axis in axes]
    old_of_new = np.zeros((4, 4))
    old_of_new[3, 3] = 1
    for new, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        old_of_new[axis, new] = -1 if flip else 1
        old_of_new[axis, 3] = sizes[new] - 1 if flip else 0
    header = scan.header.copy()
    pixdim = np.array(header["pixdim"][1:4])[list(axes)]
    if int(header["qform_code"]) > 0:
        code = int(header["qform_code"])
        header.set_qform(np.asarray(header.get_qform()) @ old_of_new, code=code)
    if int(header["sform_code"]) > 0:
        rows = np.asarray(header.get_sform()) @ old_of_new
        header["srow_x"], header["srow_y"], header["srow_z"] = rows[:3]
    header["pixdim"][1:4] = pixdim
    return Scan(header, turned_array(scan.voxels, axes, flips))


def turned_array(
    values: NDArray[Any], axes: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> NDArray[Any]:
    """The array (x, y, z[, t]) with its first three axes permuted and flipped."""
    order = (*axes, *range(3, values.ndim))
    index = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    return np.ascontiguousarray(values.transpose(order)[index])


def gzip_members(path: Path) -> None:
    """Rewrites a .gz file as two members with padding behind them, as some writers do."""
    content = read_content(path)
    half = len(content) // 2
    path.write_bytes(gzip.compress(content[:half], 1) + gzip.compress(content[half:], 9) + bytes(16))
