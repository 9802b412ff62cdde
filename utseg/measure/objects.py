"""What the DICOM objects of measures are called: `dicom/CINE_sr.dcm` and the like, in the folder of measures."""

from pathlib import Path

from utseg.dicom.sources import OBJECTS_FOLDER

KINDS = ("sr", "sc", "ed_seg", "es_seg")


def object_path(output: Path, cine: str, kind: str) -> Path:
    """Of one of KINDS."""
    return output / OBJECTS_FOLDER / f"{cine}_{kind}.dcm"


def remove_objects(output: Path) -> None:
    """Removes objects that an earlier run wrote, whose figures are no more those of the tables. Other files stay."""
    for kind in KINDS:
        for path in (output / OBJECTS_FOLDER).glob(f"*_{kind}.dcm"):
            path.unlink()
