"""Read files, plain or compressed, in bounded memory, and recognise a format by its first bytes.

A compressed stream is read to its end, so that every CRC and length in it is checked.
"""

import shlex
import zlib
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from utseg.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
PIECE_BYTES = 64 * 1024
CHUNK_BYTES = 2**20
FIRST_CHUNK_BYTES = 4096  # the header; often all that is wanted
# The densest deflate code: 258 bytes out of two bits (zlib's technical notes).
LARGEST_RATIO = 1032
DICOM_ENDINGS = (".dcm", ".ima")
FILES_LOOKED_AT = 200
_SIGNATURES = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"BM": "a bitmap picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"PK\x03\x04": "a zip archive",
    b"\x89HDF": "an HDF5 file",
    b"NRRD": "an NRRD file",
    b"ObjectType": "a MetaImage file",
    b"%PDF": "a PDF file",
    b"<": "a web page or XML",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself (run `git lfs pull`)",
    b"/annex/objects/": "a git-annex pointer, not the file itself (run `git annex get` or `datalad get`)",
    GZIP_MAGIC: "a gzip file; rename it to .nii.gz",
}


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its name or its first bytes; False for what cannot be read."""
    if path.name.lower().endswith(DICOM_ENDINGS):
        return True
    try:
        with path.open("rb") as handle:
            return handle.read(132)[128:] == b"DICM"
    except OSError:
        return False


def dicom_in(folder: Path) -> Path | None:
    """A DICOM file in a folder or below it, None where the first 200 files are none."""
    files = (path for path in islice(folder.rglob("*"), FILES_LOOKED_AT) if path.is_file())
    return next(filter(is_dicom, files), None)


def dicom_refusal(path: Path) -> InputError:
    """The error for a DICOM file, or a folder of them."""
    folder = shlex.quote(str(path if path.is_dir() else path.parent))
    return InputError(
        f"{path}: DICOM, which is not read here; make NIfTI of its folder first: utseg_import_dicom {folder} -o OUT for short-axis "
        f"cines, dcm2niix -z y -o OUT {folder} for other scans"
    )


def kind_of(begin: bytes) -> str | None:
    """What a file is that begins so, in words; None where that is not known."""
    return next((name for signature, name in _SIGNATURES.items() if begin.startswith(signature)), None)


class Content:
    """The bytes of a file, unpacked where its name ends in .gz, read once from start to end. `most`: bytes that it can hold."""

    def __init__(self, path: Path, handle: BinaryIO) -> None:
        self._path, self._handle = path, handle
        self._compressed = path.name.endswith(".gz")
        self._chunks = unpacked(path, handle) if self._compressed else _plain(handle)
        self._begin = b""
        self._position = 0
        self._stored = path.stat().st_size
        self.most = self._stored * (LARGEST_RATIO if self._compressed else 1)

    def head(self, count: int) -> bytes:
        """The first `count` bytes, fewer where the file is shorter."""
        while len(self._begin) < count and (chunk := next(self._chunks, b"")):
            self._begin += chunk
        return self._begin[:count]

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """All of it in pieces, each with its position."""
        position = 0
        for chunk in chain((self._begin,), self._chunks):
            yield position, chunk
            position += len(chunk)

    def part_ahead(self, start: int, count: int, total: int) -> bytearray | None:
        """As `part`, of a compressed file from where the last call of this ended; None where `start` lies before that.

        What comes after these bytes is not checked.
        """
        if not self._compressed:
            return self.part(start, count, total)
        if start < self._position:
            return None
        data, filled = bytearray(count), 0
        while filled < count:
            if not self._begin and not (chunk := next(self._chunks, b"")):
                raise wrong_size(self._path, total, f"{self._position:,}")
            self._begin = self._begin or chunk
            skipped = min(max(0, start - self._position), len(self._begin))
            taken = min(count - filled, len(self._begin) - skipped)
            data[filled : filled + taken] = memoryview(self._begin)[skipped : skipped + taken]
            self._begin = self._begin[skipped + taken :]
            self._position += skipped + taken
            filled += taken
        return data

    def part(self, start: int, count: int, total: int) -> bytearray:
        """Bytes start … start + count, from a file that must hold `total` bytes exactly."""
        if not self._compressed:
            if self._stored != total:
                raise wrong_size(self._path, total, f"{self._stored:,}")
            self._handle.seek(start)
            return bytearray(self._handle.read(count))
        data, found = bytearray(count), 0
        for position, chunk in self.chunks():
            found = position + len(chunk)
            if found > total:
                raise wrong_size(self._path, total, "more")
            low, high = max(start, position), min(start + count, found)
            if low < high:
                data[low - start : high - start] = memoryview(chunk)[low - position : high - position]
        if found != total:
            raise wrong_size(self._path, total, f"{found:,}")
        return data


def _plain(handle: BinaryIO) -> Iterator[bytes]:
    yield handle.read(FIRST_CHUNK_BYTES)
    yield from iter(partial(handle.read, CHUNK_BYTES), b"")


def wrong_size(path: Path, total: int, found: str) -> InputError:
    """The error for a file that is cut off, or longer than its header says."""
    return InputError(
        f"{path}: the header calls for {total:,} bytes, found {found}; the file is cut off or its header is damaged: copy it again"
    )


def unpacked(path: Path, handle: BinaryIO, *, joined: bool = True) -> Iterator[bytes]:
    """A zlib or gzip stream in pieces of at most 1 MiB: gzip of one or several members, zero bytes after the last are padding.

    joined: whether several members are one stream; else nothing may follow the first.

    Raises InputError where the stream is damaged or cut off, or anything else follows it. Python's gzip module finds the same faults and
    takes a quarter longer (3.11).
    """
    inflate = zlib.decompressobj(wbits=47)
    feed, limit = b"", FIRST_CHUNK_BYTES
    while True:
        feed = feed or handle.read(PIECE_BYTES)
        ended = not feed
        if inflate.eof:
            feed = feed.lstrip(b"\0")
            if feed and not (joined and feed.startswith(GZIP_MAGIC[: len(feed)])):
                raise InputError(f"{path}: something follows the compressed data; copy or export it again")
            if ended:
                return
            if feed:
                inflate = zlib.decompressobj(wbits=31)
            continue
        try:
            chunk = inflate.decompress(feed, limit)
        except zlib.error as error:
            reason = str(error).rpartition(": ")[2]
            raise InputError(
                f"{path}: the compressed data is damaged ({reason}); copy or download the file again"
            ) from None
        if ended and not chunk and not inflate.eof:
            raise InputError(f"{path}: the compressed data is cut off; copy or download the file again")
        feed = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
        limit = CHUNK_BYTES
        if chunk:
            yield chunk
