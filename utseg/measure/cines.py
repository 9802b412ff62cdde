"""Which cines a folder of masks holds: 4-D files, or masks of ED and ES of one subject; whose they are, and where their images are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from utseg.cardiac.volumes import PHASES
from utseg.case import Case
from utseg.errors import InputError, listing, number_of
from utseg.files import require_no_broken_link
from utseg.measure.record import FrameFiles
from utseg.measure.table import About, about_case
from utseg.predict.record import predicted_cases, recorded_image
from utseg.rawdata import dataset_around, open_dataset
from utseg.rawdata.names import CHANNEL_SUFFIX, image_stem


@dataclass(frozen=True)
class Volume:
    """A file, and the frame of it that is meant: None for a 3-D file, or for all frames of a cine."""

    path: Path
    frame: int | None = None


@dataclass(frozen=True)
class Mask:
    """One mask file, or one frame of it, with what is known of it."""

    name: str
    volume: Volume
    about: About
    image: Volume | None = None


@dataclass(frozen=True)
class Cine:
    """One cine before it is read: one 4-D mask, or those of ED and ES, in this order."""

    name: str
    about: About
    masks: tuple[Mask, ...]

    @property
    def files(self) -> tuple[FrameFiles, ...]:
        """For the record; empty for a 4-D mask."""
        if len(self.masks) == 1:
            return ()
        return tuple(
            FrameFiles(
                mask=mask.volume.path.name,
                image=None if mask.image is None else str(mask.image.path.absolute()),
                image_frame=None if mask.image is None else mask.image.frame,
            )
            for mask in self.masks
        )


@dataclass(frozen=True)
class Known:
    """What is known besides the masks: cases of datasets, rows of a table, image files by their names."""

    cases: tuple[Case, ...] = ()
    table: Mapping[str, About] = field(default_factory=dict)
    images: Mapping[str, Volume] = field(default_factory=dict)

    def about(self, name: str) -> About:
        """Of a mask by its name: the table's row of it or of its subject, completed by the dataset's case of it or of its subject."""
        said, case = self.table.get(name), self._by_name.get(name)
        subject = (said and said.subject) or (case.subject if case else self._subject(name))
        said = said or self.table.get(subject, About())
        known = case or self._by_subject.get(subject)
        own = about_case(known) if known else About()
        phase = said.phase or (own.phase if case else "")
        return About(subject, phase, {**own.groups, **said.groups}, {**own.numbers, **said.numbers})

    def image(self, name: str) -> Volume | None:
        """The image of a mask by its name, and its frame where the mask is one frame of a cine."""
        case = self._by_name.get(name)
        if name in self.images:
            return self.images[name]
        if case is not None and case.images:
            return Volume(case.images[0], case.frame)
        return Volume(self._by_stem[name]) if name in self._by_stem else None

    @cached_property
    def _by_name(self) -> dict[str, Case]:
        return {case.case_id: case for case in reversed(self.cases)}

    @cached_property
    def _by_subject(self) -> dict[str, Case]:
        return {case.subject: case for case in reversed(self.cases)}

    @cached_property
    def _by_stem(self) -> dict[str, Path]:
        return {
            stem: case.images[0]
            for case in self.cases
            if case.images and (stem := image_stem(case.images[0].name))
        }

    def _subject(self, name: str) -> str:
        """The longest subject that the mask's name is, or begins with, as CODE_sa; else the name itself."""
        parts = name.split("_")
        begins = ("_".join(parts[:count]) for count in range(len(parts), 0, -1))
        return next((begin for begin in begins if begin in self._by_subject), name)


def find_images(folder: Path) -> tuple[tuple[Case, ...], dict[str, Volume]]:
    """What --images names: the cases of the raw dataset that it is, or is a part of (a patient's folder), and image files by their names,
    channel 0 of several. Raises InputError.
    """
    if not require_no_broken_link(folder).exists():
        raise InputError(f"{folder}: no such file or folder; expected the images that the masks are of")
    dataset = dataset_around(folder) if folder.is_dir() else None
    cases = open_dataset(dataset).cases if dataset else ()
    found: dict[str, Volume] = {}
    for path in [folder] if folder.is_file() else sorted(folder.iterdir()):
        stem = image_stem(path.name)
        numbered = CHANNEL_SUFFIX.fullmatch(stem) if stem else None
        if stem and (numbered is None or int(numbered["channel"]) == 0):
            found[numbered["case"] if numbered else stem] = Volume(path)
    if not found and not cases:
        raise InputError(f"{folder}: no image is there; expected the images that the masks are of")
    return cases, found


def recorded_images(masks: Path) -> dict[str, Volume]:
    """The images of masks by their names, where `prediction.json` says it and they are still those that were predicted from."""
    return {
        name: Volume(path, entry.frame)
        for name, entry in predicted_cases(masks).items()
        if (path := recorded_image(masks, entry)) is not None
    }


def find_masks(files: Mapping[str, Sequence[Path]], known: Known) -> tuple[list[Mask], list[str]]:
    """The mask files by their names, and a line for each name that two files have."""
    twice = [
        f"cine {name}: two masks, {paths[0].name} and {paths[1].name}; keep one"
        for name, paths in files.items()
        if len(paths) > 1
    ]
    masks = [
        Mask(name, Volume(paths[0]), known.about(name), known.image(name))
        for name, paths in files.items()
        if len(paths) == 1
    ]
    return masks, twice


def labelled_masks(cases: Iterable[Case]) -> list[Mask]:
    """The reference labels of cases."""
    return [
        Mask(case.case_id, Volume(case.label, case.frame), About(case.subject, case.phase))
        for case in cases
        if case.label is not None
    ]


def join_cines(masks: Iterable[Mask]) -> tuple[list[Cine], list[str]]:
    """The cines, sorted by name, and a line for each thing that is wrong with the others. Headers are read.

    A 4-D file is a cine of its own name; 3-D masks of ED and ES are one of their subject's name.
    """
    from utseg.rawdata.gate import frame_count, read_geometry
    from utseg.rawdata.nifti import is_series

    cines: dict[str, Cine] = {}
    pairs: dict[str, list[Mask]] = {}
    stray, problems = [], []
    for mask in masks:
        try:
            is_cine = mask.volume.frame is None and frame_count(mask.volume.path) > 1
        except InputError as error:
            problems.append(str(error))
            continue
        if is_cine:
            cines[mask.name] = Cine(mask.name, mask.about, (mask,))
        elif mask.about.phase in PHASES:
            pairs.setdefault(mask.about.subject, []).append(mask)
        elif mask.volume.frame is None and is_series(read_geometry(mask.volume.path).header):
            problems.append(f"cine {mask.name}: one frame: no ED and ES")
        else:
            stray.append(mask.name)
    for subject, found in pairs.items():
        names = listing([mask.name for mask in found])
        found = sorted(found, key=lambda mask: mask.about.phase)
        if subject in cines:
            problems.append(
                f"subject {subject}: a cine and masks of single phases are there: {names}; keep one of both"
            )
        elif tuple(mask.about.phase for mask in found) == PHASES:
            cines[subject] = Cine(subject, found[0].about, tuple(found))
        else:
            problems.append(f"subject {subject}: expected one mask of ED and one of ES; found {names}")
    if stray:
        found_there = f"{number_of(len(stray), 'mask')} in 3-D"
        problems.append(
            f"{found_there}, and nothing says which are ED and ES of one subject: {listing(stray)}; name their dataset with -d, or a table "
            "with columns case, subject and phase with --table"
        )
    return [cines[name] for name in sorted(cines)], problems
