"""The Fingerprint: what was measured on a dataset's training cases. Planners decide on it alone; nothing is measured or decided here."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from utseg.errors import UtsegError
from utseg.files import sha256_json, write_text
from utseg.label_map import LabelValue, structures
from utseg.notices import Notice
from utseg.rawdata.ways import Way
from utseg.settings import Settings, read_model

logger = logging.getLogger("utseg")
FINGERPRINT_FILE = "fingerprint.json"
PERCENTILES = (0.5, 1.0, 2.0, 5.0, 25.0, 50.0, 75.0, 95.0, 98.0, 99.0, 99.5)
DIGITS = 6


def rounded(value: float) -> float:
    """Six significant digits: readable, and the same on every machine."""
    return float(f"{float(value):.{DIGITS}g}")


class Spread(Settings):
    """Minimum, median and maximum over cases."""

    minimum: float
    median: float
    maximum: float


class LabelledIntensities(Settings):
    """The intensities of a case's labelled voxels, in few numbers that give those of many cases together (`foreground.py`).

    `means`: of the voxels in order of their intensity, in groups of `group_sizes(voxels)`.
    """

    voxels: int
    mean: float
    sd: float
    means: tuple[float, ...]


class ChannelFigures(Settings):
    """Intensities of one channel. Both tuples have one entry for each of `PERCENTILES`.

    `labelled_below` is the fraction of the labelled voxels that are darker than the volume's percentile (all 0 where nothing is labelled).
    `labelled`: of channels called CT, None where nothing is labelled.
    """

    percentiles: tuple[float, ...]
    labelled_below: tuple[float, ...]
    minimum: float
    maximum: float
    mean: float
    sd: float
    labelled: LabelledIntensities | None = None


class LabelFigures(Settings):
    """Size and place of one label in one case, where the label is present.

    `extent_zyx_px` and `extent_zyx_mm` are those of the bounding box; `slice_box_px` is the longer side of the in-plane bounding box,
    in the largest and in the median slice. `diameter_mm` (of the disc of equal area) and `thickness_mm` (twice the largest in-plane
    distance to the border) are medians over the slices that hold the label. `offset_yx_mm` is the in-plane way from the centre of
    all labels to this one's.
    """

    voxels: int
    volume_ml: float
    slices: int
    extent_zyx_px: tuple[int, int, int]
    extent_zyx_mm: tuple[float, float, float]
    slice_box_px_largest: int
    slice_box_px_median: float
    diameter_mm: float
    thickness_mm: float
    offset_yx_mm: tuple[float, float]


class CaseFingerprint(Settings):
    """One training case as it passed the gate. `labels` has the labels that are present; `foreground` is None for a background-only case.

    `checksums` maps the case's files, relative to the dataset's folder, images first, to SHA-256, `stamps` to size and time of change (ns).
    `voxels_sha256` is that of each channel's voxels, whatever file they are in (`rawdata/voxels.py`).
    `ignored_share`: of the voxels, those that nobody annotated; label figures are of the others. `nonzero_share`: of the volume, the box
    around all that is not 0 in some channel. `channels`: in the order of `channel_names`.
    `orientation` has the anatomical directions of the array's x, y and z axes, as in nibabel ("LPS"); `way` has those of rows and columns
    in full.
    """

    case_id: str
    subject: str
    phase: str
    groups: dict[str, str]
    frame: int | None
    checksums: dict[str, str]
    stamps: dict[str, tuple[int, int]]
    voxels_sha256: tuple[str, ...]
    size_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    orientation: str
    way: Way
    ignored_share: float
    nonzero_share: float
    channels: tuple[ChannelFigures, ...]
    labels: dict[str, LabelFigures]
    foreground: LabelFigures | None
    warnings: tuple[Notice, ...] = ()

    @property
    def scans(self) -> tuple[str, ...]:
        """Checksums that only the same scan has too: of the voxels, and of the image files (a cine holds other frames)."""
        return (*self.voxels_sha256, *of_images(self.checksums))


def of_images(checksums: Mapping[str, str]) -> list[str]:
    """Of a case's files those of the images: not that of the label, which is the last, nor that of the JSON with a picture's spacing."""
    return [checksum for name, checksum in list(checksums.items())[:-1] if not name.endswith(".json")]


class Aggregate(Settings):
    """A set of cases in figures. `percentiles` of each channel are medians over cases; label figures are over cases that have the label."""

    cases: int
    subjects: int
    slices: int
    labelled_slices: int
    phases: dict[str, int]
    orientations: dict[str, int]
    size_zyx: tuple[Spread, Spread, Spread]
    spacing_zyx_mm: tuple[Spread, Spread, Spread]
    percentiles: tuple[tuple[float, ...], ...]
    label_cases: dict[str, int]
    volume_ml: dict[str, Spread]
    diameter_mm: dict[str, Spread]
    thickness_mm: dict[str, Spread]


class Fingerprint(Settings):
    """A dataset's training cases in figures. `by_group` maps a group column and its value ("vendor", "A") to that group's aggregate."""

    format: Literal["utseg-fingerprint-1"] = "utseg-fingerprint-1"
    dataset: str
    layout: Literal["mnms", "acdc", "nnunet"]
    channel_names: tuple[str, ...]
    labels: dict[str, LabelValue]
    percentiles: tuple[float, ...] = PERCENTILES
    cases: tuple[CaseFingerprint, ...]
    overall: Aggregate
    by_group: dict[str, dict[str, Aggregate]]
    warnings: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of network outputs: the labels and background."""
        return len(self.structures) + 1

    @property
    def structures(self) -> tuple[str, ...]:
        """The names of the labels, background and `ignore` left out."""
        return tuple(structures(self.labels))

    @property
    def labelled_extents_mm(self) -> list[float]:
        """Of each labelled case, the longer side within slices of the box around all labels."""
        return [max(case.foreground.extent_zyx_mm[1:]) for case in self.cases if case.foreground is not None]

    @property
    def sha256(self) -> str:
        """Checksum of what was measured, independent of how the file is laid out.

        Warnings are left out: they follow from the rest, and name files by where the dataset's folder is today. So are times of change.
        """
        return sha256_json(
            self.model_dump(
                mode="json", exclude={"warnings": True, "cases": {"__all__": {"warnings", "stamps"}}}
            )
        )


def write_fingerprint(fingerprint: Fingerprint, path: Path) -> None:
    """Writes the fingerprint as JSON, atomically."""
    write_text(path, fingerprint.model_dump_json(indent=2) + "\n")


def read_fingerprint(path: Path) -> Fingerprint:
    """Reads a fingerprint; a wrong value or unknown key raises SettingError naming the path of the key."""
    return read_model(Fingerprint, path)


def previous_fingerprint(path: Path) -> Fingerprint | None:
    """What was measured before; None, with a warning, where that cannot be read."""
    try:
        return read_fingerprint(path) if path.is_file() else None
    except UtsegError as error:
        logger.warning("%s; measuring all cases again", error)
        return None
