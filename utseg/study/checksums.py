"""Checksums of raw files, voxels and the code that trains; refuses a scan that is both trained on and tested.

A file whose size and time of change are those on record is not read again. Checksums are by content: a dataset may be moved or renamed.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from utseg.case import Case
from utseg.compute.pool import available_cores, run_each
from utseg.errors import CaseErrors, InputError, UtsegError
from utseg.files import read_json, sha256, sha256_json, stamp, write_json
from utseg.fingerprint.same_scan import same_subjects
from utseg.progress import progress

CHECKSUMS_FILE = "checksums.json"
OUR_PACKAGE = "utseg"
Stamp = list[int]
Voxels = dict[str, str]
"""Checksum of the voxels of each frame that was read; the key of a file without frames is empty."""
Entry = tuple[str, Stamp, Voxels]


class Checksums:
    """The checksums of files, in a file of their own; `folder` is None where nothing is to be written."""

    def __init__(self, folder: Path, *, keep: bool = True) -> None:
        self._file = folder / CHECKSUMS_FILE
        self._keep = keep
        self._known: dict[str, Entry] = {}
        if self._file.is_file():
            try:
                self._known = {
                    str(path): (str(checksum), list(stamp), dict(voxels))
                    for path, (checksum, stamp, voxels) in read_json(self._file).items()
                }
            except (UtsegError, AttributeError, TypeError, ValueError):
                self._known = {}  # a damaged record costs reading the files again

    def learn(self, cases: Iterable[Case]) -> None:
        """Reads the files of the cases that are not known, or have changed. Raises CaseErrors that name those that cannot be read."""
        frames: dict[Path, set[int | None]] = {}
        for case in cases:
            for path in case.files:
                frames.setdefault(path, set()).update({case.frame} if path in case.images else ())
        unknown = sorted(path for path, wanted in frames.items() if not self._is_known(path, wanted))
        if not unknown:
            return
        problems: list[str] = []
        with (
            progress("checksums of scans", len(unknown)) as advance,
            ThreadPoolExecutor(available_cores()) as pool,
        ):
            for each in run_each(lambda path: _entry(path, frames[path]), unknown, pool):
                if each.result is not None:
                    self._known[str(each.item)] = each.result
                elif each.error is not None:
                    problems += each.error.lines()
                advance()
        if self._keep:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._file, dict(sorted(self._known.items())))
        if problems:
            raise CaseErrors(sorted(problems))

    def of(self, case: Case) -> list[str]:
        """The checksums of the case's files, images first."""
        return [self._known[str(path)][0] for path in case.files]

    def scans(self, case: Case) -> list[str]:
        """Checksums that only the same scan has too: of the voxels, and of the image files (a cine holds other frames)."""
        known = [self._known[str(path)] for path in case.images]
        return [
            *(voxels[_key(case.frame)] for _, _, voxels in known),
            *(checksum for checksum, _, _ in known),
        ]

    def same(self, cases: Iterable[Case]) -> dict[str, str]:
        """The subjects of these cases that share a scan, as `same_scans` says it."""
        return same_subjects((case.subject, self.scans(case)) for case in cases)

    def identity(self, cases: Iterable[Case]) -> dict[str, list[str]]:
        """By case id: what the cases are, wherever they lie."""
        return {
            case.case_id: [*self.of(case), case.subject, "" if case.frame is None else str(case.frame)]
            for case in cases
        }

    def _is_known(self, path: Path, frames: Iterable[int | None]) -> bool:
        entry = self._known.get(str(path))
        try:
            if entry is None or entry[1] != list(stamp(path)):
                return False
            return all(_key(frame) in entry[2] for frame in frames)
        except OSError:
            return False

    def check_sides(self, sides: Mapping[str, Sequence[Case]], where: str) -> None:
        """Raises InputError that names two cases of the same scan on different sides, whatever they and their datasets are called."""
        held: dict[str, tuple[str, str]] = {}
        for side, cases in sides.items():
            for case in cases:
                for checksum in self.scans(case):
                    other_side, other = held.setdefault(checksum, (side, case.case_id))
                    if other_side != side:
                        raise InputError(
                            f"{where}: case {case.case_id} ({side}) is the same scan as case {other} ({other_side}); "
                            "scores would be of what was seen: remove one of them"
                        )


def _key(frame: int | None) -> str:
    return "" if frame is None else str(frame)


def _entry(path: Path, frames: Iterable[int | None]) -> Entry:
    from utseg.rawdata.gate import read_first_channel
    from utseg.rawdata.voxels import voxels_sha256

    try:
        found = list(stamp(path))
        voxels = {_key(frame): voxels_sha256(read_first_channel(path, frame)[0][None])[0] for frame in frames}
        return sha256(path), found, voxels
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def code_sha256(thing: Any) -> str:
    """Of the file of a class or function, and of the files of its own package that it imports (of ours: of its own room)."""
    return _code_sha256(thing.__module__)


@cache
def _code_sha256(module: str) -> str:
    package, _, rest = module.partition(".")
    if package == OUR_PACKAGE:
        package = f"{package}.{rest.partition('.')[0]}"
    sources: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        spec = _spec(name) if name == package or name.startswith(f"{package}.") else None
        if name in sources or spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            continue
        sources[name] = Path(spec.origin).read_text(encoding="utf-8")
        waiting += _imported(sources[name], spec)
    return sha256_json(sources)


def _spec(name: str) -> ModuleSpec | None:
    try:
        return find_spec(name)
    except ModuleNotFoundError:  # what is imported from a module is no module of it
        return None


def _imported(source: str, importer: ModuleSpec) -> Iterator[str]:
    """The names of modules that a file imports, and of what it imports from them, which may be modules too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), importer.parent)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
