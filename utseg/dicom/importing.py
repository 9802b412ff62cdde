"""`import_dicom`: a folder as it comes from a scanner or a CD → cines, a table of them, and why everything else was left out."""

import csv
import io
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

from utseg.compute.pool import InlineExecutor, process_pool, run_all, run_each
from utseg.dicom.choice import Choice, choose_stack, without_stack
from utseg.dicom.cines import CineRow, write_cine
from utseg.dicom.headers import FileHeader, read_header
from utseg.dicom.pixels import DamagedPixels
from utseg.dicom.reading import Unreadable, find_files
from utseg.dicom.sources import CINES_FILE, LEFT_OUT_FILE
from utseg.dicom.stacks import Stack
from utseg.dicom.subjects import check_codes, check_codes_path, free_text, subject_codes, write_codes
from utseg.errors import CaseErrors, InputError, listing, number_of
from utseg.files import atomic_folder, require_no_broken_link, write_text
from utseg.home import FilePath

logger = logging.getLogger("utseg")
FILES_FOR_A_POOL = 400  # reading fewer takes less time than starting processes
FILES_A_TASK = 50
COPIES = "copies of files that are there already"
SAME_UID = (
    "has the UID of another image, of which series, place or time is another; the first by path is taken"
)
MOST_LOST, MOST_REASONS = 3, 10  # lines or names; of the rest the number is said


@dataclass(frozen=True)
class LeftOutRow:
    """A row of left_out.csv: files that are in no cine, and why. `study` is named as its cine would be, "" for damaged files."""

    study: str
    series: str
    description: str
    files: int
    why: str


@dataclass(frozen=True)
class ImportRecord:
    """What an import made. `notes`: what to know of each cine; `problems`: one line for each stack that was refused."""

    cines: tuple[CineRow, ...]
    left_out: tuple[LeftOutRow, ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """The files of a folder. `damaged`: the number of a file in the order of paths, from 1, and what is wrong.

    `copies` have the UID of one of `headers` and are the same image; `others_of_uid` have it and are another one.
    """

    files: int

    headers: list[FileHeader]
    others: int
    copies: list[FileHeader]
    others_of_uid: list[FileHeader]
    damaged: list[tuple[int, str]]


@dataclass(frozen=True)
class _Study:
    """`lost`: a line for each image whose pixels could not be read, which is none of `headers` any more by its `why`."""

    cine: str
    subject: str
    headers: tuple[FileHeader, ...]
    choice: Choice
    lost: tuple[str, ...] = ()

    def without(self, damaged: Mapping[Path, str]) -> "_Study":
        """What is chosen where these files are lost, as if they were not there."""
        lost = [f"{header}: {damaged[header.path]}" for header in self.headers if header.path in damaged]
        headers = tuple(
            replace(header, frames=(), why=f"damaged: {damaged[header.path]}")
            if header.path in damaged
            else header
            for header in self.headers
        )
        every, choice = (*self.lost, *lost), choose_stack(headers)
        words = listing(every, MOST_LOST)
        if choice.stack is not None:
            notes = (f"taken as lost, as their pixels cannot be read: {words}", *choice.notes)
            return replace(self, headers=headers, lost=every, choice=replace(choice, notes=notes))
        problems = choice.problems or ("no short-axis cine is left without",)
        problems = tuple(
            f"{words}: pixels that cannot be read are taken as lost; {problem}" for problem in problems
        )
        return replace(self, headers=headers, lost=every, choice=replace(choice, problems=problems))


def import_dicom(
    folder: FilePath, output: FilePath, *, codes: FilePath | None = None, workers: int | None = None
) -> ImportRecord:
    """Finds the short-axis cine of every study below `folder` and writes `output`/CINE.nii.gz, sources/CINE.json and the two tables.

    CINE is the code of the subject, S001; its second study is S001_2. `output` has to be new or empty. codes: a file for the map of
    codes and patient ids, which is written nowhere else. The log says what was found; nothing in it names a patient.
    Raises InputError where nothing is found, or a path does not do; a stack that is refused is in `problems`, and the others are written.
    """
    folder, output = require_no_broken_link(Path(folder)).absolute(), Path(output)
    _check_paths(folder, output)
    if codes is not None:
        check_codes_path(Path(codes), folder, output)
    files = find_files(folder)
    pool: AbstractContextManager[Executor] = (
        nullcontext(InlineExecutor())
        if workers == 1 or len(files) < FILES_FOR_A_POOL
        else process_pool(workers)
    )
    with pool as executor:
        found = _read_headers(files, executor, workers)
        if not found.headers:
            raise InputError(_nothing(folder, found))
        coded = subject_codes(found.headers)
        if codes is not None:
            check_codes(Path(codes), coded)
        studies = _choose(found.headers, coded)
        with atomic_folder(output) as temporary:
            studies, rows = _write_cines(temporary, studies, folder, executor, workers)
            problems = [f"{study.cine}: {problem}" for study in studies for problem in study.choice.problems]
            record = ImportRecord(
                tuple(rows), tuple(_left_out(studies, found)), _notes(studies, rows), tuple(problems)
            )
            if not rows:
                _log(found, record)
                raise CaseErrors(problems or [_no_cine(folder, record.left_out)])
            _write_table(temporary / CINES_FILE, CineRow, record.cines)
            _write_table(temporary / LEFT_OUT_FILE, LeftOutRow, record.left_out)
            if codes is not None:  # before the folder is there, or the same command would refuse it
                write_codes(Path(codes), coded)
    _log(found, record)
    return record


def _check_paths(folder: Path, output: Path) -> None:
    expected = "expected a folder with DICOM files, at any depth"
    if not folder.is_dir():
        found = "is a file; name the folder that it lies in" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {found}; {expected}")
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; name a new folder with -o")
    if output.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"{output}: lies in the DICOM folder {folder}; cines must not mix with what they are made of: choose another with -o"
        )
    if output.exists() and any(output.iterdir()):
        raise InputError(f"{output}: not empty; name a new folder, as codes of two imports would mix there")


def _read_headers(files: Sequence[Path], executor: Executor, workers: int | None) -> _Found:
    numbered = list(enumerate(files, 1))
    tasks = [tuple(numbered[start : start + FILES_A_TASK]) for start in range(0, len(files), FILES_A_TASK)]
    named = partial(
        run_all,
        _read_some,
        tasks,
        executor,
        f"DICOM headers, {FILES_A_TASK} files at a time",
        name=lambda task: f"files {task[0][0]} to {task[-1][0]} of {len(files)} by path",
    )
    unique: dict[str, FileHeader] = {}
    others, damaged = 0, []
    copies: list[FileHeader] = []
    others_of_uid: list[FileHeader] = []
    for number, result in (pair for results in named(workers=workers) for pair in results):
        if isinstance(result, str):
            damaged.append((number, result))
        elif result is None:
            others += 1
        elif (same := unique.setdefault(result.text("SOPInstanceUID"), result)) is not result:
            (copies if _what(result) == _what(same) else others_of_uid).append(result)
    return _Found(len(files), list(unique.values()), others, copies, others_of_uid, damaged)


def _what(header: FileHeader) -> tuple[object, ...]:
    """What two files of one image have in common: patient, series, and of each frame place and time."""
    places = [(frame.position, frame.trigger_ms) for frame in header.frames]
    return header.patient, header.text("StudyInstanceUID"), header.text("SeriesInstanceUID"), places


def _read_some(files: Sequence[tuple[int, Path]]) -> list[tuple[int, FileHeader | str | None]]:
    """Each file's number with its header, None where it is not DICOM, or what is wrong with it."""
    results: list[tuple[int, FileHeader | str | None]] = []
    for number, path in files:
        try:
            results.append((number, read_header(path)))
        except Unreadable as error:
            results.append((number, str(error)))
    return results


def _choose(headers: Iterable[FileHeader], codes: dict[str, str]) -> list[_Study]:
    """The studies of all subjects, each with what was found in it: by subject, then by date."""
    studies: dict[tuple[str, str], list[FileHeader]] = defaultdict(list)
    for header in headers:
        studies[codes[header.patient], header.text("StudyInstanceUID")].append(header)
    dated = sorted(studies, key=lambda key: (key[0], *_when(studies[key]), key[1]))
    seen: Counter[str] = Counter()
    chosen = []
    for key in dated:
        subject = key[0]
        seen[subject] += 1
        cine = subject if seen[subject] == 1 else f"{subject}_{seen[subject]}"
        chosen.append(_Study(cine, subject, tuple(studies[key]), choose_stack(studies[key])))
    return chosen


def _when(headers: Sequence[FileHeader]) -> tuple[str, str]:
    return min((header.text("StudyDate"), header.text("StudyTime")) for header in headers)


def _write_cines(
    folder: Path, studies: Sequence[_Study], root: Path, executor: Executor, workers: int | None
) -> tuple[list[_Study], list[CineRow]]:
    """Rows of the cines that could be written, and the studies with what became of them.

    Where pixels cannot be read, the study is chosen from anew without their files, until the pixels of all that is chosen can be.
    """
    known = {study.cine: study for study in studies}
    rows, left = [], list(known)
    while left:
        tasks = [
            (name, study.subject, study.choice.stack)
            for name in left
            if (study := known[name]).choice.stack is not None
        ]
        left = []
        for outcome in run_each(
            partial(_write_one, folder, root),
            tasks,
            # One cine needs no other process, to which its headers would have to be sent.
            executor if len(tasks) > 1 else InlineExecutor(),
            name=lambda task: task[0],
            workers=workers,
        ):
            name = outcome.item[0]
            if isinstance(outcome.error, DamagedPixels):
                known[name] = known[name].without(outcome.error.damaged)
                left.append(name)
            elif outcome.error is not None:
                choice = without_stack(known[name].choice, outcome.error.lines())
                known[name] = replace(known[name], choice=choice)
            elif outcome.result is not None:
                rows.append(outcome.result)
    return list(known.values()), sorted(rows, key=lambda row: row.cine)


def _write_one(folder: Path, root: Path, task: tuple[str, str, Stack]) -> CineRow:
    cine, subject, stack = task
    return write_cine(folder, cine, subject, stack, root)


def _left_out(studies: Sequence[_Study], found: _Found) -> list[LeftOutRow]:
    rows = [
        _left_out_row(study.cine, left.header, left.files, left.why)
        for study in studies
        for left in study.choice.left_out
    ]
    cines = {
        (header.patient, header.text("StudyInstanceUID")): study.cine
        for study in studies
        for header in study.headers
    }
    for headers, why in ((found.copies, COPIES), (found.others_of_uid, SAME_UID)):
        series: dict[tuple[str, str], list[FileHeader]] = defaultdict(list)
        for header in headers:
            series[header.patient, header.text("SeriesInstanceUID")].append(header)
        for (patient, _), (first, *more) in series.items():
            cine = cines.get((patient, first.text("StudyInstanceUID")), "")
            rows.append(_left_out_row(cine, first, 1 + len(more), why))
    reasons = Counter(why for _, why in found.damaged)
    rows += [LeftOutRow("", "", "", files, f"damaged: {why}") for why, files in reasons.items()]
    return rows


def _left_out_row(cine: str, header: FileHeader, files: int, why: str) -> LeftOutRow:
    series = f"{header.numbers['SeriesNumber']:g}" if "SeriesNumber" in header.numbers else ""
    return LeftOutRow(cine, series, free_text(header.text("SeriesDescription"), header), files, why)


def _notes(studies: Sequence[_Study], rows: Sequence[CineRow]) -> tuple[str, ...]:
    written = {row.cine for row in rows}
    return tuple(
        f"{study.cine}: {note}" for study in studies if study.cine in written for note in study.choice.notes
    )


def _nothing(folder: Path, found: _Found) -> str:
    if found.damaged:
        return f"{folder}: none of {number_of(len(found.damaged), 'DICOM file')} could be read ({_first_damaged(found)})"
    files = number_of(found.files, "file")
    return f"{folder}: no DICOM file among {files}; expected a folder with DICOM files, at any depth"


def _first_damaged(found: _Found) -> str:
    """Which file it is by its number, as paths name patients, and what is wrong with it."""
    number, why = found.damaged[0]
    return f"first: file {number} of {found.files} by path: {why}"


def _no_cine(folder: Path, left_out: Sequence[LeftOutRow]) -> str:
    reasons = Counter[str]()
    for row in left_out:
        reasons[row.why] += row.files
    listed = "; ".join(f"{number_of(files, 'file')}: {why}" for why, files in reasons.most_common(3))
    return f"{folder}: no short-axis cine is there ({listed})"


def _log(found: _Found, record: ImportRecord) -> None:
    if found.damaged:
        logger.warning(
            "%s left out, damaged (%s)", number_of(len(found.damaged), "file"), _first_damaged(found)
        )
    if found.others_of_uid:
        files = number_of(len(found.others_of_uid), "file")
        logger.warning("%s left out: %s", files, SAME_UID)
    for note in record.notes:
        logger.warning("%s", note)
    for row in record.cines:
        size = f"{row.slices} slices × {row.frames} frames of {row.columns} × {row.rows}"
        spacing = f"{row.spacing_x_mm:.4g} × {row.spacing_y_mm:.4g} × {row.slice_distance_mm:.4g} mm"
        logger.info(
            "%s: %s, %s, %s", row.cine, size, spacing, " ".join(filter(None, (row.vendor, row.model)))
        )
    if not record.cines:
        _log_reasons(record.left_out)
        return
    series = sum(1 for row in record.left_out if row.study)
    logger.info(
        "%s of %s; left out: %s (%s has the reasons), %s",
        number_of(len(record.cines), "cine"),
        number_of(len(found.headers) + len(found.copies) + len(found.others_of_uid), "DICOM file"),
        f"{series} series or parts of one",
        LEFT_OUT_FILE,
        number_of(found.others, "other file"),
    )


def _log_reasons(left_out: Sequence[LeftOutRow]) -> None:
    """Why nothing came out, as there is no folder that a table could lie in."""
    reasons = Counter[tuple[str, str]]()
    for row in left_out:
        reasons[row.description, row.why] += row.files
    for (description, why), files in reasons.most_common(MOST_REASONS):
        logger.warning("%s left out (%s): %s", number_of(files, "file"), description or "no description", why)
    if len(reasons) > MOST_REASONS:
        logger.warning("and %s more", number_of(len(reasons) - MOST_REASONS, "reason"))


def _write_table(
    path: Path, kind: type[CineRow] | type[LeftOutRow], rows: Sequence[CineRow | LeftOutRow]
) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(kind)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: "" if value is None else value for name, value in asdict(row).items()} for row in rows
    )
    write_text(path, text.getvalue())
