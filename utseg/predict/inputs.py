"""What `-i` is: a file, a folder of images, an nnU-Net image folder, or a raw dataset in any layout.

Only names are looked at, so everything that is wrong with them comes at once and before any work; the gate reads the pixels later.
A case without a frame whose file is a cine stands for all its frames.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from utseg.case import Case
from utseg.dicom.sources import BESIDE_CINES, sources_path
from utseg.errors import CaseErrors, InputError, explained_by, listing
from utseg.files import require_no_broken_link
from utseg.rawdata import acdc, is_dataset, mnms, open_dataset
from utseg.rawdata.content import dicom_in, dicom_refusal
from utseg.rawdata.gate import not_an_image
from utseg.rawdata.names import (
    CHANNEL_SUFFIX,
    IMAGE_ENDINGS,
    image_stem,
    is_picture,
    name_problems,
)
from utseg.rawdata.nnunet import case_of, hidden_images, of_decathlon

LABEL_OF_MNMS = "_gt"
LEVELS_UP = 2


@dataclass(frozen=True)
class Inputs:
    """What to predict; each case id names its mask. `warnings` are for the user to read."""

    cases: tuple[Case, ...]
    warnings: tuple[str, ...] = ()


def find_inputs(path: Path, channel_names: Sequence[str]) -> Inputs:
    """The cases below `path`, for a model with these channels. Labels are left out: prediction does not read them.

    Raises InputError where nothing is there, CaseErrors with all cases whose channels are not the model's or whose names clash.
    """
    if path.is_dir():
        if is_dataset(path):
            found = _dataset_inputs(path)
        elif (partition := _partition_inputs(path)) is not None:
            found = partition
        else:
            found = _folder_inputs(path, len(channel_names))
    elif require_no_broken_link(path).is_file():
        found = _file_inputs(path, len(channel_names))
    else:
        raise InputError(
            f"{path}: no such file or folder; -i takes an image, a folder of images or a raw dataset"
        )
    with explained_by(found.warnings):
        _check_cases(found.cases, channel_names, path)
    return found


def holds_dicom(path: Path) -> bool:
    """Whether `path` is a folder of DICOM files at any depth, and neither a raw dataset nor a folder of images."""
    if not path.is_dir() or is_dataset(path) or any(image_stem(entry.name) for entry in path.iterdir()):
        return False
    return dicom_in(path) is not None


def require_dicom_sources(cases: Sequence[Case]) -> None:
    """Raises InputError unless each case is a cine whose DICOM frames are known, as of one that was imported."""
    without = [
        case.case_id
        for case in cases
        if case.frame is not None or not sources_path(case.images[0].parent, case.case_id).is_file()
    ]
    if without:
        raise InputError(
            f"--dicom-seg: not known which DICOM frames {listing(without)} came from; expected -i to be a folder of DICOM, or one that "
            "utseg_import_dicom made (sources/CINE.json beside CINE.nii.gz)"
        )


def check_output(path: Path, output: Path) -> None:
    """Refuses an output folder in which masks would come to lie among, or over, the images that are read. Raises InputError."""
    source = (path if path.is_dir() else path.parent).resolve()
    target = output.resolve()
    if target == source or (path.is_dir() and source in target.parents):
        raise InputError(
            f"{output}: the output folder lies in the input folder {source}; masks must not mix with images: choose another with -o"
        )


def _dataset_inputs(folder: Path) -> Inputs:
    """All cases of a raw dataset, of every partition. Of a subject whose ED and ES are not known the whole cine, as one case."""
    dataset = open_dataset(folder)
    cases: dict[str, Case] = {}
    for case in dataset.cases:
        whole = replace(case, label=None)
        if case.frame is not None and not case.phase:
            whole = replace(whole, case_id=case.subject, frame=None)
        cases[whole.case_id] = whole
    return Inputs(tuple(cases.values()), dataset.warnings)


def _partition_inputs(folder: Path) -> Inputs | None:
    """The cases in one partition of an M&Ms dataset (Testing, Training/Labeled, …) or of an ACDC patient; None for any other folder."""
    for inside in dict.fromkeys((folder.absolute(), folder.resolve())):
        if acdc.is_patient(inside) and (root := acdc.root_of(inside)) is not None:
            found = _dataset_inputs(root)
            return Inputs(tuple(case for case in found.cases if inside in case.images[0].parents))
        for root in inside.parents[:LEVELS_UP]:
            is_partition = inside in (root / name for name, _, _ in mnms.PARTITIONS)
            if is_partition and mnms.is_partition(inside, root):
                found = _dataset_inputs(root)
                cases = (case for case in found.cases if inside in case.images[0].parents)
                return Inputs(tuple(cases), found.warnings)
    return None


def _folder_inputs(folder: Path, channels: int) -> Inputs:
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    # A link counts wherever it leads: the gate says where it leads nowhere.
    files = [entry for entry in entries if entry.is_file() or entry.is_symlink()]
    stems = {entry: stem for entry in files if not entry.is_dir() and (stem := image_stem(entry.name))}
    if any(not is_picture(entry) for entry in stems):  # pictures beside volumes show these
        stems = {entry: stem for entry, stem in stems.items() if not is_picture(entry)}
    labels = [entry for entry, stem in stems.items() if _is_mnms_label(stem, set(stems.values()))]
    cases = _cases({entry: stem for entry, stem in stems.items() if entry not in labels}, channels)
    read = {*stems, *(case.spacing_file for case in cases)}
    read |= {folder / name for name in BESIDE_CINES if (folder / BESIDE_CINES[0]).is_dir()}
    ignored = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries if entry not in read]
    warnings = hidden_images(folder)
    if ignored:
        warnings.append(f"{folder}: left out, not image files by their names: {listing(ignored)}")
    if labels:
        warnings.append(
            f"{folder}: left out, labels by their names: {listing([entry.name for entry in labels])}"
        )
    if not cases:
        if dicom_in(folder) is not None:
            raise dicom_refusal(folder)
        raise InputError(
            f"{folder}: no image is there; expected files that end in {', '.join(IMAGE_ENDINGS)}, or a raw dataset"
            + (f"; found {listing(ignored)}" if ignored else "")
        )
    return Inputs(cases, tuple(warnings))


def _is_mnms_label(stem: str, stems: set[str]) -> bool:
    """CODE_sa_gt beside CODE_sa, as in the folder of an M&Ms subject."""
    return stem.endswith(LABEL_OF_MNMS) and stem.removesuffix(LABEL_OF_MNMS) in stems


def _file_inputs(path: Path, channels: int) -> Inputs:
    """One image; with further channels beside it where it ends in _0000 and the model has several."""
    stem = image_stem(path.name)
    if stem is None:
        raise not_an_image(path)
    images = {path: stem}
    match = CHANNEL_SUFFIX.fullmatch(stem)
    if match and channels > 1:
        for entry in sorted(path.parent.iterdir()):
            other = image_stem(entry.name) if entry.is_file() else None
            if other and (same := CHANNEL_SUFFIX.fullmatch(other)) and same[1] == match[1]:
                images[entry] = other
    return Inputs(_cases(images, channels))


def _cases(images: dict[Path, str], channels: int) -> tuple[Case, ...]:
    """One case a file, or a group of files NAME_0000, NAME_0001, … .

    A number at the end of a name is that of a channel when the model has such a channel, or when NAME_0000 is there too. A picture, or a
    file of the Decathlon, may hold several channels.
    """
    if channels > 1 and all(of_decathlon(folder) for folder in {path.parent for path in images}):
        return tuple(case_of(stem, (path,), channels) for path, stem in images.items())

    def held(path: Path) -> int:
        return channels if is_picture(path) else 1

    stems = set(images.values())
    grouped: dict[str, dict[int, Path]] = defaultdict(dict)
    plain: list[Case] = []
    for path, stem in images.items():
        match = CHANNEL_SUFFIX.fullmatch(stem)
        if match and (int(match[2]) < channels or f"{match[1]}_0000" in stems):
            if int(match[2]) in grouped[match[1]]:
                plain.append(
                    case_of(match[1], (path,), 1)
                )  # a.nii and a.nii.gz: the clash of names is reported
            else:
                grouped[match[1]][int(match[2])] = path
        else:
            plain.append(case_of(stem, (path,), held(path)))
    multi = [
        case_of(name, tuple(files[number] for number in sorted(files)), held(files[min(files)]))
        for name, files in grouped.items()
    ]
    return tuple(sorted(multi + plain, key=lambda case: case.case_id))


def _check_cases(cases: Sequence[Case], channel_names: Sequence[str], where: Path) -> None:
    problems = [f"{where}: {problem}" for problem in name_problems([case.case_id for case in cases], "case")]
    for case in cases:
        numbers = [_channel_number(image) for image in case.images]
        expected = list(range(len(channel_names)))
        complete = numbers == expected[: len(numbers)] or len(channel_names) == 1 or None in numbers
        held = case.channels or len(case.images)
        if held != len(channel_names) or not complete:
            found = listing([image.name for image in case.images])
            problems.append(
                f"{case.case_id}: {held} channels found ({found}); the model needs {len(channel_names)}: "
                f"{', '.join(channel_names)}, as {case.case_id}_0000, …"
            )
    if not cases:
        problems.append(f"{where}: the dataset has no cases")
    if problems:
        raise CaseErrors(problems)


def _channel_number(path: Path) -> int | None:
    match = CHANNEL_SUFFIX.fullmatch(image_stem(path.name) or "")
    return int(match[2]) if match else None
