"""Shared by the readers of M&Ms and ACDC: find files by their stem, and make a case of every frame where ED and ES are not known.

Of images only headers are read here.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from utseg.case import Case
from utseg.errors import InputError, listing
from utseg.rawdata.names import NIFTI_ENDINGS

CHANNEL_NAMES = ("cine-MRI",)


def find_file(folder: Path, stem: str) -> Path | None:
    """The NIfTI file of that stem, None where there is none.

    A link counts wherever it leads, and a folder of that name: the gate says what is wrong with them.
    """
    paths = [folder / f"{stem}{ending}" for ending in NIFTI_ENDINGS]
    return next((path for path in paths if path.exists() or path.is_symlink()), None)


def unlabelled_frames(case: Case) -> list[Case]:
    """Every frame of a cine as a case, CASE_t00, CASE_t01, …; the case itself where its file is 3-D or cannot be read."""
    from utseg.rawdata.nifti import read_header

    try:
        frames = read_header(case.images[0]).frames
    except InputError:
        frames = 1  # damaged or missing: the gate says so, with all other such files
    if frames == 1:
        return [case]
    return [replace(case, case_id=f"{case.case_id}_t{frame:02d}", frame=frame) for frame in range(frames)]


def frames_text(frames: Sequence[int]) -> str:
    """Frame numbers in words: "frame 0", "frames 0 and 9"."""
    numbers = [str(frame) for frame in frames]
    if len(numbers) == 1:
        return f"frame {numbers[0]}"
    return f"frames {' and '.join(numbers) if len(numbers) == 2 else listing(numbers)}"
