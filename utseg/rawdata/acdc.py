"""The native ACDC layout: a folder a patient, with `Info.cfg`, a 3-D file for each of the frames ED and ES, and the 4-D cine.

Patients lie in `training` and `testing`, or directly in the folder. They give two cases, patientNNN_ED and patientNNN_ES; a patient with
the cine alone gives an unlabelled case a frame. `Info.cfg` counts frames from 1, as the file names do. No pixel is checked here.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from utseg.case import Case, Dataset, Partition
from utseg.errors import CaseErrors, InputError, listing
from utseg.files import require_no_broken_link
from utseg.label_map import Labels
from utseg.rawdata.cine import CHANNEL_NAMES, find_file, unlabelled_frames
from utseg.rawdata.names import NIFTI_ENDINGS, name_problems

LABELS: Labels = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
PARTITIONS: Mapping[str, Partition] = {"training": "training", "testing": "testing"}
INFO_FILE = "Info.cfg"
INFO_EXPECTED = "expected lines such as ED: 1, ES: 12 (frames, counted from 1) and Group: DCM"
NESTED = "database"
"""The level above `training` in the archive that the challenge hands out."""
PATIENT = re.compile(r"patient\d+")
PHASES = ("ED", "ES")
PERSON = {"height_cm": "height", "weight_kg": "weight"}
"""What a case says of the person, and the keys of `Info.cfg`."""


def looks_like(folder: Path) -> bool:
    """Whether a folder has patients of this layout, or `training` or `testing` with such."""
    return any(_patients(part) for part, _ in _partitions(folder))


def root_of(folder: Path) -> Path | None:
    """The dataset in this layout that a folder is, or whose `training`, `testing` or patient it is; None for any other folder."""
    top = folder.parent if is_patient(folder) else folder
    if top.name in PARTITIONS and _patients(top):
        top = top.parent
    if top.name == NESTED and looks_like(top):
        top = top.parent
    return top if looks_like(top) else None


def is_patient(folder: Path) -> bool:
    """Whether a folder is a patient's: it has `Info.cfg`, or is called patientNNN and has frames or the cine of that name."""
    if _is_there(folder / INFO_FILE):
        return True
    if PATIENT.fullmatch(folder.name) is None or not folder.is_dir():
        return False
    return find_file(folder, f"{folder.name}_4d") is not None or any(
        folder.glob(f"{folder.name}_frame*.nii*")
    )


def open_acdc(folder: Path, name: str) -> Dataset:
    """Reads a folder in this layout. Raises CaseErrors with a line for every patient whose `Info.cfg` or frames are wrong or missing."""
    cases: list[Case] = []
    problems: list[str] = []
    notes: dict[str, list[str]] = defaultdict(list)
    for part in PARTITIONS:
        require_no_broken_link(_root(folder) / part)
    for top, partition in _partitions(folder):
        for patient in _patients(top):
            try:
                cases += _cases(patient, partition, notes)
            except InputError as error:
                problems.append(str(error))
    problems += [
        f"{folder}: {problem}" for problem in name_problems((case.case_id for case in cases), "case")
    ]
    if problems:
        raise CaseErrors(problems)
    return Dataset(name, folder, "acdc", CHANNEL_NAMES, LABELS, tuple(cases), tuple(_warnings(folder, notes)))


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _root(folder: Path) -> Path:
    return folder / NESTED if (folder / NESTED).is_dir() else folder


def _partitions(folder: Path) -> list[tuple[Path, Partition]]:
    root = _root(folder)
    partitions = [(root / name, partition) for name, partition in PARTITIONS.items()]
    return [(part, name) for part, name in partitions if part.is_dir()] or [(root, "training")]


def _patients(folder: Path) -> list[Path]:
    """The patients' folders; where there is one, also folders that are called like one and lack what makes one."""
    if not folder.is_dir():
        return []
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    if not any(is_patient(entry) for entry in entries):
        return []
    return [entry for entry in entries if PATIENT.fullmatch(entry.name) or is_patient(entry)]


def _cases(folder: Path, partition: Partition, notes: dict[str, list[str]]) -> list[Case]:
    """The cases of a patient. Raises InputError that names the file, what was expected and what was found."""
    name = require_no_broken_link(folder).name
    images, labels = _frames(folder, ""), _frames(folder, "_gt")
    cine = find_file(folder, f"{name}_4d")
    about = folder / INFO_FILE
    info = _read_info(about) if _is_there(about) else None
    groups = {"pathology": info.get("group", "")} if info is not None else {}
    person = {key: info[said] for key, said in PERSON.items() if said in info} if info is not None else {}
    if cine is not None and not images and not labels:
        if partition == "training":
            notes["cine alone"].append(name)
        return unlabelled_frames(Case(name, name, (cine,), partition=partition, groups=groups, person=person))
    if info is None:
        raise InputError(f"{about}: not found; {INFO_EXPECTED}; found {_there(folder)}")
    numbers = {phase: _frame_number(about, info, phase) for phase in PHASES}
    if numbers["ED"] == numbers["ES"]:
        raise InputError(f"{about}: ED and ES are both frame {numbers['ED']}; expected two frames")
    cases = []
    for phase, number in numbers.items():
        if number not in images:
            raise InputError(
                f"{folder / f'{name}_frame{number:02d}{NIFTI_ENDINGS[0]}'}: not found, but {INFO_FILE} says {phase}: {number} "
                f"(counted from 1); found {_there(folder)}"
            )
        label = labels.get(number)
        if label is None and partition == "training":
            notes["no label"].append(f"{name}_{phase}")
        case_groups = {**groups, "phase": phase}
        cases.append(
            Case(
                f"{name}_{phase}", name, (images[number],), label, None, phase, partition, case_groups, person
            )
        )
    if set(images) | set(labels) > set(numbers.values()):
        notes["other frames"].append(name)
    return cases


def _frames(folder: Path, suffix: str) -> dict[int, Path]:
    """The files NAME_frameXX and a suffix, by their number. Raises InputError where two have one."""
    pattern = re.compile(
        rf"{re.escape(folder.name)}_frame(\d+){suffix}(?:{'|'.join(map(re.escape, NIFTI_ENDINGS))})"
    )
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = pattern.fullmatch(path.name)
        if match and int(match[1]) in found:
            raise InputError(f"{folder}: {found[int(match[1])].name} and {path.name}: keep one of them")
        if match:
            found[int(match[1])] = path
    return found


def _read_info(path: Path) -> dict[str, str]:
    """The values of `Info.cfg` by their keys in lower case. Raises InputError."""
    try:
        lines = require_no_broken_link(path).read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: could not be read ({error.strerror or error})") from None
    pairs = [line.partition(":") for line in lines if ":" in line]
    return {key.strip().casefold(): value.strip() for key, _, value in pairs}


def _frame_number(path: Path, info: Mapping[str, str], phase: str) -> int:
    text = info.get(phase.casefold())
    if text is None:
        raise InputError(f"{path}: no line {phase}: …; {INFO_EXPECTED}; found {', '.join(info) or 'nothing'}")
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{path}: {phase} is {text!r}; expected a frame number, counted from 1")
    return int(text)


def _there(folder: Path) -> str:
    names = [entry.name for entry in sorted(folder.iterdir())] if folder.is_dir() else []
    return listing(names) if names else "nothing"


def _warnings(folder: Path, notes: Mapping[str, list[str]]) -> Iterator[str]:
    texts = {
        "cine alone": "training patients have the 4-D file alone: unlabelled, every frame a case",
        "no label": "training cases have no _gt file: unlabelled",
        "other frames": f"patients have frames that {INFO_FILE} does not name as ED or ES; they are left out",
    }
    for key, text in texts.items():
        if names := notes.get(key):
            yield f"{folder}: {len(names)} {text}: {listing(names)}"
