"""SHA-256 of the raw files of cases, kept between studies, and the proof by it that no image is on two sides of a run.

A file whose size and time of change are those on record is not read again. Checksums are by content: a dataset may be moved or renamed.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from utseg.case import Case
from utseg.errors import InputError, UtsegError
from utseg.files import read_json, sha256, write_json
from utseg.parallel import available_cores
from utseg.progress import progress

CHECKSUMS_FILE = "checksums.json"
Stamp = list[int]
Entry = tuple[str, Stamp]


class Checksums:
    """The checksums of files, in a file of their own; `folder` is None where nothing is to be written."""

    def __init__(self, folder: Path, *, keep: bool = True) -> None:
        self._file = folder / CHECKSUMS_FILE
        self._keep = keep
        self._known: dict[str, Entry] = {}
        if self._file.is_file():
            try:
                self._known = {
                    str(path): (str(checksum), list(stamp))
                    for path, (checksum, stamp) in read_json(self._file).items()
                }
            except (UtsegError, AttributeError, TypeError, ValueError):
                self._known = {}  # a damaged record costs reading the files again

    def learn(self, cases: Iterable[Case]) -> None:
        """Reads the files of the cases that are not known, or have changed. Raises InputError that names a file that cannot be read."""
        paths = sorted({path for case in cases for path in case.files})
        unknown = [path for path in paths if not self._is_known(path)]
        if not unknown:
            return
        with (
            progress("checksums of scans", len(unknown)) as advance,
            ThreadPoolExecutor(available_cores()) as pool,
        ):
            for path, entry in zip(unknown, pool.map(_entry, unknown), strict=True):
                self._known[str(path)] = entry
                advance()
        if self._keep:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._file, self._known)

    def of(self, case: Case) -> list[str]:
        """The checksums of the case's files, images first."""
        return [self._known[str(path)][0] for path in case.files]

    def identity(self, cases: Iterable[Case]) -> dict[str, list[str]]:
        """By case id: what the cases are, wherever they lie."""
        return {
            case.case_id: [*self.of(case), case.subject, "" if case.frame is None else str(case.frame)]
            for case in cases
        }

    def _is_known(self, path: Path) -> bool:
        entry = self._known.get(str(path))
        try:
            return entry is not None and entry[1] == _stamp(path)
        except OSError:
            return False

    def check_apart(self, sides: Mapping[str, Sequence[Case]], where: str) -> None:
        """Raises InputError that names two cases with the same image on different sides, whatever they and their datasets are called."""
        held: dict[str, tuple[str, str]] = {}
        for side, cases in sides.items():
            for case in cases:
                for checksum in self.of(case)[: len(case.images)]:
                    other_side, other = held.setdefault(checksum, (side, case.case_id))
                    if other_side != side:
                        raise InputError(
                            f"{where}: case {case.case_id} ({side}) is the same image as case {other} ({other_side}); "
                            "scores would be of what was seen: remove one of them"
                        )


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _entry(path: Path) -> Entry:
    try:
        stamp = _stamp(path)
        return sha256(path), stamp
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
