"""Mutations of how voxels lie: axes, signs, codes, units, spacings, single slices, frames."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from walk.edits import ROWS, case_files, change, change_header, change_voxels, true_affine
from walk.mutation import AXES, EITHER, FLIPS, INDEX, NNUNET, REFUSE, SAME, mutation
from walk.raw import Raw, Scan, turned


@mutation("file axes turned, all files", SAME, st.tuples(AXES, FLIPS))
def _(raw: Raw, how: Any) -> None:
    for path in raw.files():
        change(path, lambda scan: turned(scan, *how))


@mutation(
    "file axes turned, each case its own way", SAME, st.lists(st.tuples(AXES, FLIPS), min_size=2, max_size=4)
)
def _(raw: Raw, ways: Any) -> None:
    done: set[Path] = set()
    for case, how in zip(raw.cases.values(), itertools.cycle(ways)):
        for path in (*case.images, case.label):
            if path not in done:
                change(path, lambda scan, how=how: turned(scan, *how))
                done.add(path)


@mutation("file axes turned, a label against its image", EITHER, st.tuples(INDEX, AXES, FLIPS))
def _(raw: Raw, drawn: Any) -> None:
    index, *how = drawn
    change(raw.pick(index)[1].label, lambda scan: turned(scan, *how))


@mutation("slices along the first axis, all files", SAME, FLIPS)
def _(raw: Raw, flips: Any) -> None:
    for path in raw.files():
        change(path, lambda scan: turned(scan, (2, 0, 1), flips))


@mutation("sform of unit lengths, true pixdim", SAME, st.sampled_from([0, 2, 10]))
def _(raw: Raw, units: int) -> None:
    def edit(header: Any) -> None:
        affine = header.get_best_affine()
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if np.allclose(lengths, 1, atol=1e-3):
            lengths = np.array(header["pixdim"][1:4])
        for row, values in zip(ROWS, affine[:3], strict=True):
            header[row][:3] = values[:3] / np.linalg.norm(affine[:3, :3], axis=0)
            header[row][3] = values[3]
        header["pixdim"][1:4] = lengths
        header["sform_code"], header["qform_code"], header["xyzt_units"] = 2, 0, units

    change_header(raw, edit)


@mutation(
    "position in the header by other codes", SAME, st.sampled_from(["qform", "sform", "neither", "both"])
)
def _(raw: Raw, which: str) -> None:
    def edit(header: Any) -> None:
        affine = true_affine(header)
        header.set_qform(affine, code=3 if which in ("qform", "both") else 0)
        header.set_sform(affine, code=4 if which in ("sform", "both") else 0)
        header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)

    change_header(raw, edit)


@mutation("pixdim unusable, sform right", EITHER, st.sampled_from([0.0, -1.5, float("nan"), float("inf")]))
def _(raw: Raw, value: float) -> None:
    def edit(header: Any) -> None:
        header.set_sform(true_affine(header), code=1)
        header["qform_code"] = 0
        header["pixdim"][2] = value

    change_header(raw, edit)


@mutation(
    "pixdim unusable, nothing else",
    REFUSE,
    st.sampled_from([0.0, float("nan"), float("inf")]),
    whole=False,
    last=True,
)
def _(raw: Raw, value: float) -> None:
    def edit(header: Any) -> None:
        header["sform_code"] = header["qform_code"] = 0
        header["pixdim"][3] = value

    change_header(raw, edit)


@mutation(
    "pixdim contradicts the sform",
    EITHER,
    st.tuples(INDEX, st.sampled_from([0.5, 0.9, 2.0])),
    whole=False,
    last=True,
)
def _(raw: Raw, drawn: Any) -> None:
    def edit(header: Any) -> None:
        header.set_sform(true_affine(header), code=1)
        header["qform_code"] = 0
        header["pixdim"][1:3] *= drawn[1]

    for path in case_files(raw, drawn[0]):
        change(path, lambda scan: edit(scan.header))
    raw.say.append("pixdim")


@mutation("sheared axes", REFUSE, whole=False, last=True)
def _(raw: Raw, index: int) -> None:
    def edit(header: Any) -> None:
        affine = true_affine(header)
        affine[:3, 1] += 0.3 * affine[:3, 0]
        header.set_sform(affine, code=1)
        header["qform_code"] = 0

    for path in case_files(raw, index):
        change(path, lambda scan: edit(scan.header))


@mutation("cosines to four digits", SAME)
def _(raw: Raw, _index: int) -> None:
    def edit(header: Any) -> None:
        affine = true_affine(header)
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        affine[:3, :3] = np.round(affine[:3, :3] / lengths, 4) * lengths
        header.set_sform(affine, code=1)
        header["qform_code"] = 0
        header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)

    change_header(raw, edit)


@mutation("spacing in metres or micrometres", EITHER, st.sampled_from([(1, 1e-3), (3, 1e3)]), last=True)
def _(raw: Raw, unit: Any) -> None:
    def edit(header: Any) -> None:
        affine = true_affine(header)
        affine[:3] *= unit[1]
        header.set_sform(affine, code=1)
        header["qform_code"] = 0
        header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
        header["xyzt_units"] = unit[0]

    change_header(raw, edit)
    raw.unit_mm = 1 / unit[1]


@mutation("cubic voxels", EITHER, st.sampled_from([1.0, 1.4]), whole=False)
def _(raw: Raw, side: float) -> None:
    def edit(header: Any) -> None:
        affine = true_affine(header)
        affine[:3, :3] *= side / np.linalg.norm(affine[:3, :3], axis=0)
        header.set_sform(affine, code=1)
        header.set_qform(affine, code=1)

    change_header(raw, edit)


@mutation("one case of twice the spacing", SAME, whole=False)
def _(raw: Raw, index: int) -> None:
    def edit(header: Any) -> None:
        affine = true_affine(header)
        thickest = np.linalg.norm(affine[:3, :3], axis=0).argmax()
        affine[:3, [axis for axis in range(3) if axis != thickest]] *= 1.6
        header.set_sform(affine, code=1)
        header.set_qform(affine, code=1)

    for path in case_files(raw, index):
        change(path, lambda scan: edit(scan.header))


@mutation("a frame axis of one", SAME, layouts=("nnunet", "acdc"))
def _(raw: Raw, _index: int) -> None:
    for path in raw.files():
        change_voxels(path, lambda voxels: voxels[..., np.newaxis])


@mutation("two frames where one is expected", REFUSE, layouts=("nnunet", "acdc"), last=True)
def _(raw: Raw, index: int) -> None:
    change_voxels(raw.pick(index)[1].images[0], lambda voxels: np.stack([voxels, voxels], axis=-1))


@mutation("single slices, 1 as the last axis", SAME, layouts=NNUNET, whole=False)
def _(raw: Raw, _index: int) -> None:
    for path in raw.files():
        change(path, lambda scan: Scan(scan.header, scan.voxels[:, :, [scan.voxels.shape[2] // 2]]))


@mutation("single slices, 1 as the first axis, identity affine", EITHER, layouts=NNUNET, whole=False)
def _(raw: Raw, _index: int) -> None:
    def edit(scan: Scan) -> Scan:
        scan.header.set_sform(np.eye(4), code=1)
        scan.header.set_qform(np.eye(4), code=1)
        return Scan(scan.header, scan.voxels[:, :, [scan.voxels.shape[2] // 2]].transpose(2, 0, 1))

    for path in raw.files():
        change(path, edit)


@mutation("2-D files", EITHER, layouts=NNUNET, whole=False, last=True)
def _(raw: Raw, _index: int) -> None:
    for path in raw.files():
        change_voxels(path, lambda voxels: voxels[:, :, voxels.shape[2] // 2])


@mutation(
    "a label of another size or place than its image",
    REFUSE,
    st.tuples(INDEX, st.sampled_from(["size", "origin", "spacing"])),
    whole=False,
    last=True,
)
def _(raw: Raw, drawn: Any) -> None:
    def edit(scan: Scan) -> Scan:
        if drawn[1] == "size":
            return Scan(scan.header, scan.voxels[:-1])
        affine = true_affine(scan.header)
        if drawn[1] == "origin":
            affine[:3, 3] += 7
        else:
            affine[:3, :3] *= 1.1
        scan.header.set_sform(affine, code=1)
        scan.header["qform_code"] = 0
        scan.header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
        return scan

    change(raw.pick(drawn[0])[1].label, edit)
