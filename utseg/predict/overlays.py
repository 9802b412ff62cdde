"""`OUT/overlays/CASE.png`: a picture of each mask over its image, made in worker processes when the mask is written.

A picture carries the checksum of the mask that it shows, so that one of an older mask is never kept. Of a cine it shows the frame in
which most is labelled, which is about end-diastole. The mask is read from the disk: masks of earlier runs get their pictures alike.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utseg.case import Case
from utseg.figures.montage import png, stack_montage
from utseg.files import write_bytes
from utseg.label_map import Labels
from utseg.rawdata import nifti
from utseg.rawdata.gate import read_first_channel, read_label
from utseg.rawdata.names import NIFTI_ENDINGS

OVERLAYS_FOLDER = "overlays"
MASK_KEY = "mask_sha256"


@dataclass(frozen=True)
class OverlayJob:
    """A picture to make. `mask_sha256` is the checksum of the mask's file; `labels` maps names to values."""

    case: Case
    mask: Path
    mask_sha256: str
    labels: Labels

    @property
    def path(self) -> Path:
        """Where the picture goes."""
        return overlay_path(self.mask.parent, self.case.case_id)


def overlay_path(output: Path, case_id: str) -> Path:
    """The picture of a case in the folder of the masks."""
    return output / OVERLAYS_FOLDER / f"{case_id}.png"


def write_overlay(job: OverlayJob) -> bool:
    """Writes the picture of a mask and returns True; a whole one of this very mask that is there is kept. Its folder has to be there.

    Raises InputError where image or mask cannot be read, UtsegError where the picture cannot be written.
    """
    if shown_mask(job.path) == job.mask_sha256:
        return False
    mask_TZYX = _read_frames(job.mask, job.labels)
    frames, fullest = len(mask_TZYX), int(np.count_nonzero(mask_TZYX, axis=(1, 2, 3)).argmax())
    title = job.case.case_id + (f" · frame {fullest} of {frames}, counted from 0" if frames > 1 else "")
    image_ZYX, geometry = read_first_channel(job.case.images[0], fullest if frames > 1 else job.case.frame)
    picture = stack_montage(image_ZYX, mask_TZYX[fullest], geometry.spacing_zyx_mm, job.labels, title)
    write_bytes(job.path, png(picture, {"Title": title, MASK_KEY: job.mask_sha256}))
    return True


def shown_mask(path: Path) -> str | None:
    """The checksum of the mask that a picture shows; None where there is no whole picture of ours."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            picture.load()
            return str(picture.info.get(MASK_KEY))
    except (OSError, SyntaxError, UnidentifiedImageError):
        return None


def _read_frames(path: Path, labels: Labels) -> NDArray[np.uint8]:
    """A mask of ours, one frame or several, as (T, Z, Y, X), checked against its header."""
    if not path.name.endswith(NIFTI_ENDINGS):
        return read_label(path, labels)[0][np.newaxis]
    header = nifti.read_header(path)
    data = nifti.read_bytes(path, header.total_bytes)
    values = np.frombuffer(data, header.dtype, offset=header.offset)
    geometry = header.geometry
    frames = geometry.from_file(values.reshape(header.frames, *geometry.file_size_xyz[::-1]))
    return np.ascontiguousarray(frames, dtype=np.uint8)
