"""`CineSources`: the DICOM frames that a cine's voxels were taken from, in `sources/CINE.json` beside the cine.

Voxel (i, j, k, t) of the NIfTI file is column i, row j of `frames[t][k]`: nothing is flipped or resampled.
"""

from pathlib import Path

from pydantic import model_validator

from utseg.files import write_json
from utseg.settings import Settings, read_model

SOURCES_FOLDER = "sources"
CINES_FILE = "cines.csv"
OBJECTS_FOLDER = "dicom"
LEFT_OUT_FILE = "left_out.csv"
BESIDE_CINES = SOURCES_FOLDER, CINES_FILE, LEFT_OUT_FILE
"""What lies in a folder of imported cines beside them."""


class SourceFrame(Settings):
    """One frame of a DICOM object. `file` is relative to the root; `number` counts from 1, None in a file of a single frame."""

    file: str
    sop_class_uid: str
    sop_instance_uid: str
    number: int | None = None


class CineSources(Settings):
    """The frames of one cine, [t][z] in the voxel order of its file, and how they lie in the patient.

    `root` is absolute. `ijk_to_lps` takes (column, row, slice) to DICOM patient coordinates in mm. A frame or time that is not known is
    None. `trigger_times_ms` [t][z] are as the scanner wrote them.
    """

    cine: str
    root: str
    study_instance_uid: str
    series_instance_uids: list[str]
    frames: list[list[SourceFrame | None]]
    rows_columns: tuple[int, int]
    ijk_to_lps: list[list[float]]
    trigger_times_ms: list[list[float | None]]

    @model_validator(mode="after")
    def _one_size(self) -> "CineSources":
        slices = {len(row) for row in self.frames} | {len(row) for row in self.trigger_times_ms}
        if len(slices) != 1 or len(self.frames) != len(self.trigger_times_ms):
            raise ValueError("frames and trigger_times_ms need an entry for each frame and slice")
        if [len(row) for row in self.ijk_to_lps] != [4] * 4:
            raise ValueError("ijk_to_lps needs 4 × 4 numbers")
        return self


def sources_path(folder: Path, cine: str) -> Path:
    """The record of a cine, in the folder that its file lies in."""
    return folder / SOURCES_FOLDER / f"{cine}.json"


def write_sources(folder: Path, sources: CineSources) -> None:
    """Writes `folder`/sources/CINE.json."""
    path = sources_path(folder, sources.cine)
    path.parent.mkdir(exist_ok=True)
    write_json(path, sources.model_dump(mode="json"))


def read_sources(folder: Path, cine: str) -> CineSources:
    """Reads `folder`/sources/CINE.json. Raises ArtefactError where it is not there, SettingError where it is not such a record."""
    return read_model(CineSources, sources_path(folder, cine))
