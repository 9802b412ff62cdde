"""The nnU-Net layout: `dataset.json`, `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz`, `imagesTs`, and optionally `cases.csv`.

What `dataset.json` may say is in `description.py`; the cases are those of its `dataset` key, where it has one, else all of imagesTr.
No pixel is read here: a file that is missing is reported by the gate, with all other faults.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from utseg.case import Case, Dataset, Partition
from utseg.errors import CaseErrors, InputError, listing
from utseg.files import require_no_broken_link
from utseg.rawdata.description import (
    DESCRIPTION_FILE,
    Description,
    lists_cases,
    read_description,
)
from utseg.rawdata.names import (
    CHANNEL_SUFFIX,
    PICTURE_ENDINGS,
    image_stem,
    is_picture,
    letter_case_differs,
    name_problems,
)
from utseg.rawdata.pictures import spacing_file
from utseg.rawdata.tables import CsvTable, is_empty, read_table

TABLE_FILE = "cases.csv"
FOLDERS = ("imagesTr", "imagesTs", "labelsTr", "labelsTs")
GROUPS = {name: name for name in ("phase", "vendor", "centre", "pathology")} | {"center": "centre"}
"""Columns of `cases.csv` that are known whatever their letter case; others keep the name that they have there."""


def looks_like(folder: Path) -> bool:
    """Whether a folder has `dataset.json` or `imagesTr`."""
    return (folder / DESCRIPTION_FILE).exists() or (folder / "imagesTr").is_dir()


def has_images(folder: Path) -> bool:
    """Whether a folder has an image folder of this layout, or lists images elsewhere.

    With `dataset.json` only it may be a plain folder of files whose labels that names.
    """
    there = any(
        (folder / images).is_dir() or (folder / images).is_symlink() for images in ("imagesTr", "imagesTs")
    )
    return there or ((folder / DESCRIPTION_FILE).is_file() and lists_cases(folder))


def open_nnunet(folder: Path, name: str) -> Dataset:
    """Reads a folder in this layout. Raises SettingError (`dataset.json`), InputError, CaseErrors (names, rows of `cases.csv`)."""
    for part in (*FOLDERS, TABLE_FILE):
        require_no_broken_link(folder / part)
    about = read_description(folder / DESCRIPTION_FILE)
    in_folder = _partition_cases(folder, "Tr", "training", about)
    listed = [
        replace(case_of(case, images, len(about.channel_names)), label=label)
        for case, (images, label) in sorted((about.listed or {}).items())
    ]
    training = in_folder if about.listed is None else listed
    testing = _partition_cases(folder, "Ts", "testing", about)
    cases = [*training, *testing]
    if not cases:
        found = listing(_visible(folder / "imagesTr")) or "nothing"
        raise InputError(
            f"{folder / 'imagesTr'}: no images called CASE_0000{about.file_ending} (file_ending of dataset.json); found {found}"
        )
    problems = name_problems((case.case_id for case in cases), "case")
    if about.file_ending in PICTURE_ENDINGS and any(case.case_id == "prediction" for case in cases):
        problems.append(
            "case 'prediction': the JSON beside its mask would take the place of prediction.json; rename it"
        )
    if problems:
        raise CaseErrors(f"{folder}: {problem}" for problem in problems)
    warnings = [*about.warnings, *_completeness(folder, about, training, cases)]
    if len(left_out := {case.case_id for case in in_folder} - {case.case_id for case in training}):
        warnings.append(
            f"{folder / DESCRIPTION_FILE}: dataset: {len(training)} cases are listed and used; {len(left_out)} others of imagesTr are left "
            f"out: {listing(sorted(left_out))}"
        )
    if (folder / TABLE_FILE).exists():
        cases = _with_rows(cases, read_table(folder / TABLE_FILE), warnings)
    return Dataset(name, folder, "nnunet", about.channel_names, about.labels, tuple(cases), tuple(warnings))


def _image_cases(folder: Path, about: Description, partition: Partition) -> list[Case]:
    """The cases of an image folder, each its own subject, in the order of their names.

    A channel that is missing is left to the gate; a channel too many, or a file without a channel number, raises CaseErrors.
    """
    channels, ending = len(about.channel_names), about.file_ending
    if not about.numbered:
        names = [name.removesuffix(ending) for name in _visible(folder) if name.endswith(ending)]
        return [case_of(name, (folder / f"{name}{ending}",), channels, partition) for name in names]
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    problems = []
    for path in sorted(folder.iterdir()):
        if not path.name.endswith(ending) or path.name.startswith("."):
            continue
        stem = path.name.removesuffix(ending)
        match = CHANNEL_SUFFIX.fullmatch(stem)
        if match is None:
            problems.append(f"{path}: no channel number in the name; expected {stem}_0000{ending}")
        elif int(match["channel"]) >= channels:
            problems.append(
                f"{path}: channel {int(match['channel'])}, but channel_names in dataset.json has {channels}, counted from 0"
            )
        else:
            found[match["case"]][int(match["channel"])] = path
    if problems:
        raise CaseErrors(problems)
    cases = []
    for case, there in found.items():
        # Of pictures the first ones will do where they have several channels each; the gate counts them.
        needed = len(there) if about.joint and sorted(there) == list(range(len(there))) else channels
        images = (there.get(number, folder / f"{case}_{number:04d}{ending}") for number in range(needed))
        cases.append(case_of(case, tuple(images), channels, partition))
    return cases


def case_of(name: str, images: tuple[Path, ...], channels: int, partition: Partition = "training") -> Case:
    """A case without label, its own subject. Its files hold the channels together where they are fewer than these."""
    together = channels if len(images) < channels else None
    spacing = spacing_file(images[0]) if is_picture(images[0]) else None
    return Case(name, name, images, partition=partition, channels=together, spacing_file=spacing)


def of_decathlon(folder: Path) -> bool:
    """Whether a folder is one of a dataset whose files hold all channels of a case. Whether its `dataset.json` is right is not asked."""
    try:
        described = folder.absolute().parent / DESCRIPTION_FILE
        return folder.absolute().name in FOLDERS and not read_description(described).numbered
    except InputError:
        return False


def _visible(folder: Path) -> list[str]:
    """The names of what is in a folder and not hidden."""
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []


def _partition_cases(folder: Path, suffix: str, partition: Partition, about: Description) -> list[Case]:
    images, labels = folder / f"images{suffix}", folder / f"labels{suffix}"
    if not images.is_dir():
        return []
    cases = _image_cases(images, about, partition)
    labelled = []
    for case in cases:
        label = labels / f"{case.case_id}{about.file_ending}"
        # A link counts wherever it leads, and a folder of that name: the gate says what is wrong with them.
        labelled.append(replace(case, label=label) if label.exists() or label.is_symlink() else case)
    return labelled


def _completeness(
    folder: Path, about: Description, training: Sequence[Case], cases: Sequence[Case]
) -> list[str]:
    """Warnings about what is there without its counterpart."""
    warnings = []
    bare = [case.case_id for case in training if case.label is None]
    if bare:
        warnings.append(
            f"{folder / 'labelsTr'}: {len(bare)} images of imagesTr have no label and are not trained on: {listing(bare)}"
        )
    used = {path for case in cases for path in case.files}
    for suffix in ("Tr", "Ts") if about.listed is None else ("Ts",):
        images, labels = folder / f"images{suffix}", folder / f"labels{suffix}"
        lone = [name for name in _visible(labels) if labels / name not in used and _is_image(name)]
        if lone:
            why = _why_lone(lone, [case.case_id for case in cases if case.label is None], about.file_ending)
            warnings.append(
                f"{labels}: {len(lone)} labels have no image and are left out: {listing(lone)}{why}"
            )
        other = [
            name for name in _visible(images) if _is_image(name) and not name.endswith(about.file_ending)
        ]
        if other:
            warnings.append(
                f"{images}: {len(other)} files do not end in {about.file_ending}, the file_ending of dataset.json, and are left out: "
                f"{listing(other)}"
            )
        warnings += hidden_images(images) + hidden_images(labels) + _lone_spacings(images, used, about)
    if about.num_training is not None and about.num_training != len(training):
        warnings.append(
            f"{folder / 'dataset.json'}: numTraining is {about.num_training}, but there are {len(training)} training cases"
        )
    return warnings


def _lone_spacings(images: Path, used: Collection[Path], about: Description) -> list[str]:
    """A warning about files with the spacing of no picture, whose pixels are then taken to be 1 mm wide."""
    names = [name for name in _visible(images) if name.endswith(".json") and images / name not in used]
    if not names or about.file_ending not in PICTURE_ENDINGS:
        return []
    return [
        f"{images}: {len(names)} files are the spacing of no case, which would be called CASE.json: {listing(names)}"
    ]


def hidden_images(folder: Path) -> list[str]:
    """A warning about images whose names begin with a dot; macOS's own ._NAME files are not meant."""
    hidden = sorted(path.name for path in folder.glob(".[!_]*") if _is_image(path.name))
    if not hidden:
        return []
    return [f"{folder}: {len(hidden)} images are left out, named with a dot first: {listing(hidden)}"]


def _is_image(name: str) -> bool:
    return image_stem(name.casefold()) is not None


def _why_lone(labels: Sequence[str], unlabelled: Sequence[str], ending: str) -> str:
    """Which image without a label a label may be meant for, and what it should then be called; nothing where there is none."""
    folded = {case.casefold(): case for case in unlabelled}
    for name in labels:
        stem = name[: len(image_stem(name.casefold()) or "")]
        numbered = CHANNEL_SUFFIX.fullmatch(stem)
        reasons = ((numbered["case"], "a label has no channel number"),) if numbered else ()
        for meant, reason in (
            *reasons,
            (stem, "letter case and ending must be those of the image and file_ending"),
        ):
            if meant.casefold() in folded:
                return f"; {reason}: rename {name} to {folded[meant.casefold()]}{ending} if it is that image's, and the others so"
    return ""


def _with_rows(cases: Iterable[Case], table: CsvTable, warnings: list[str]) -> list[Case]:
    """Subject, phase and groups from `cases.csv`. A training case without a row is an error: its subject decides on its fold."""
    columns = {key: _required_column(table, key) for key in ("case", "subject")}
    problems = name_problems((row[columns["case"]] for row in table.rows), "case")
    rows = {row[columns["case"]]: row for row in table.rows}
    group_columns = _group_columns(table, set(columns.values()))
    complete, bare, lacking = [], [], []
    for case in cases:
        row = rows.pop(case.case_id, None)
        if row is None:
            lacking += [case.case_id] if case.partition == "training" else []
            bare.append(case)
            complete.append(case)
            continue
        if is_empty(row[columns["subject"]]):
            problems.append(
                f"case {case.case_id} has no subject; repeat the case's name where it is the only one of its subject"
            )
        groups = {
            group: "" if is_empty(row[column]) else row[column] for group, column in group_columns.items()
        }
        if "phase" in groups:
            groups["phase"] = groups["phase"].upper()
        complete.append(
            replace(case, subject=row[columns["subject"]], phase=groups.get("phase", ""), groups=groups)
        )
    differing = letter_case_differs(set(rows), {case.case_id for case in bare}, "the table", "on disk")
    if differing:
        problems.append(f"{differing}; write them alike")
    elif lacking:
        problems.append(
            f"{len(lacking)} cases of imagesTr have no row: {listing(lacking)}; add them, their subject decides on their fold"
        )
    if problems:
        raise CaseErrors(f"{table.path}: {problem}" for problem in problems)
    if rows:
        warnings.append(
            f"{table.path}: {len(rows)} rows have no image and are left out: {listing(sorted(rows))}"
        )
    return complete


def _group_columns(table: CsvTable, others: set[str]) -> dict[str, str]:
    """The columns to group by, as they are called in the file, by the name of the group. Columns without any value are left out."""
    found: dict[str, str] = {}
    for column in table.columns:
        if column in others or all(is_empty(row[column]) for row in table.rows):
            continue
        group = GROUPS.get(column.casefold(), column)
        if group in found:
            raise InputError(f"{table.path}: columns {found[group]!r} and {column!r} mean the same; keep one")
        found[group] = column
    return found


def _required_column(table: CsvTable, key: str) -> str:
    column = table.column(key)
    if column is None:
        raise InputError(f"{table.path}: column {key!r} is missing; found {', '.join(table.columns)}")
    return column
