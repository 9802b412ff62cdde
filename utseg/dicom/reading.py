"""Finds DICOM files below a folder and reads their headers in bounded memory: pydicom parses, this module keeps watch.

A file may lie about every length in it. Whatever is wrong with one is a line of text for that file, never a crash, and no more is read or
unpacked than the limits below.
"""

import os
import stat
import warnings
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from utseg.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MOST_FILES = 200_000
MOST_DEPTH = 40
LARGEST_HEADER = 64 * 2**20  # bytes read to parse one header; an enhanced object of 1,000 frames has 4 MiB
LARGEST_UNPACKED = 128 * 2**20  # of a file with the deflated transfer syntax
SMALL = 2**16  # bytes that may be asked for beyond the end of a file
PREAMBLE = 128
DEFLATED = "1.2.840.10008.1.2.1.99"
DIRECTORY_CLASS = "1.2.840.10008.1.3.10"  # DICOMDIR
PIXEL_DATA = 0x7FE00010
# A file without preamble begins with an element of group 2 or 8, in either byte order of the group.
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")


class Unreadable(InputError):
    """A DICOM file that is damaged, or larger than the limits. The message has no path in it, and no text of the file."""


def find_files(folder: Path) -> list[Path]:
    """All regular files below a folder, sorted by path; links are followed, each folder once. Raises InputError for too many.

    No message has the path of what lies in the folder: archives name folders and files after patients.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{folder}: it, or a folder in it, could not be read ({error.strerror})")

    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in seen or len(Path(root).relative_to(folder).parts) > MOST_DEPTH:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        found += (path for name in sorted(names) if _is_regular(path := Path(root, name)))
        if len(found) > MOST_FILES:
            raise InputError(f"{folder}: more than {MOST_FILES:,} files; import its sub-folders one by one")
    return sorted(found, key=str)


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


class _Deflated(Exception):
    """The dataset of a file is deflated, from where its handle is."""


class _BoundedFile:
    """A file for pydicom that gives no more than `most` bytes altogether."""

    def __init__(self, handle: BinaryIO, most: int) -> None:
        self._handle, self._left = handle, most
        self._size = os.fstat(handle.fileno()).st_size
        self.seek, self.tell = handle.seek, handle.tell

    def read(self, size: int = -1) -> bytes:
        """As of any file; what is asked for beyond the end of the file is not set aside."""
        if size < 0:  # pydicom asks for all that is left only where it would unpack it, without a limit
            raise _Deflated
        if size > SMALL:
            size = min(size, max(0, self._size - self._handle.tell()))
        self._left -= size
        if self._left < 0:
            raise Unreadable("its header is larger than any real one; the file is damaged")
        return self._handle.read(size)


@contextmanager
def damage_named() -> Iterator[None]:
    """Turns whatever pydicom raises over damaged data into Unreadable, and keeps its warnings off the terminal."""
    from pydicom import config

    mode = config.settings.reading_validation_mode
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config.settings.reading_validation_mode = (
            config.IGNORE
        )  # real files break rules that do not matter here, and this is quicker
        try:
            yield
        except (Unreadable, _Deflated):
            raise
        except RecursionError:
            raise Unreadable("its sequences are nested too deeply; the file is damaged") from None
        except MemoryError:
            raise Unreadable("it asks for more memory than there is; the file is damaged") from None
        except OSError as error:
            raise Unreadable(f"could not be read ({error.strerror or error})") from None
        except Exception as error:  # noqa: BLE001 — a parser of hostile bytes raises anything: struct.error, KeyError, …
            # Not what the error says: it may quote an element, and with it who the patient is.
            raise Unreadable(f"damaged or no proper DICOM ({type(error).__name__})") from None
        finally:
            config.settings.reading_validation_mode = mode


def read_dataset(path: Path, tags: Collection[int], *, pixels: bool = False) -> "Dataset | None":
    """The named elements of a file with its file_meta; None where it is not DICOM. `pixels`: with the pixel data, else up to it.

    Raises Unreadable.
    """
    from pydicom.filereader import read_partial

    with damage_named(), path.open("rb") as handle:
        begin = handle.read(PREAMBLE + 4)
        plain = begin[PREAMBLE:] != b"DICM"
        if plain and not _begins_like_dicom(begin):
            return None
        handle.seek(0)
        source: Any = _BoundedFile(
            handle, LARGEST_HEADER + (os.fstat(handle.fileno()).st_size if pixels else 0)
        )
        stop = None if pixels else _at_pixels
        try:
            return read_partial(source, stop, force=plain, specific_tags=sorted(tags))  # type: ignore[arg-type]
        except _Deflated:
            return _inflated(handle, stop, tags)


def _begins_like_dicom(begin: bytes) -> bool:
    """Whether a file without preamble begins like a dataset: an element of group 2 or 8 whose number is low."""
    return begin[:2] in FIRST_GROUPS and len(begin) > PREAMBLE and max(begin[2:4]) < 0x20


def _at_pixels(tag: int, vr: str | None, length: int) -> bool:
    return int.__ge__(tag, PIXEL_DATA)  # a BaseTag compares slowly


def _inflated(handle: BinaryIO, stop: Any, tags: Collection[int]) -> "Dataset":
    """The deflated dataset that begins where the handle is, unpacked to at most LARGEST_UNPACKED."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filebase import DicomBytesIO
    from pydicom.filereader import read_dataset as parse
    from pydicom.uid import ExplicitVRLittleEndian

    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    content = unpack.decompress(handle.read(LARGEST_UNPACKED), LARGEST_UNPACKED)
    if unpack.unconsumed_tail:
        raise Unreadable(f"unpacks to more than {LARGEST_UNPACKED // 2**20} MiB; export it uncompressed")
    dataset = parse(DicomBytesIO(content), False, True, stop_when=stop, specific_tags=sorted(tags))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset
