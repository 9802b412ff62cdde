"""The native M&Ms layout: cine files with labels on the ED and ES frames, one folder a subject, and a CSV that says which frames those are.

Subjects give two cases, CODE_ED and CODE_ES. Where the two frames are not known (ED equals ES, no row in the CSV) every frame is an
unlabelled case, CODE_t00, CODE_t01, … No pixel is checked here, but an all-zero `_gt` is recognised as no label.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from utseg.case import Case, Dataset, Partition
from utseg.errors import CaseErrors, InputError, listing
from utseg.files import require_no_broken_link
from utseg.label_map import Labels
from utseg.rawdata.cine import CHANNEL_NAMES, find_file, frames_text, unlabelled_frames
from utseg.rawdata.names import letter_case_differs, name_problem, name_problems
from utseg.rawdata.tables import CsvTable, is_empty, read_table

LABELS: Labels = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}
PARTITIONS: tuple[tuple[str, Partition, bool], ...] = (
    ("Training/Labeled", "training", True),
    ("Training/Unlabeled", "training", False),
    ("Validation", "validation", True),
    ("Testing", "testing", True),
)
GROUPS = {
    "vendor": ("Vendor",),
    "vendor_name": ("VendorName", "Vendor name"),
    "centre": ("Centre", "Center"),
    "pathology": ("Pathology",),
}
PERSON = {"sex": ("Sex",), "height_cm": ("Height",), "weight_kg": ("Weight",)}
CODE_COLUMN = ("External code", "Code", "Subject")


@dataclass(frozen=True)
class _Row:
    """What the CSV says of a subject; `frames` is (ED, ES) or None where they are not known."""

    frames: tuple[int, int] | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    person: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Misplaced:
    """A subject whose `named` frames, ED and ES, are not those that its label file has labels on."""

    code: str
    label: str
    named: tuple[int, int]
    labelled: list[int]


def is_partition(folder: Path, root: Path) -> bool:
    """Whether a folder below `root` is a partition with folders in it, holds such ones, or is a subject's folder in one."""
    top = _root(root)
    partitions = [top / name for name, _, _ in PARTITIONS]
    if folder.parent in partitions and find_file(folder, f"{folder.name}_sa") is not None:
        return True
    known = folder in partitions or folder in (partition.parent for partition in partitions)
    return known and any(entry.is_dir() for entry in folder.iterdir())


def looks_like(folder: Path) -> bool:
    """Whether a folder has the sub-folders of this layout."""
    root = _root(folder)
    # By the exact name, also where the file system takes ACDC's `training` for `Training`.
    names = {name.split("/")[0] for name, _, _ in PARTITIONS}
    return root.is_dir() and any(entry.name in names and entry.is_dir() for entry in root.iterdir())


def has_subjects(folder: Path) -> bool:
    """Whether a folder has a cine of a subject where this layout has them."""
    root = _root(folder)
    return any(next(root.glob(f"{name}/*/*_sa.nii*"), None) is not None for name, _, _ in PARTITIONS)


def open_mnms(folder: Path, name: str) -> Dataset:
    """Reads a folder in this layout: with or without the level `OpenDataset`, or that level itself. Raises InputError, CaseErrors."""
    root = _root(folder)
    subjects = list(_subjects(root))
    if not subjects:
        names = ", ".join(name for name, _, _ in PARTITIONS)
        raise InputError(
            f"{root}: no subject folders in {names}; expected for example Training/Labeled/CODE/CODE_sa.nii.gz"
        )
    table = _find_table(_table_folders(folder, root))
    rows = _read_rows(table)
    codes = [subject.name for subject, _, _ in subjects]
    problems = name_problems(codes, "subject")
    if problems:
        raise CaseErrors(f"{root}: {problem}" for problem in problems)
    lone = sorted(set(rows) - set(codes))
    if differing := letter_case_differs(lone, set(codes) - set(rows), "the table", "on disk"):
        raise InputError(f"{table.path}: {differing}; write them alike")
    notes: dict[str, list[str]] = defaultdict(list)
    notes["absent"] = lone
    notes["no row"] = [code for code in codes if code not in rows]
    misplaced: list[_Misplaced] = []
    cases: list[Case] = []
    for subject in subjects:
        cases += _cases(*subject, rows.get(subject[0].name, _Row()), notes, misplaced)
    problems = [f"{table.path}: {problem}" for problem in _frame_problems(misplaced)]
    problems += [f"{root}: {problem}" for problem in name_problems((case.case_id for case in cases), "case")]
    if problems:
        raise CaseErrors(problems)
    return Dataset(name, folder, "mnms", CHANNEL_NAMES, LABELS, tuple(cases), tuple(_warnings(table, notes)))


def _root(folder: Path) -> Path:
    nested = folder / "OpenDataset"
    return nested if nested.is_dir() else folder


def _table_folders(folder: Path, root: Path) -> list[Path]:
    """Where the CSV may lie: beside the partitions, or beside `OpenDataset` which holds them."""
    if root != folder:
        return [folder, root]
    return [folder, folder.absolute().parent] if folder.absolute().name == "OpenDataset" else [folder]


def _subjects(root: Path) -> Iterator[tuple[Path, Partition, bool]]:
    """Each subject's folder, its partition, and whether its label counts."""
    for name, partition, may_be_labelled in PARTITIONS:
        parent = root / name
        for part in (parent.parent, parent):
            require_no_broken_link(part)
        if parent.is_dir():
            for entry in sorted(parent.iterdir()):
                if require_no_broken_link(entry).is_dir() and not entry.name.startswith("."):
                    yield entry, partition, may_be_labelled


def _find_table(folders: list[Path]) -> CsvTable:
    """The CSV that has the columns, whatever it is called."""
    tables = [
        read_table(path)
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.suffix.lower() == ".csv"
        and not path.name.startswith(".")
        and require_no_broken_link(path).is_file()
    ]
    suited = [
        table for table in tables if all(table.column(*names) for names in (CODE_COLUMN, ("ED",), ("ES",)))
    ]
    if len(suited) == 1:
        return suited[0]
    where = " or ".join(str(folder) for folder in folders)
    if suited:
        found = ", ".join(str(table.path) for table in suited)
        raise InputError(f"{where}: several CSVs have External code, ED and ES: {found}; keep one of them")
    found = (
        "; ".join(f"{table.path.name} has {', '.join(table.columns) or 'no columns'}" for table in tables)
        or "no CSV"
    )
    raise InputError(f"{where}: expected a CSV with External code, Vendor, Centre, ED, ES; found {found}")


def _read_rows(table: CsvTable) -> dict[str, _Row]:
    """Rows by subject code. Raises CaseErrors for codes that are no names or there twice, and for frames that are no numbers."""
    code_column = table.column(*CODE_COLUMN)
    assert code_column is not None, "the table was chosen by this column"
    codes = [row[code_column] for row in table.rows]
    problems = [f"{table.path}: {problem}" for problem in name_problems(filter(None, codes), "subject")]
    used = {
        group: column
        for group, aliases in GROUPS.items()
        if (column := table.column(*aliases)) and any(not is_empty(row[column]) for row in table.rows)
    }
    rows = {}
    for code, row, line in zip(codes, table.rows, table.lines, strict=True):
        if name_problem(code):
            problems += [f"{table.path}: line {line}: no subject code"] if not code else []
            continue
        groups = {group: "" if is_empty(row[column]) else row[column] for group, column in used.items()}
        try:
            rows[code] = _Row(_frames(table, row), groups, _person(table, row))
        except InputError as error:
            problems.append(f"{table.path}: line {line}: subject {code}: {error}")
    if problems:
        raise CaseErrors(problems)
    return rows


def _person(table: CsvTable, row: Mapping[str, str]) -> dict[str, str]:
    """What the row says of the person."""
    columns = {key: table.column(*aliases) for key, aliases in PERSON.items()}
    return {key: row[column] for key, column in columns.items() if column and not is_empty(row[column])}


def _frames(table: CsvTable, row: Mapping[str, str]) -> tuple[int, int] | None:
    found = []
    for name in ("ED", "ES"):
        text = row[table.column(name) or name]
        if is_empty(text):
            continue
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (number >= 0 and number == int(number)):
            raise InputError(f"{name} is {text!r}; expected a frame number, counted from 0")
        found.append(int(number))
    return (found[0], found[1]) if len(found) == 2 and found[0] != found[1] else None


def _cases(
    folder: Path,
    partition: Partition,
    may_be_labelled: bool,
    row: _Row,
    notes: dict[str, list[str]],
    misplaced: list[_Misplaced],
) -> list[Case]:
    code = folder.name
    image = find_file(folder, f"{code}_sa") or folder / f"{code}_sa.nii.gz"
    label = find_file(folder, f"{code}_sa_gt") if may_be_labelled else None
    labelled = _labelled_frames(label, row.frames) if label is not None else None
    if labelled == []:
        notes["empty label"].append(code)
        label = None
    elif label is not None and row.frames is not None and labelled and labelled[0] not in row.frames:
        if not set(row.frames) <= set(labelled):
            misplaced.append(_Misplaced(code, label.name, row.frames, labelled))
    elif label is None and may_be_labelled:
        notes["no label"].append(code)

    def case(ending: str, frame: int | None, phase: str, label: Path | None) -> Case:
        groups = {**row.groups, "phase": phase} if phase else dict(row.groups)
        return Case(f"{code}{ending}", code, (image,), label, frame, phase, partition, groups, row.person)

    if row.frames is not None:
        ed, es = row.frames
        return [case("_ED", ed, "ED", label), case("_ES", es, "ES", label)]
    if label is not None:
        notes["no frames"].append(code)
    return unlabelled_frames(case("", None, "", None))


def _labelled_frames(label: Path, named: tuple[int, int] | None) -> list[int] | None:
    """The frames that hold labels; the first alone where it is one of those named, so that no file is read further than it must.

    None for a damaged file.
    """
    from utseg.rawdata.nifti import labelled_frames

    found = labelled_frames(label)
    try:
        first = [*islice(found, 1)]
        return first if named is None or set(first) & set(named) else [*first, *found]
    except InputError:
        return None  # the gate says so, with all other damaged files


def _frame_problems(misplaced: Sequence[_Misplaced]) -> Iterator[str]:
    """One line for a table that counts from 1, else one a subject."""
    texts = [
        f"labels lie on {frames_text(one.labelled)} of {one.label}, the table says ED {one.named[0]}, ES {one.named[1]}: "
        "frames are counted from 0"
        for one in misplaced
    ]
    if len(misplaced) > 1 and all(
        {frame - 1 for frame in one.named} <= set(one.labelled) for one in misplaced
    ):
        codes = listing([one.code for one in misplaced])
        yield f"{texts[0]}; subtract 1 from ED and ES, as for {len(misplaced)} subjects in all: {codes}"
        return
    for one, text in zip(misplaced, texts, strict=True):
        yield f"subject {one.code}: {text}; correct ED and ES"


def _warnings(table: CsvTable, notes: Mapping[str, list[str]]) -> Iterator[str]:
    texts = {
        "absent": "subjects in the CSV have no folder and are left out",
        "no row": "subject folders have no row in the CSV: unlabelled, every frame a case, no vendor or centre",
        "no label": "subjects have no _sa_gt file: unlabelled",
        "empty label": "subjects have a _sa_gt file without any label: unlabelled",
        "no frames": "labelled subjects have no ED and ES frame (empty, or the same) in the CSV: their labels are not used",
    }
    for key, text in texts.items():
        if codes := notes.get(key):
            yield f"{table.path.name}: {len(codes)} {text}: {listing(codes)}"
