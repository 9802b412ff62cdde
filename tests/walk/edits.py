"""How mutations change files: a NIfTI file taken apart and put together, `dataset.json`, a table."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rawfiles import write_rows

from walk.raw import Raw, Scan, put_together, take_apart

ROWS = ("srow_x", "srow_y", "srow_z")


def change(path: Path, edit: Callable[[Scan], Scan | None]) -> None:
    """Takes a file apart, edits it, and writes it again."""
    scan = take_apart(path)
    put_together(path, edit(scan) or scan)


def change_header(raw: Raw, edit: Callable[[Any], None], what: str = "both") -> None:
    for path in raw.files(what):
        change(path, lambda scan: edit(scan.header))


def change_voxels(path: Path, edit: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    change(path, lambda scan: Scan(scan.header, edit(scan.voxels)))


def change_label(path: Path, edit: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    """Edits the values of a label file, which from then on are stored as they are."""

    def unscaled(scan: Scan) -> Scan:
        slope, intercept = float(scan.header["scl_slope"]), float(scan.header["scl_inter"])
        voxels = scan.voxels
        if (np.isfinite(slope) and slope not in (0, 1)) or intercept:
            voxels = np.rint(voxels * slope + intercept).astype(np.int16)
        scan.header["scl_slope"], scan.header["scl_inter"] = 1, 0
        return Scan(scan.header, edit(voxels))

    change(path, unscaled)


def case_files(raw: Raw, index: int) -> list[Path]:
    """All files of one subject's first case, the cine's other frame with it."""
    case = raw.pick(index)[1]
    return [*case.images, case.label]


def true_affine(header: Any) -> Any:
    affine = np.array(header.get_best_affine())
    if np.allclose(np.linalg.norm(affine[:3, :3], axis=0), 1, atol=1e-3):
        affine[:3, :3] *= header["pixdim"][1:4]
    return affine


def edit_description(raw: Raw, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edits `dataset.json` as an object."""
    path = raw.folder / "dataset.json"
    about = json.loads(path.read_text(encoding="utf-8-sig"))
    edit(about)
    path.write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")


def table_of(raw: Raw) -> Path | None:
    """The CSV of a dataset, None where it has none."""
    return next(iter(sorted(raw.folder.glob("*.csv"))), None)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def write_table(path: Path, rows: list[dict[str, str]], **how: Any) -> None:
    write_rows(path, tuple(rows[0]), [tuple(row.values()) for row in rows], **how)
