"""`make_phantom`: writes the synthetic cohort in the native M&Ms layout or as DICOM, the same whatever the number of workers.

The design follows the published cohort: vendors A and B are labelled for training, C is there without labels, C and D come in the
validation and testing partitions beside A and B. Each subject depends on the seed and its own number only.
"""

import csv
import io
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

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
from utseg.phantom.dicom import TRUTH_FILE, truth, write_examination
from utseg.phantom.examination import UNLABELLED, Examination, PhantomSettings, Subject, write_subject
from utseg.progress import progress

logger = logging.getLogger(__name__)
FORMAT = "utseg-phantom-1"
STATE_FILE = "phantom.json"
TABLE_FILE = "dataset_information.csv"
README_FILE = "README.md"
LIMITS = {
    "subjects": (4, 999),
    "frames": (2, 100),
    "matrix": (40, 512),
    "slices": (4, 40),
    "seed": (0, 2**63 - 1),
}
PIXELS_FOR_A_POOL = 4_000_000

TRAINING, VALIDATION, TESTING = "Training/Labeled", "Validation", "Testing"
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
        partition, vendor = DESIGN[index % len(DESIGN)]
        turn = seen[vendor]
        seen[vendor] += 1
        pathology = PATHOLOGIES[(turn + "ABCD".index(vendor)) % len(PATHOLOGIES)]
        cohort.append(Subject(index, f"PH{index:03d}", partition, vendor, pathology, index % 5 in (0, 2, 3)))
    return cohort


def make_phantom(
    folder: Path, settings: PhantomSettings, *, workers: int | None = None
) -> Literal["made", "kept"]:
    """Writes a cohort into a new or empty folder; "kept" where this very cohort is there already, whole.

    A cohort of the same settings that is incomplete or damaged is completed. Raises InputError for a folder with anything else in it.
    """
    for name, (least, most) in LIMITS.items():
        value = getattr(settings, name)
        if value is not None and not least <= value <= most:
            raise InputError(f"phantom: {name} is {value}; expected {least} … {most}")
    require_writable(folder)
    with folder_lock(folder):
        recorded = _recorded_files(folder, settings)
        remove_leftovers(folder)

        def is_whole(name: str) -> bool:
            """There and, if its checksum is known, unchanged. Files appear whole, so one without a checksum counts as finished."""
            path = folder / name
            return path.is_file() and (name not in recorded or sha256(path) == recorded[name])

        def is_made(subject: Subject) -> bool:
            names = [*subject.files] if not settings.dicom else _of_examination(subject, recorded)
            return bool(names) and all(map(is_whole, names))

        cohort = design(settings.subjects)
        missing = [subject for subject in cohort if not is_made(subject)]
        if recorded and not missing and all(map(is_whole, recorded)):
            logger.info("%s: this phantom is there already, complete and unchanged; nothing to do", folder)
            return "kept"
        state: dict[str, Any] = {"format": FORMAT, "settings": asdict(settings)}
        write_json(folder / STATE_FILE, state | {"files": recorded})
        _make_subjects(folder, settings, missing, workers)
        drawn = [Examination(settings, subject) for subject in cohort]
        if settings.dicom:
            table, rows, what = TRUTH_FILE, [truth(one) for one in drawn], "readme_dicom.md"
            there = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
            made = [name for subject in cohort for name in _of_examination(subject, there)]
        else:
            table, rows, what = TABLE_FILE, [one.table_row() for one in drawn], "readme.md"
            made = [name for subject in cohort for name in subject.files]
        _write_table(folder / table, rows)
        readme = (files("utseg.phantom") / what).read_text(encoding="utf-8")
        write_text(folder / README_FILE, readme.format(**asdict(settings)))
        names = [README_FILE, table, *made]
        write_json(folder / STATE_FILE, state | {"files": {name: sha256(folder / name) for name in names}})
    return "made"


def _of_examination(subject: Subject, names: Iterable[str]) -> list[str]:
    """Those of the names that are files of this subject's DICOM export."""
    return [name for name in names if name.startswith(f"{subject.code}/")]


def _recorded_files(folder: Path, settings: PhantomSettings) -> dict[str, str]:
    """Checksums of the finished cohort in the folder, {} where there is none yet. Refuses a folder with other things in it."""
    state = folder / STATE_FILE
    if not state.is_file():
        others = sorted(
            entry.name for entry in folder.iterdir() if entry.name != ".lock" and not is_temporary(entry.name)
        )
        if others:
            some = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
            raise InputError(f"{folder}: not empty, and no phantom (found {some}); name a new folder")
        return {}
    found = read_json(state)
    if not isinstance(found, Mapping) or found.get("format") != FORMAT:
        raise InputError(f"{state}: no record of a phantom of this version ({FORMAT}); name a new folder")
    there = asdict(PhantomSettings()) | dict(found.get("settings") or {})
    differing = [
        f"{key} {there.get(key)} (wanted {value})"
        for key, value in asdict(settings).items()
        if there.get(key) != value
    ]
    if differing:
        raise InputError(
            f"{folder}: another phantom is there, with {', '.join(differing)}; name a new folder or the same settings"
        )
    return dict(found.get("files") or {})


def _make_subjects(
    folder: Path, settings: PhantomSettings, missing: list[Subject], workers: int | None
) -> None:
    pixels = len(missing) * settings.frames * (settings.slices or 12) * settings.matrix**2
    little = workers == 1 or pixels <= PIXELS_FOR_A_POOL  # starting processes would take longer
    pool: AbstractContextManager[Executor] = (
        nullcontext(InlineExecutor()) if little else process_pool(workers)
    )
    make = partial(write_examination if settings.dicom else write_subject, folder, settings)
    with pool as executor, progress("synthetic subjects", len(missing)) as advance:
        for outcome in run_each(make, missing, executor, name=lambda subject: subject.code, workers=workers):
            if outcome.error is not None:
                raise outcome.error
            advance()


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """A CSV of these rows, a column each key of the first."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
