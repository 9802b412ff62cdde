"""`make_phantom`: writes the synthetic cohort in the native M&Ms layout, subject by subject, the same whatever the number of workers.

The design follows the published cohort: vendors A and B are labelled for training, C is there without labels, C and D come in the
validation and testing partitions beside A and B. Each subject depends on the seed and its own number only.
"""

import csv
import io
import logging
from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal

from utseg.compute.pool import InlineExecutor, process_pool, run_each
from utseg.errors import InputError
from utseg.files import (
    folder_lock,
    is_temporary,
    read_json,
    remove_leftovers,
    require_writable,
    sha256,
    write_json,
    write_text,
)
from utseg.phantom.anatomy import PATHOLOGIES
from utseg.phantom.examination import (
    PhantomSettings,
    Subject,
    draw_examination,
    write_subject,
)
from utseg.phantom.readme import README
from utseg.progress import progress

logger = logging.getLogger(__name__)
FORMAT = "utseg-phantom-1"
STATE_FILE = "phantom.json"
TABLE_FILE = "dataset_information.csv"
README_FILE = "README.md"
COLUMNS = (
    "External code",
    "VendorName",
    "Vendor",
    "Centre",
    "Pathology",
    "Age",
    "Sex",
    "Height",
    "Weight",
    "ED",
    "ES",
)
PIXELS_FOR_A_POOL = 4_000_000

TRAINING, UNLABELLED, VALIDATION, TESTING = "Training/Labeled", "Training/Unlabeled", "Validation", "Testing"
# Repeated for larger cohorts. The order makes even four subjects a cohort of four vendors, two of them unseen.
DESIGN: tuple[tuple[str, str], ...] = (
    (TRAINING, "A"), (TRAINING, "B"), (TESTING, "C"), (TESTING, "D"), (TESTING, "A"), (TESTING, "B"),
    (TRAINING, "A"), (TRAINING, "B"), (TRAINING, "A"), (TRAINING, "B"), (UNLABELLED, "C"), (VALIDATION, "D"),
    (TRAINING, "A"), (TRAINING, "B"), (TESTING, "C"), (TESTING, "D"), (TRAINING, "A"), (TRAINING, "B"),
    (TESTING, "A"), (TESTING, "B"), (TRAINING, "A"), (TRAINING, "B"), (VALIDATION, "C"), (VALIDATION, "A"),
)  # fmt: skip


def design(subjects: int) -> list[Subject]:
    """Who is in the cohort: partition, vendor and pathology of each subject. Depends on the number only."""
    seen = dict.fromkeys("ABCD", 0)
    cohort = []
    for index in range(subjects):
        place, vendor = DESIGN[index % len(DESIGN)]
        turn = seen[vendor]
        seen[vendor] += 1
        pathology = PATHOLOGIES[(turn + "ABCD".index(vendor)) % len(PATHOLOGIES)]
        cohort.append(Subject(index, f"PH{index:03d}", place, vendor, pathology, index % 5 in (0, 2, 3)))
    return cohort


def make_phantom(
    folder: Path,
    *,
    subjects: int = 24,
    frames: int = 10,
    matrix: int = 192,
    slices: int | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> Literal["made", "kept"]:
    """Writes a cohort into a new or empty folder; "kept" where this very cohort is there already, whole.

    A cohort of the same settings that is incomplete or damaged is completed. Raises InputError for a folder with anything else in it.
    """
    settings = PhantomSettings(subjects, frames, matrix, slices, seed)
    _check(settings)
    require_writable(folder)
    with folder_lock(folder):
        recorded = _recorded_files(folder, settings)
        remove_leftovers(folder)
        cohort = design(subjects)
        missing = [
            subject
            for subject in cohort
            if not all(_is_whole(folder, name, recorded) for name in subject.files)
        ]
        if recorded and not missing and all(_is_whole(folder, name, recorded) for name in recorded):
            logger.info("%s: this phantom is there already, complete and unchanged; nothing to do", folder)
            return "kept"
        write_json(folder / STATE_FILE, {"format": FORMAT, "settings": settings.to_json(), "files": recorded})
        _make_subjects(folder, settings, missing, workers)
        _write_table(folder / TABLE_FILE, cohort, settings)
        write_text(folder / README_FILE, README.format(**settings.to_json()))
        names = [README_FILE, TABLE_FILE, *(name for subject in cohort for name in subject.files)]
        files = {name: sha256(folder / name) for name in names}
        write_json(folder / STATE_FILE, {"format": FORMAT, "settings": settings.to_json(), "files": files})
    return "made"


def _check(settings: PhantomSettings) -> None:
    limits = (
        ("subjects", settings.subjects, 4, 999),
        ("frames", settings.frames, 2, 100),
        ("matrix", settings.matrix, 40, 512),
        ("slices", settings.slices, 4, 40),
        ("seed", settings.seed, 0, 2**63 - 1),
    )
    for name, value, least, most in limits:
        if value is not None and not least <= value <= most:
            raise InputError(f"phantom: {name} is {value}; expected {least} … {most}")


def _recorded_files(folder: Path, settings: PhantomSettings) -> dict[str, str]:
    """Checksums of the finished cohort in the folder, {} where there is none yet. Refuses a folder with other things in it."""
    state = folder / STATE_FILE
    if not state.is_file():
        others = sorted(
            entry.name for entry in folder.iterdir() if entry.name != ".lock" and not is_temporary(entry.name)
        )
        if others:
            raise InputError(
                f"{folder}: not empty, and no phantom (found {', '.join(others[:3])}{', …' if len(others) > 3 else ''}); "
                "name a new folder"
            )
        return {}
    found = read_json(state)
    if not isinstance(found, Mapping) or found.get("format") != FORMAT:
        raise InputError(
            f"{state}: not the record of a phantom of this version ({FORMAT}); name a new folder"
        )
    wanted, there = settings.to_json(), dict(found.get("settings") or {})
    differing = [
        f"{key} {there.get(key)} (wanted {value})" for key, value in wanted.items() if there.get(key) != value
    ]
    if differing:
        raise InputError(
            f"{folder}: another phantom is there, with {', '.join(differing)}; name a new folder or the same settings"
        )
    return dict(found.get("files") or {})


def _is_whole(folder: Path, name: str, recorded: Mapping[str, str]) -> bool:
    """Whether a file is there and, if its checksum is known, unchanged. Files appear whole, so one without checksum counts as finished."""
    path = folder / name
    return path.is_file() and (name not in recorded or sha256(path) == recorded[name])


def _make_subjects(
    folder: Path, settings: PhantomSettings, missing: list[Subject], workers: int | None
) -> None:
    """Little work is done in this process: starting others would take longer."""
    pixels = len(missing) * settings.frames * (settings.slices or 12) * settings.matrix**2
    pool: AbstractContextManager[Executor] = (
        process_pool(workers)
        if pixels > PIXELS_FOR_A_POOL and workers != 1
        else nullcontext(InlineExecutor())
    )
    make = partial(write_subject, folder, settings)
    with pool as executor, progress("synthetic subjects", len(missing)) as advance:
        for outcome in run_each(make, missing, executor, name=lambda subject: subject.code, workers=workers):
            if outcome.error is not None:
                raise outcome.error
            advance()


def _write_table(path: Path, cohort: list[Subject], settings: PhantomSettings) -> None:
    """The CSV with the columns of the published one, the first (the row's number) without a name."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *COLUMNS])
    for subject in cohort:
        row = draw_examination(settings, subject).table_row()
        writer.writerow([subject.index, *(row[column] for column in COLUMNS)])
    write_text(path, text.getvalue())
