"""`measures.json`: what was measured in a folder of masks, by which rules, and what to doubt. Pages render it and compute nothing.

Frames are counted from 0. What is not known, or cannot be said, is None. Nothing is measured here.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from utseg.cardiac.doubts import Flag
from utseg.files import write_text
from utseg.label_map import LabelValue
from utseg.predict.record import ModelUse
from utseg.settings import AnyValues, Settings, read_model

MEASURES_FILE = "measures.json"
__all__ = [
    "CineMeasures",
    "Curve",
    "Distribution",
    "Flag",
    "FrameFiles",
    "MeasuresRecord",
    "Provenance",
    "ReferencePair",
    "read_measures",
    "write_measures",
]


class Curve(Settings):
    """Volumes in ml, one a frame; None where the frame shows nothing of the structure, or no label is one."""

    lv_ml: list[float | None]
    rv_ml: list[float | None]
    myo_ml: list[float | None]


class FrameFiles(Settings):
    """Where one frame is, of masks with a file a frame. `mask`: file name; `image`: absolute path, and its frame where it is a cine."""

    mask: str
    image: str | None = None
    image_frame: int | None = None


class CineMeasures(Settings):
    """One cine. `mask`: file name, (X, Y, Z, T) inside; `image`: absolute path of the cine image, None where it is not known.

    `files`: of each frame where ED and ES are masks of their own; empty for a 4-D mask. `groups`: vendor, centre, pathology, ….
    `values`: by the columns of `measures.csv` (`utseg.cardiac.volumes`). `basal_rule`: the key of the rule in the record's `rules`.
    """

    cine: str
    subject: str
    mask: str
    image: str | None
    files: tuple[FrameFiles, ...] = ()
    groups: dict[str, str]
    frames: int
    spacing_zyx_mm: tuple[float, float, float]
    ed_frame: int | None
    es_frame: int | None
    frame_ms: float | None
    heart_rate_bpm: float | None
    height_m: float | None
    weight_kg: float | None
    bsa_m2: float | None
    values: dict[str, float | None]
    curve: Curve
    flags: list[Flag]
    basal_rule: str


class Provenance(Settings):
    """What the figures come from: when (ISO 8601, UTC), with which versions, from which masks (absolute folder), by which models.

    `labels`: how the masks number their labels. `models`: those of `prediction.json`; empty where there is none.
    """

    when: str
    versions: dict[str, str]
    masks: str
    labels: dict[str, LabelValue]
    models: tuple[ModelUse, ...] = ()


class Distribution(Settings):
    """A measure over the cines of a group. `column` and `value` name the group (vendor, A), both empty for all; `measure`: a column of
    `measures.csv`."""

    column: str
    value: str
    measure: str
    unit: str
    n: int
    mean: float
    sd: float | None
    median: float
    lowest: float
    highest: float


class ReferencePair(Settings):
    """One measure of one cine, by the masks and by reference labels: a point of a Bland–Altman plot."""

    cine: str
    subject: str
    measure: str
    prediction: float | None
    reference: float | None


class MeasuresRecord(Settings):
    """The content of `measures.json`. `rules`: what was done, in words, by name.

    `agreement`: by measure, what `utseg.evaluate.clinical.agreement` gives (bias, limits, mae, …) and `unit`; empty without references.
    """

    format: Literal["utseg-measures-1"] = "utseg-measures-1"
    made: Provenance
    rules: dict[str, str]
    cines: list[CineMeasures]
    distributions: tuple[Distribution, ...] = ()
    references: tuple[ReferencePair, ...] = ()
    agreement: dict[str, AnyValues] = Field(default_factory=dict)


def write_measures(record: MeasuresRecord, folder: Path) -> None:
    """Writes `measures.json`."""
    write_text(folder / MEASURES_FILE, record.model_dump_json(indent=1) + "\n")


def read_measures(folder: Path) -> MeasuresRecord:
    """Reads `measures.json`. Raises ArtefactError where there is none, SettingError where it is not one."""
    return read_model(MeasuresRecord, folder / MEASURES_FILE)
