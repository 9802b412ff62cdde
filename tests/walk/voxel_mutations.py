"""Mutations of what voxels hold and how it is stored: types, scales, values, byte order, damage."""

from typing import Any

import nibabel as nib
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from rawfiles import corrupt, read_content, write_content

from walk.edits import change_header, change_label, change_voxels
from walk.mutation import EITHER, INDEX, REFUSE, SAME, mutation
from walk.raw import Raw, Scan, gzip_members, put_together, take_apart

IMAGE_TYPES = ("uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "uint64", "float32", "float64")


@mutation("image voxels of another type", SAME, st.sampled_from(IMAGE_TYPES))
def _(raw: Raw, dtype: str) -> None:
    def edit(voxels: NDArray[Any]) -> NDArray[Any]:
        values = voxels.astype(np.float64) - voxels.min()
        if dtype in ("uint8", "int8"):
            values = np.round(values * 250 / values.max()) - (125 if dtype == "int8" else 0)
        return values.astype(dtype)

    for path in raw.files("images"):
        change_voxels(path, edit)


@mutation(
    "image values by slope and intercept",
    SAME,
    st.tuples(st.sampled_from([0.37, 1e-3, 2.0, float("nan"), 0.0]), st.sampled_from([0.0, -1024.0, 12.5])),
)
def _(raw: Raw, scale: Any) -> None:
    def edit(header: Any) -> None:
        header["scl_slope"], header["scl_inter"] = scale

    change_header(raw, edit, "images")


@mutation("label voxels of another type", SAME, st.sampled_from(IMAGE_TYPES))
def _(raw: Raw, dtype: str) -> None:
    for path in raw.files("labels"):
        change_label(path, lambda voxels: np.rint(voxels).astype(dtype))


@mutation("labels as float with tiny errors", SAME, st.sampled_from([1e-9, 1e-6, 1e-4, 9e-4]))
def _(raw: Raw, error: float) -> None:
    signs = np.random.default_rng(0)
    for path in raw.files("labels"):
        change_label(path, lambda voxels: voxels + error * signs.uniform(-1, 1, voxels.shape))


@mutation(
    "labels as float with real errors", REFUSE, st.tuples(INDEX, st.sampled_from([0.02, 0.3])), last=True
)
def _(raw: Raw, drawn: Any) -> None:
    change_label(raw.pick(drawn[0])[1].label, lambda voxels: voxels + drawn[1] * (voxels > 0))


@mutation(
    "labels by slope and intercept",
    SAME,
    st.sampled_from([(1 / 3, 0.0), (0.1, 0.0), (1 / 3e4, 0.0), (0.5, -1.0), (1.0, -5.0)]),
)
def _(raw: Raw, scale: Any) -> None:
    slope, intercept = scale
    for path in raw.files("labels"):
        change_label(
            path, lambda voxels: np.rint((np.rint(voxels.astype(float)) - intercept) / slope).astype(np.int32)
        )
    change_header(raw, lambda header: header.__setitem__("scl_slope", slope), "labels")
    change_header(raw, lambda header: header.__setitem__("scl_inter", intercept), "labels")


@mutation(
    "a value that is no label",
    REFUSE,
    st.tuples(INDEX, st.sampled_from([9, 200, -1]), st.sampled_from([1, 40])),
    last=True,
)
def _(raw: Raw, drawn: Any) -> None:
    index, value, count = drawn

    def edit(voxels: NDArray[Any]) -> NDArray[Any]:
        voxels = voxels.astype(np.int16)
        frame = voxels if voxels.ndim == 3 else voxels[..., raw.pick(index)[1].frame]
        frame[np.unravel_index(np.arange(count), frame.shape)] = value
        return voxels

    change_label(raw.pick(index)[1].label, edit)


@mutation("big-endian", SAME, last=True)
def _(raw: Raw, _index: int) -> None:
    for path in raw.files():
        scan = take_apart(path)
        put_together(path, Scan(scan.header.as_byteswapped(">"), scan.voxels))


@mutation("NIfTI-2", SAME, last=True)
def _(raw: Raw, _index: int) -> None:
    for path in raw.files():
        scan = take_apart(path)
        new = nib.Nifti2Header.from_header(scan.header, check=False)
        for field in ("sform_code", "qform_code", "scl_slope", "scl_inter", "xyzt_units"):
            new[field] = scan.header[field]
        new["sizeof_hdr"] = 540
        new["magic"] = b"n+2\0\r\n\x1a\n"
        put_together(path, Scan(new, scan.voxels))


@mutation("a header extension", SAME, last=True)
def _(raw: Raw, _index: int) -> None:
    for path in raw.files():
        content = read_content(path)
        header = nib.Nifti1Header(content[:348], check=False)
        header["vox_offset"] = 384
        extension = np.array([1, 32, 6], "<i4")
        head = bytes([1, 0, 0, 0]) + extension[1:].tobytes() + b"a comment".ljust(24, b"\0")
        write_content(path, header.binaryblock + head + content[352:])


@mutation("gzip in two members with padding", SAME, last=True)
def _(raw: Raw, _index: int) -> None:
    for path in raw.files():
        if path.name.endswith(".gz"):
            gzip_members(path)


@mutation("a constant image", REFUSE, last=True)
def _(raw: Raw, index: int) -> None:
    change_voxels(raw.pick(index)[1].images[0], lambda voxels: np.full_like(voxels, 7))


@mutation(
    "voxels that are no numbers",
    REFUSE,
    st.tuples(INDEX, st.sampled_from([float("nan"), float("inf")])),
    last=True,
)
def _(raw: Raw, drawn: Any) -> None:
    def edit(voxels: NDArray[Any]) -> NDArray[Any]:
        voxels = voxels.astype(np.float32)
        voxels[0, 0, 0] = drawn[1]
        return voxels

    change_voxels(raw.pick(drawn[0])[1].images[0], edit)


@mutation("a case with background only", SAME, whole=False)
def _(raw: Raw, index: int) -> None:
    name, case = raw.pick(index)

    def edit(voxels: NDArray[Any]) -> NDArray[Any]:
        frame = voxels if voxels.ndim == 3 else voxels[..., case.frame]
        frame[...] = 0
        return voxels

    change_label(case.label, edit)
    raw.say.append(name if raw.layout == "nnunet" else case.subject)


@mutation("a label that no case has", SAME, whole=False)
def _(raw: Raw, index: int) -> None:
    names = [name for name, value in raw.labels.items() if value]
    gone = names[index % len(names)]
    for path in raw.files("labels"):
        change_label(
            path, lambda voxels: np.where(np.rint(voxels) == raw.labels[gone], 0, voxels).astype(voxels.dtype)
        )
    raw.say.append(gone)


@mutation("a label that only one subject has", SAME, whole=False)
def _(raw: Raw, index: int) -> None:
    names = [name for name, value in raw.labels.items() if value]
    rare, subject = names[index % len(names)], raw.pick(index)[1].subject
    for case in raw.cases.values():
        if case.subject != subject:
            change_label(
                case.label,
                lambda voxels: np.where(np.rint(voxels) == raw.labels[rare], 0, voxels).astype(voxels.dtype),
            )
    raw.say.append(rare)


@mutation("no label anywhere", EITHER, whole=False)
def _(raw: Raw, _index: int) -> None:
    for path in raw.files("labels"):
        change_label(path, np.zeros_like)


DAMAGE = ("truncated", "flipped", "empty", "png", "absurd", "larger", "RGB")


@mutation("a damaged image", REFUSE, st.tuples(INDEX, st.sampled_from(DAMAGE)), last=True)
def _(raw: Raw, drawn: Any) -> None:
    corrupt(raw.pick(drawn[0])[1].images[0], drawn[1])


@mutation("a damaged label", REFUSE, st.tuples(INDEX, st.sampled_from(DAMAGE)), last=True)
def _(raw: Raw, drawn: Any) -> None:
    corrupt(raw.pick(drawn[0])[1].label, drawn[1])


@mutation(
    "gzip under the name .nii, or none under .nii.gz", REFUSE, st.tuples(INDEX, st.booleans()), last=True
)
def _(raw: Raw, drawn: Any) -> None:
    path = raw.pick(drawn[0])[1].images[0]
    if path.name.endswith(".gz"):
        path.write_bytes(read_content(path))
    else:
        write_content(path.with_name(path.name + ".gz"), path.read_bytes())
        path.with_name(path.name + ".gz").rename(path)
