"""`Case` and `Dataset`: where one volume's pixels, label and metadata are, and what a raw dataset consists of.

No pixel is read here; `utseg.rawdata` makes these from folders, and its gate reads the pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from utseg.label_map import Labels

Partition = Literal["training", "validation", "testing"]


@dataclass(frozen=True)
class Case:
    """One 3-D volume: the unit that is preprocessed, predicted and scored.

    `images` has one file a channel; where `channels` is a number, its files hold so many together (an RGB picture, a 4-D file of the
    Decathlon). `spacing_file` is the JSON beside a picture that says its spacing. `frame` is the index along the fourth axis of a cine
    file (of image and label alike), None for a 3-D file. `phase` is "ED", "ES" or "" where it is unknown. `groups` holds the columns that
    scores are grouped by (vendor, centre, pathology, …). `person` holds what the dataset says of the person, as text: sex, height_cm,
    weight_kg.
    """

    case_id: str
    subject: str
    images: tuple[Path, ...]
    label: Path | None = None
    frame: int | None = None
    phase: str = ""
    partition: Partition = "training"
    groups: Mapping[str, str] = field(default_factory=dict)
    person: Mapping[str, str] = field(default_factory=dict)
    channels: int | None = None
    spacing_file: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that the case is read from, images first."""
        return (*self.image_files, self.label) if self.label is not None else self.image_files

    @property
    def image_files(self) -> tuple[Path, ...]:
        """The files that say what the image is and how it lies."""
        return (*self.images, self.spacing_file) if self.spacing_file is not None else self.images


@dataclass(frozen=True)
class Dataset:
    """A raw dataset as found on disk. `labels` maps names to values, background 0 included. `warnings` are for the user to read."""

    name: str
    folder: Path
    layout: Literal["mnms", "acdc", "nnunet"]
    channel_names: tuple[str, ...]
    labels: Labels
    cases: tuple[Case, ...]
    warnings: tuple[str, ...] = ()

    @property
    def group_columns(self) -> tuple[str, ...]:
        """The names of all group columns, in the order in which they first appear."""
        return tuple(dict.fromkeys(column for case in self.cases for column in case.groups))

    def training_cases(self) -> tuple[Case, ...]:
        """The labelled cases of the training partition: what is planned on, preprocessed and split into folds."""
        return tuple(case for case in self.cases if case.partition == "training" and case.label is not None)
