"""The one way to write a file: to a temporary name in the same folder, synced, renamed. And checksums, JSON, and a lock for a folder.

A reader therefore sees the old artefact or the new one, whole, whatever happens to the writer. SimpleITK and others do not report a full
disk, so their output is made as bytes or checked before the rename.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import struct
import sys
import tempfile
import time
import tokenize
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from utseg.errors import ArtefactError, FolderBusy, InputError, UtsegError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

SECONDS_BETWEEN_TRIES = 0.05
LEFT_AFTER_S = 60.0  # a temporary file that did not change for so long was left by a process that was killed
HELD_BY_OTHERS = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)
LOCKED_BYTE = 1 << 30  # on Windows, where nobody else can read what is locked
DAMAGED_ARRAYS = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError),
    *(SyntaxError, tokenize.TokenError, struct.error, zlib.error, zipfile.BadZipFile),
)
"""What zipfile and numpy raise for damaged and hostile .npz files: numpy reads an array's header as Python."""
_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{12}-")


@contextmanager
def atomic_path(path: Path, check: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """Yields a temporary path in the same folder, with the same suffixes; on leaving it is checked, synced and renamed to `path`.

    On any error the temporary file is removed and the old file stays as it was. A failing disk is reported as a UtsegError naming the file.
    """
    temporary = _temporary_for(path)
    try:
        yield temporary
        if check is not None:
            check(temporary)
        with temporary.open("r+b") as handle:  # Windows syncs only what may be written
            os.fsync(handle.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise UtsegError(
            f"{path}: could not be written ({error.strerror or error}); the previous file, if any, is untouched"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return  # which cannot open a folder
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary_for(path: Path) -> Path:
    """A new temporary path for `path`. Those that killed writers of it left beside it are removed."""
    for left in _left_in(path.parent).pop(path.name, ()):
        with suppress(OSError):  # another user's, in a shared folder
            _remove(left)
    return path.with_name(f".tmp-{uuid.uuid4().hex[:12]}-{path.name}")


@cache
def _left_in(folder: Path) -> dict[str, list[Path]]:
    """Temporary files and folders by what they were to become, looked up once: what changed lately may be of a process that is at work."""
    left: dict[str, list[Path]] = {}
    with suppress(OSError):
        for entry in os.scandir(folder):
            if is_temporary(entry.name) and entry.stat().st_mtime < time.time() - LEFT_AFTER_S:
                left.setdefault(_TEMPORARY.sub("", entry.name), []).append(Path(entry))
    return left


def _remove(leftover: Path) -> None:
    if leftover.is_dir() and not leftover.is_symlink():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        leftover.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a new temporary folder beside `path`; on leaving it takes the place of `path`, whole.

    On any error it is removed and the old folder stays as it was. A failing disk is reported as a UtsegError naming the file.
    Its many files are not synced one by one, which can take longer than making them: put checksums beside them, so that what a power
    cut takes away is noticed.
    """
    temporary = _temporary_for(path)
    replaced = path.with_name(f".tmp-{uuid.uuid4().hex[:12]}-{path.name}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            path.rename(replaced)
        temporary.rename(path)
    except OSError as error:
        raise UtsegError(
            f"{error.filename or path}: could not be written ({error.strerror or error}); {path} is as it was before"
        ) from error
    finally:
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` for what is needed to write it. It goes in the end, where that is a kill with the next that writes `path`."""
    folder = _temporary_for(path)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_together(texts: Mapping[Path, str | None], last: Sequence[Path]) -> None:
    """Replaces files that are one result: what cannot all be written leaves all as they were. None removes a file.

    last: the files without which nobody takes the others for a result. They go before the first file is replaced and come, in this order,
    after all others, so that whoever is killed in between leaves no mixture of two results that passes for one.
    """
    order = [*reversed(last), *(path for path in texts if path not in last)]
    with ExitStack() as renamed_in_reverse:
        for path in order:
            if (text := texts[path]) is not None:
                renamed_in_reverse.enter_context(atomic_path(path)).write_bytes(text.encode())
        for path in (*last, *(path for path, text in texts.items() if text is None)):
            path.unlink(missing_ok=True)


def json_text(value: Any) -> str:
    """JSON as all our files have it: indented, ended by a newline. NaN is refused: use null."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Writes `json_text` atomically."""
    write_text(path, json_text(value))


def read_json(path: Path) -> Any:
    """Reads JSON. A missing or damaged file is an error that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtefactError(f"{path}: not found") from None
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        raise InputError(f"{path}: not valid JSON ({error})") from None


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def seen_from(folder: Path, path: Path) -> str:
    """A path for a record in `folder`, relative where both share more than the root: moved together, they still find each other."""
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))  # noqa: PTH100 — links are kept as they are
    shared = os.path.commonpath([path, folder])
    return os.path.relpath(path, folder) if shared != os.path.sep else str(path)


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of the last change (ns): where both are as before, a file is taken to be as it was."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def sha256_json(value: Any) -> str:
    """Hexadecimal SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def require_writable(folder: Path) -> None:
    """Makes the folder and tries to write into it, before any work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{folder}: not writable ({error.strerror or error}); choose another folder or fix its permissions"
        ) from None


@contextmanager
def folder_lock(
    folder: Path, name: str = ".lock", *, shared: bool = False, patience_s: float = 0.0
) -> Iterator[None]:
    """Holds the folder for this process. The lock goes with the process, however it ends.

    name: of the file that is locked; locks of other names do not know each other. shared: others may hold it too who say the same (not on
    Windows). patience_s: seconds to wait for it.
    Raises FolderBusy where another process holds it, InputError on a file system without locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o666)  # less the umask, as any file
    until = time.monotonic() + patience_s
    try:
        while not _locked(descriptor, shared, folder):
            if time.monotonic() >= until:
                holder = os.read(descriptor, 64).decode(errors="replace").strip()
                raise FolderBusy(
                    f"{folder}: another run is working there ({holder or 'unknown process'}); wait for it or stop it"
                )
            time.sleep(SECONDS_BETWEEN_TRIES)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()}".encode())
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int, shared: bool, folder: Path) -> bool:
    """Whether the lock could be had; False where another process holds it."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            finally:
                os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD_BY_OTHERS:
            return False
        raise InputError(
            f"{folder}: this file system has no locks, which keep two runs from one folder ({error.strerror or error}); "
            "choose a folder on another one, or have it mounted with locks"
        ) from None
    return True


def is_temporary(name: str) -> bool:
    """Whether a file or folder is called as `atomic_path` and `atomic_folder` call theirs."""
    return _TEMPORARY.match(name) is not None


def remove_leftovers(folder: Path, *, recursive: bool = True) -> None:
    """Removes temporary files and folders that a killed process of ours left. Call it only while holding the folder's lock.

    recursive: in the folders below too; only for a folder in which everything is ours.
    """
    for leftover in list(folder.rglob(".tmp-*") if recursive else folder.glob(".tmp-*")):
        if is_temporary(leftover.name):
            _remove(leftover)


def broken_link(path: Path) -> str | None:
    """What is wrong with a link that leads nowhere, and what to do; None for any other path, whether it is there or not."""
    if not path.is_symlink() or path.exists():
        return None
    target = path.readlink()
    advice = (
        "git-annex: run `git annex get` or `datalad get`"
        if "annex" in target.parts
        else f"it leads to {target}"
    )
    return f"is a link to a file that is not there ({advice})"


def require_no_broken_link(path: Path) -> Path:
    """The path itself. Raises InputError where it is a link that leads nowhere; whether it is there at all is not asked."""
    if link := broken_link(path):
        raise InputError(f"{path}: {link}")
    return path
