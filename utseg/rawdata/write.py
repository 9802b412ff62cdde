"""Writes a mask as NIfTI in the geometry of the image that it belongs to, or as a picture; the inverse of reading, as far as headers go.

MetaImage and NRRD are read but not written: their masks become NIfTI that lies in the same place.
"""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from numpy.typing import NDArray

from utseg.errors import ArtefactError, InputError
from utseg.files import atomic_path
from utseg.rawdata import nifti, pictures
from utseg.rawdata.geometry import Geometry
from utseg.rawdata.names import NIFTI_ENDINGS, PICTURE_ENDINGS, is_picture

COMPRESSION = 6
EMPTIED = ("descrip", "aux_file", "intent_name", "db_name")  # free text that may name a patient


def write_mask(
    path: Path,
    mask: NDArray[np.uint8],
    geometry: Geometry,
    like: Path | None = None,
    *,
    slope: float = 1.0,
) -> tuple[Path, ...]:
    """Writes a mask, uint8 (Z, Y, X) or (T, Z, Y, X), atomically, read back and compared before it gets its name. Returns its files.

    Its axes become those of the file that the geometry is of.

    Every geometric field of the header (sform, qform, their codes, pixdim, units) is the input's own, bit for bit: from
    `geometry.header`, or where that is empty from the NIfTI file `like`. With neither, sform and qform are made from the affine.
    `path` ends in .nii.gz or .nii; or, for a 3-D mask, as a picture's name, with CASE.json beside it where the spacing is not 1 mm.
    slope: readers multiply the stored values by it (scl_slope), for maps of other things than labels.
    Raises InputError where the mask does not fit, UtsegError where it cannot be written.
    """
    if not path.name.endswith((*NIFTI_ENDINGS, *PICTURE_ENDINGS)):
        raise InputError(
            f"{path}: masks are written as NIfTI, or as pictures; expected a name ending in .nii.gz or .nii"
        )
    if mask.dtype != np.uint8 or mask.ndim not in (3, 4) or mask.shape[-3:] != geometry.size_zyx:
        raise InputError(
            f"{path}: a mask of {mask.dtype} {mask.shape} does not fit an image of size {geometry.size_zyx} (z, y, x)"
        )
    mask = geometry.to_file(mask)
    if is_picture(path):
        return _write_picture(path, mask, geometry)
    header = _mask_header(mask, geometry, like)
    header["scl_slope"] = slope
    offset = int(header["vox_offset"])
    content = header.binaryblock.ljust(offset, b"\0") + np.ascontiguousarray(mask).tobytes()
    # No time in the gzip header: the same mask gives the same bytes.
    data = gzip.compress(content, COMPRESSION, mtime=0) if path.name.endswith(".gz") else content

    def check(written: Path) -> None:
        try:
            same = nifti.read_bytes(written, len(content)) == content
            nifti.read_header(written)
        except InputError as error:
            raise ArtefactError(
                f"{path}: what was written is damaged ({error}); is the disk failing?"
            ) from None
        if not same:
            raise ArtefactError(f"{path}: what was written reads back differently; is the disk failing?")

    with atomic_path(path, check) as temporary:
        temporary.write_bytes(data)
    return (path,)


def _write_picture(path: Path, mask: NDArray[np.uint8], geometry: Geometry) -> tuple[Path, ...]:
    """Writes a mask (Z, Y, X by the axes of the file), and the JSON that says its spacing where that is not 1 mm."""
    beside = pictures.write_spacing(path, geometry)

    def check(written: Path) -> None:
        if not np.array_equal(pictures.stored_label(written), mask):
            raise ArtefactError(f"{path}: what was written reads back differently; is the disk failing?")

    with atomic_path(path, check) as temporary:
        temporary.write_bytes(pictures.encoded(path, mask))
    return (path,) if beside is None else (path, beside)


def _mask_header(mask: NDArray[np.uint8], geometry: Geometry, like: Path | None) -> Any:
    source = geometry.header
    if not source and like is not None and like.name.endswith(NIFTI_ENDINGS):
        source = nifti.read_header(like).geometry.header
    if source:
        header = nifti.parse_header(source)
    else:
        header = Nifti1Header()
        header.set_data_shape(geometry.file_size_xyz)
        header.set_xyzt_units("mm", "sec")
        header.set_qform(geometry.file_matrix, code=1)
        header.set_sform(geometry.file_matrix, code=1)
        header["magic"] = b"n+1"
    sizes = mask.shape[::-1]
    header["dim"][:] = 1
    header["dim"][0] = len(sizes)
    header["dim"][1 : len(sizes) + 1] = sizes
    header["datatype"], header["bitpix"] = 2, 8
    header["scl_inter"] = 0
    header["cal_min"] = header["cal_max"] = 0
    header["intent_code"] = 0
    header["vox_offset"] = header.template_dtype.itemsize + 4  # four bytes that say: no extensions
    for field in EMPTIED:
        if field in header.template_dtype.names:
            header[field] = b""
    return header
