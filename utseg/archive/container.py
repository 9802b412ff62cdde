"""Reads a zip that a stranger made: names, kinds and sizes are checked before a member is opened, and everything again while it is read.

Nothing is taken from a header on trust: bytes are counted as they come out, and CRC-32 is checked at the end of every member. What the
files mean is checked elsewhere (`verify.py`); nothing is written here.
"""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from utseg.archive.manifest import path_problem
from utseg.errors import InputError
from utseg.files import require_no_broken_link

MEMBERS = 400
"""As many files as an archive may have: a hundred runs."""
DIRECTORY_BYTES = 1 << 20
TOTAL_BYTES = 16 << 30
RATIO = 100
RATIO_FROM_BYTES = 1 << 20
CHUNK = 1 << 20
END = struct.Struct("<4sHHHHIIH")
LOCATOR_BYTES = 20
END_64 = struct.Struct("<4sQHHIIQQQQ")
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    MemoryError,
    struct.error,
)
"""What Python's zipfile raises for damaged and hostile files."""


@dataclass(frozen=True)
class Archive:
    """An open zip whose list of members has been checked. `shown` is what messages call it."""

    shown: str
    container: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]

    def chunks(self, name: str, limit: int) -> Iterator[bytes]:
        """The member's bytes, piece by piece. Raises InputError where it is damaged, grows beyond `limit` bytes, or is a bomb."""
        info = self.members[name]
        if info.file_size > limit:
            raise InputError(
                f"{self.shown}: {name}: {info.file_size} bytes where at most {limit} are expected; nothing was imported"
            )
        count = 0
        with _as_input_error(f"{self.shown}: {name}"), self.container.open(info) as file:
            while data := file.read(CHUNK):
                count += len(data)
                if count > limit or (count > RATIO_FROM_BYTES and count > RATIO * info.compress_size):
                    raise InputError(
                        f"{self.shown}: {name}: {info.compress_size} bytes unpack to more than they may, as in an archive bomb; "
                        "nothing was imported"
                    )
                yield data

    def read(self, name: str, limit: int) -> bytes:
        """All bytes of a member."""
        buffer = io.BytesIO()
        for data in self.chunks(name, limit):
            buffer.write(data)
        return buffer.getvalue()


@contextmanager
def open_archive(path: Path, shown: str | None = None) -> Iterator[Archive]:
    """Opens a zip. Raises InputError, one line, where it is none, is damaged, or has a member that a model archive cannot have."""
    shown = shown or str(path)
    if not require_no_broken_link(path).is_file():
        raise InputError(f"{shown}: no such file; expected an archive that utseg_export_model wrote")
    with _as_input_error(shown):
        file = path.open("rb")
    with file:
        with _as_input_error(shown):
            _check_directory_size(file, shown)
            container = zipfile.ZipFile(file)
        with container:
            members = container.infolist()
            _check_members(members, path.stat().st_size, shown)
            yield Archive(shown, container, {info.filename: info for info in members})


@contextmanager
def _as_input_error(shown: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise InputError(
            f"{shown}: damaged or not an archive of a model ({reason[:200]}); get it again"
        ) from None


def _check_directory_size(file: BinaryIO, shown: str) -> None:
    """Python reads the whole list of members into memory; so how long it is has to be known before."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - END.size))
    tail = file.read()
    if len(tail) < END.size or tail[:4] != b"PK\x05\x06" or tail[-2:] != b"\0\0":
        raise InputError(
            f"{shown}: not a whole zip (its end is not there); expected an archive that utseg_export_model wrote, get it again"
        )
    _, _, _, _, entries, directory, _, _ = END.unpack(tail)
    large = END.size + LOCATOR_BYTES + END_64.size
    if size >= large:
        file.seek(size - large)
        record = file.read(END_64.size)
        if record[:4] == b"PK\x06\x06":
            entries, directory = END_64.unpack(record)[7:9]
    if entries > MEMBERS or directory > DIRECTORY_BYTES:
        raise InputError(
            f"{shown}: {entries} files are listed in it, more than the {MEMBERS} that an archive of models may have; "
            "it is not one, or an archive bomb"
        )


def _check_members(members: list[zipfile.ZipInfo], size: int, shown: str) -> None:
    """Raises InputError for the first member that cannot be."""
    if problem := path_problem([info.orig_filename for info in members]):
        raise InputError(f"{shown}: {problem}; such an archive is not imported")
    for info in members:
        name = f"{shown}: {info.orig_filename}"
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.filename != info.orig_filename:
            raise InputError(f"{name}: its name is ambiguous; such an archive is not imported")
        if kind not in (0, stat.S_IFREG):
            raise InputError(
                f"{name}: a link, folder or device, not a plain file; such an archive is not imported"
            )
        if info.flag_bits & 0x2041:
            raise InputError(f"{name}: is encrypted; ask for an archive that is not")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(
                f"{name}: packed by method {info.compress_type}; expected stored or deflated, as utseg_export_model writes"
            )
    if members and min(info.header_offset for info in members) > 0:
        raise InputError(f"{shown}: something stands before its first file; such an archive is not imported")
    if sum(info.compress_size for info in members) > size:
        raise InputError(
            f"{shown}: its files overlap, as in an archive bomb; such an archive is not imported"
        )
    if (total := sum(info.file_size for info in members)) > TOTAL_BYTES:
        raise InputError(
            f"{shown}: unpacks to {total} bytes, more than {TOTAL_BYTES}; such an archive is not imported"
        )
