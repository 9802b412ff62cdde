"""Mutations of what `utseg_evaluate` gets: masks and references numbered, turned, typed otherwise, missing, or the same folder twice."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from rawfiles import corrupt, write_json

from walk.edits import change, change_voxels
from walk.mutation import EITHER, REFUSE, SAME
from walk.raw import Raw, Scan, put_together, read, take_apart, turned

Words = list[object]


@dataclass
class Scored:
    """What is evaluated: the folder of masks, what `-g` names, the masks' numbers, further words; `say` as of Raw.

    `described`: whether the references have a right dataset.json of their own, whatever became of the raw dataset's.
    """

    raw: Raw
    masks: Path
    references: Path
    labels: Mapping[str, int]
    words: Words
    say: list[str]
    described: bool = False


SCORINGS: dict[str, tuple[str, Callable[[Scored, Any], None]]] = {}


def scoring(
    name: str, expect: str
) -> Callable[[Callable[[Scored, int], None]], Callable[[Scored, int], None]]:
    """Registers a mutation of masks or references; it gets what is scored, and a whole number."""

    def register(apply: Callable[[Scored, int], None]) -> Callable[[Scored, int], None]:
        SCORINGS[name] = expect, apply
        return apply

    return register


def _masks(scored: Scored) -> list[Path]:
    return sorted(scored.masks.glob("*.nii.gz"))


def _permuted(labels: Mapping[str, int]) -> tuple[dict[str, int], Any]:
    names = [name for name, value in labels.items() if value]
    new = {name: labels[names[index - 1]] for index, name in enumerate(names)}
    table = np.arange(256, dtype=np.uint8)  # what is no label stays none
    for name in names:
        table[labels[name]] = new[name]
    return {"background": 0, **new}, table


def _describe(folder: Path, labels: Mapping[str, int]) -> None:
    about = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    write_json(folder / "dataset.json", about)


@scoring("as they are", SAME)
def _(scored: Scored, _index: int) -> None:
    pass


@scoring("masks numbered otherwise, said in prediction.json", EITHER)
def _(scored: Scored, _index: int) -> None:
    new, table = _permuted(scored.labels)
    for path in _masks(scored):
        change_voxels(path, lambda voxels: table[voxels])
    record = scored.masks / "prediction.json"
    write_json(record, json.loads(record.read_text()) | {"labels": new})


@scoring("masks numbered otherwise, said in a dataset.json beside them", EITHER)
def _(scored: Scored, _index: int) -> None:
    new, table = _permuted(scored.labels)
    for path in _masks(scored):
        change_voxels(path, lambda voxels: table[voxels])
    (scored.masks / "prediction.json").unlink()
    _describe(scored.masks, new)


@scoring("references numbered otherwise, with their own dataset.json", EITHER)
def _(scored: Scored, _index: int) -> None:
    new, table = _permuted(scored.raw.labels)
    folder = scored.masks.with_name("references")
    for name, case in scored.raw.cases.items():
        if not case.label.name.endswith((".nii", ".nii.gz")):
            return
        if case.label.exists():
            values, _ = read(case.label, case.frame)
            scan = take_apart(case.label)
            scan.header["scl_slope"], scan.header["scl_inter"] = 1, 0
            put_together(folder / f"{name}.nii.gz", Scan(scan.header, table[np.rint(values).astype(int)]))
    _describe(folder, new)
    scored.references, scored.described = folder, True


@scoring("the dataset named, masks numbered otherwise", EITHER)
def _(scored: Scored, _index: int) -> None:
    SCORINGS["masks numbered otherwise, said in prediction.json"][1](scored, 0)
    scored.words += ["-d", scored.raw.folder.name]


@scoring("a name of the masks that the references have not", REFUSE)
def _(scored: Scored, _index: int) -> None:
    record = scored.masks / "prediction.json"
    about = json.loads(record.read_text())
    about["labels"] = {("other" if value == 1 else name): value for name, value in about["labels"].items()}
    write_json(record, about)


@scoring("the same folder twice", REFUSE)
def _(scored: Scored, index: int) -> None:
    scored.references = scored.masks
    if index % 2:
        link = scored.masks.with_name("linked")
        link.symlink_to(scored.masks)
        scored.references = link


@scoring("a mask is missing", REFUSE)
def _(scored: Scored, index: int) -> None:
    masks = [path for path in _masks(scored) if path.name.removesuffix(".nii.gz") in scored.raw.cases]
    masks[index % len(masks)].unlink()


@scoring("a mask too many", EITHER)
def _(scored: Scored, _index: int) -> None:
    shutil.copyfile(_masks(scored)[0], scored.masks / "nobody.nii.gz")
    scored.say.append("nobody")


@scoring("masks turned, affine to match", EITHER)
def _(scored: Scored, index: int) -> None:
    axes = [(1, 0, 2), (0, 1, 2), (2, 1, 0)][index % 3]
    for path in _masks(scored):
        header = nib.load(path).header
        if int(header["sform_code"]) or int(header["qform_code"]):  # else nothing in the file can match
            change(path, lambda scan: turned(scan, axes, (True, False, bool(index % 2))))


@scoring("masks as float, or scaled", SAME)
def _(scored: Scored, index: int) -> None:
    def edit(header: Any) -> None:
        header["scl_slope"] = 0.5

    for path in _masks(scored):
        if index % 2:
            change_voxels(path, lambda voxels: voxels.astype(np.float32))
        else:
            change_voxels(path, lambda voxels: voxels * 2)
            change(path, lambda scan: edit(scan.header))


@scoring("a value in a mask that is no label", REFUSE)
def _(scored: Scored, index: int) -> None:
    masks = [path for path in _masks(scored) if path.name.removesuffix(".nii.gz") in scored.raw.cases]
    corrupt(masks[index % len(masks)], "unknown label")


@scoring("a damaged mask", REFUSE)
def _(scored: Scored, index: int) -> None:
    masks = [path for path in _masks(scored) if path.name.removesuffix(".nii.gz") in scored.raw.cases]
    corrupt(masks[index % len(masks)], ("truncated", "flipped", "empty", "size", "origin")[index % 5])
