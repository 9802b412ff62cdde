"""A part of the cases, so that several machines predict them: which cases it has, its record, and the record of all of them together.

Parts may share the output folder, at the same time too: each holds a lock of its own and writes `prediction.part-2-of-4.json`; the one
that sees all parts finished joins their records in `prediction.json`. Where each has a folder of its own, put their files together into
one: any run there with `--resume` finds all of them. Nothing is predicted here.
"""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import heapreplace
from pathlib import Path

from utseg.case import Case
from utseg.errors import FolderBusy, UsageError, UtsegError, listing
from utseg.files import folder_lock, remove_leftovers
from utseg.predict.record import (
    PREDICTION_FILE,
    PredictedCase,
    PredictionRecord,
    read_record,
    write_quality,
    write_record,
)
from utseg.rawdata.gate import frames_of

logger = logging.getLogger("utseg")
_PART_FILE = re.compile(r"prediction\.part-(\d+)-of-(\d+)\.json")
PATIENCE_S = 20.0
"""So long a part that begins waits for one that is just joining the records, which takes a moment."""


@dataclass(frozen=True, order=True)
class Part:
    """Part `number` of `count`, counted from 1."""

    count: int
    number: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UsageError(
                f"part {self.number} of {self.count}: parts are counted from 1 to how many there are, as in 2/4"
            )

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Part 2 of 4 of "2/4". Raises UsageError for anything else."""
        match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
        if match is None:
            raise UsageError(
                f"--part {text!r}: expected a part and how many there are, up to 9999, counted from 1, as in 2/4"
            )
        return cls(number=int(match[1]), count=int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def record_name(self) -> str:
        """Of its file in the folder of the masks."""
        return f"prediction.part-{self.number}-of-{self.count}.json"


def shares(cases: Sequence[Case], count: int) -> list[set[str]]:
    """The case ids of each part. The volumes (the frames of a cine) are spread evenly, whatever the order of the cases.

    The largest cases come first, each to the part with the fewest volumes so far. Only headers are read; a case whose header cannot be
    read counts as one volume.
    """
    volumes = {case.case_id: _volumes(case) for case in cases}
    parts: list[set[str]] = [set() for _ in range(count)]
    loads = [(0, index) for index in range(count)]
    for case_id in sorted(volumes, key=lambda each: (-volumes[each], each)):
        load, lightest = loads[0]
        parts[lightest].add(case_id)
        heapreplace(loads, (load + volumes[case_id], lightest))
    return parts


def _volumes(case: Case) -> int:
    try:
        return frames_of(case)
    except (UtsegError, OSError):  # which the gate reports where the case's turn comes
        return 1


@contextmanager
def folder_of_masks(
    output: Path, part: Part | None, folders: Sequence[Path], join: Callable[[], None]
) -> Iterator[None]:
    """Holds the folder of the masks: alone, or beside other parts; then `join` is called when it was given back without an error.

    folders: those in which killed runs may have left temporary files. Raises FolderBusy where another run, or the same part, is there.
    """
    if part is None:
        with folder_lock(output):
            for folder in folders:
                remove_leftovers(folder, recursive=False)
            yield
        return
    with folder_lock(output, f".lock-part-{part.number}-of-{part.count}"):
        with folder_lock(output, shared=True, patience_s=PATIENCE_S):
            yield
        join()


def recorded_cases(folder: Path, provenance: PredictionRecord) -> dict[str, PredictedCase]:
    """What all records in the folder say of masks that were made so, those of parts being the newer ones; the log names other records."""
    cases: dict[str, PredictedCase] = {}
    for path, record in _records(folder):
        if record.same_provenance(provenance):
            cases |= record.cases
        else:
            unlike = "by other models or settings"
            if record.differs_in_precision_only(provenance):
                unlike = f"{_in_precisions(record)}, not {_in_precisions(provenance)} (see --precision)"
            text = "%s: the masks that it lists were made %s; those that stay will be on no record"
            logger.warning(text, path, unlike)
    return cases


def _in_precisions(record: PredictionRecord) -> str:
    return f"in {' and '.join(dict.fromkeys(record.precisions))}"


def _records(folder: Path) -> list[tuple[Path, PredictionRecord]]:
    """Those of the whole and of parts, as far as they are readable."""
    found = [
        (path, read_record(folder, path.name)) for path in (folder / PREDICTION_FILE, *_part_files(folder))
    ]
    return [(path, record) for path, record in found if record is not None]


def _part_files(folder: Path) -> list[Path]:
    """The oldest first."""
    found = (path for path in folder.glob("prediction.part-*.json") if _PART_FILE.fullmatch(path.name))
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


def remove_part_records(folder: Path) -> None:
    """Once `prediction.json` says what they say. Call it only while holding the folder alone."""
    for path in _part_files(folder):
        path.unlink(missing_ok=True)


def join_parts(
    folder: Path, provenance: PredictionRecord, parts: Sequence[set[str]], folders: Sequence[Path]
) -> bool:
    """Writes `prediction.json` and `quality.csv` of all parts, if all have finished and nobody works there; says whether it did.

    parts: the case ids of each; one has finished where all of them are on record, as predicted or as failed, which the newest one says.
    folders: those in which killed runs may have left temporary files. Raises UtsegError where a file cannot be written.
    """
    try:
        with folder_lock(folder):
            for each in folders:
                remove_leftovers(each, recursive=False)
            records = [record for _, record in _records(folder) if record.same_provenance(provenance)]
            cases: dict[str, PredictedCase] = {}
            known: set[str] = set()
            for record in records:  # the oldest first
                failed = record.failed or ()
                cases = {name: each for name, each in cases.items() if name not in failed} | record.cases
                known |= {*record.cases, *failed}
            missing = [
                f"{number}/{len(parts)}" for number, ids in enumerate(parts, start=1) if not ids <= known
            ]
            if missing:
                text = "not all parts have finished in %s: %s; the last one writes %s"
                logger.info(text, folder, listing(missing), PREDICTION_FILE)
                _warn_of_unlike_precisions(folder, provenance)
                return False
            joined = provenance.model_copy(update={"cases": dict(sorted(cases.items()))})
            write_quality(joined.cases, joined.labels, folder)
            write_record(joined, folder)
            remove_part_records(folder)
    except FolderBusy:
        logger.info("other parts are at work in %s; the last one writes %s", folder, PREDICTION_FILE)
        return False
    text = "all %d parts have finished: %s lists %d masks"
    logger.info(text, len(parts), folder / PREDICTION_FILE, len(cases))
    return True


def _warn_of_unlike_precisions(folder: Path, provenance: PredictionRecord) -> None:
    """In the log: the finished parts that keep all from being joined, since a processor of another kind chose another precision."""
    unlike = [
        (path.name, record)
        for path, record in _records(folder)
        if path.name != PREDICTION_FILE and record.differs_in_precision_only(provenance)
    ]
    if unlike:
        text = "%s: %s computed %s, this part %s, and such parts are not joined; predict all parts with the same --precision"
        names, (_, first) = [name for name, _ in unlike], unlike[0]
        logger.warning(text, folder, listing(names), _in_precisions(first), _in_precisions(provenance))
