"""The bytes of a file, plain or gzip, without ever holding more than what is asked for; and what a file is, by its first bytes.

A gzip stream is read to its end, so that every CRC and length in it is checked. Nothing is known here about what images hold.
"""

import shlex
import zlib
from collections.abc import Iterator
from itertools import islice
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
    folder = path if path.is_dir() else path.parent
    return InputError(
        f"{path}: DICOM, which is not read; convert its folder first: dcm2niix -z y -o OUT {shlex.quote(str(folder))}"
    )


def kind_of(begin: bytes) -> str | None:
    """What a file is that begins so, in words; None where that is not known."""
    return next((name for signature, name in _SIGNATURES.items() if begin.startswith(signature)), None)


class PlainContent:
    """A file as it is: its size is known, and nothing else can be checked. `most`: bytes that it can hold."""

    def __init__(self, path: Path, handle: BinaryIO) -> None:
        self._path, self._handle = path, handle
        self.most = path.stat().st_size

    def head(self, count: int) -> bytes:
        """The first `count` bytes, fewer where the file is shorter."""
        self._handle.seek(0)
        return self._handle.read(count)

    def part(self, start: int, count: int, total: int) -> bytearray:
        """Bytes start … start + count, from a file that must hold `total` bytes exactly."""
        if self.most != total:
            raise wrong_size(self._path, total, f"{self.most:,}")
        data = bytearray(count)
        self._handle.seek(start)
        if self._handle.readinto(data) != count:  # type: ignore[attr-defined]
            raise InputError(f"{self._path}: ended while it was read; is it still being written?")
        return data

    def first_nonzero(self, start: int) -> int | None:
        """The position of the first byte from `start` on that is not zero; reads no further."""
        self._handle.seek(start)
        for piece in iter(lambda: self._handle.read(PIECE_BYTES), b""):
            if rest := piece.lstrip(b"\0"):
                return self._handle.tell() - len(rest)
        return None


class GzipContent:
    """A gzip file, of one or several members; zero bytes after the last are padding, anything else there is refused.

    Python's gzip module says the same, but takes a fifth longer (3.11).
    """

    def __init__(self, path: Path, handle: BinaryIO) -> None:
        self._path = path
        self.most = path.stat().st_size * LARGEST_RATIO
        self._chunks = gzip_chunks(path, handle)
        self._begin = bytearray()

    def head(self, count: int) -> bytes:
        while len(self._begin) < count:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._begin += chunk
        return bytes(self._begin[:count])

    def part(self, start: int, count: int, total: int) -> bytearray:
        data = bytearray(count)
        position = 0
        for chunk in self._all_chunks():
            if position + len(chunk) > total:
                raise wrong_size(self._path, total, "more")
            low, high = max(start, position), min(start + count, position + len(chunk))
            if low < high:
                data[low - start : high - start] = memoryview(chunk)[low - position : high - position]
            position += len(chunk)
        if position != total:
            raise wrong_size(self._path, total, f"{position:,}")
        return data

    def first_nonzero(self, start: int) -> int | None:
        position = 0
        for chunk in self._all_chunks():
            position += len(chunk)
            if rest := chunk[max(start - position + len(chunk), 0) :].lstrip(b"\0"):
                return position - len(rest)
        return None

    def _all_chunks(self) -> Iterator[bytes]:
        yield bytes(self._begin)
        self._begin.clear()
        yield from self._chunks


Content = PlainContent | GzipContent


def wrong_size(path: Path, total: int, found: str) -> InputError:
    """The error for a file that is cut off, or longer than its header says."""
    return InputError(
        f"{path}: the header calls for {total:,} bytes, found {found}; the file is cut off or its header is damaged: copy it again"
    )


def gzip_chunks(path: Path, handle: BinaryIO) -> Iterator[bytes]:
    """Decompresses in pieces of at most 1 MiB. Raises InputError where the stream is damaged or cut off, or something follows it."""
    inflate = zlib.decompressobj(wbits=31)
    feed, limit = b"", FIRST_CHUNK_BYTES
    while True:
        feed = feed or handle.read(PIECE_BYTES)
        if inflate.eof:
            feed = feed.lstrip(b"\0")
            if feed and not feed.startswith(GZIP_MAGIC[: len(feed)]):
                raise InputError(
                    f"{path}: something else follows the gzip stream; the file is damaged: copy or export it again"
                )
            if feed:
                inflate = zlib.decompressobj(wbits=31)
            elif handle.peek(1):  # type: ignore[attr-defined]
                continue
            else:
                return
        ended = not feed
        try:
            chunk = inflate.decompress(feed, limit)
        except zlib.error as error:
            reason = str(error).rpartition(": ")[2]
            raise InputError(
                f"{path}: the gzip stream is damaged ({reason}); copy or download the file again"
            ) from None
        if ended and not chunk and not inflate.eof:
            raise InputError(f"{path}: the gzip stream is cut off; copy or download the file again")
        feed = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
        limit = CHUNK_BYTES
        if chunk:
            yield chunk
