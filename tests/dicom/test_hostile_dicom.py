"""DICOM files that lie: one line for each, in bounded time and memory; and nothing is written outside the output folder."""

import os
import struct
import zlib

import numpy as np
import pydicom
import pytest
from dicom_studies import cine, short_axis
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless

from utseg.commands import import_dicom
from utseg.dicom import reading
from utseg.dicom.headers import read_header
from utseg.dicom.pixels import _read_images
from utseg.dicom.reading import Unreadable, damage_named, find_files
from utseg.phantom.dicom import write_dicom_study

IMAGE = cine(frames=2, slices=2, rows=6, columns=5)
DEFLATED = b"\x02\x00\x10\x00UI\x16\x001.2.840.10008.1.2.1.99"


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The bytes of a study of four images."""
    folder = tmp_path_factory.mktemp("study")
    return [path.read_bytes() for path in write_dicom_study(folder, IMAGE, short_axis(), extras=False)]


@pytest.fixture
def file(tmp_path, originals):
    """An image to spoil."""
    path = tmp_path / "IM1"
    path.write_bytes(originals[0])
    return path


def spoil(path, change):
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def part_10(content, meta=b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"):
    return (
        bytes(128) + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<L", len(meta)) + meta + content
    )


def nested(depth):
    """Sequences in sequences, of undefined length."""
    return b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * depth


def test_headers_that_no_file_can_keep_to(file, monkeypatch):
    spoil(file, lambda dataset: setattr(dataset, "Rows", 65535))
    with pytest.raises(Unreadable, match="Rows are 65535; expected 1 to 4096"):
        read_header(file)
    file.write_bytes(part_10(nested(20_000)))
    with pytest.raises(Unreadable, match="nested too deeply"):
        read_header(file)
    file.write_bytes(part_10(b"\x10\x00\x10\x00OB\0\0\xf0\xff\xff\xff" + b"x" * 50))
    with pytest.raises(Unreadable, match="SOPInstanceUID is missing"):
        read_header(file)
    monkeypatch.setattr(reading, "LARGEST_HEADER", 2**16)
    file.write_bytes(part_10(b"\x08\x00\x80\x00OB\0\0\xff\xff\xff\xff" + bytes(2**18)))
    with pytest.raises(Unreadable, match="larger than any real one"):
        read_header(file)
    monkeypatch.setattr(reading, "LARGEST_UNPACKED", 2**20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    file.write_bytes(part_10(packer.compress(bytes(2**22)) + packer.flush(), DEFLATED))
    with pytest.raises(Unreadable, match="unpacks to more than 1 MiB"):
        read_header(file)


def test_an_enhanced_object_has_to_have_the_frames_that_it_counts(tmp_path):
    (path,) = write_dicom_study(tmp_path, IMAGE, short_axis(), extras=False, layout="enhanced")
    spoil(path, lambda dataset: setattr(dataset, "NumberOfFrames", 2_000_000_000))
    with pytest.raises(Unreadable, match="groups of 4 frames; expected 2000000000"):
        read_header(path)


def stream(dataset, syntax, data):
    dataset.PixelData = encapsulate([data])
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset["PixelData"].is_undefined_length = True


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: setattr(d, "PixelData", d.PixelData[:20]), "cut off"),
        (lambda d: delattr(d, "PixelData"), "no pixel data"),
        (lambda d: setattr(d, "SamplesPerPixel", 3), "expected one grey value"),
        (lambda d: setattr(d, "BitsStored", 0), "expected one grey value"),
        (lambda d: stream(d, RLELossless, bytes(10**6)), "of another size"),
        (
            lambda d: stream(d, JPEG2000Lossless, b"\xff\x4f\xff\x51\0\x29\0\0" + struct.pack(">4L", 60000, 60000, 0, 0) + bytes(90)),
            "of another size",
        ),
        (lambda d: stream(d, JPEG2000Lossless, b"\xff\x4f\xff\x51\0\x29\0\0" + struct.pack(">4L", 5, 6, 0, 0) + bytes(90)), "damaged"),
        (lambda d: setattr(d, "RescaleSlope", 0), "rescale slope"),
    ],
)  # fmt: skip
def test_pixels_are_checked_against_the_header_before_they_are_decoded(file, change, said):
    def both(dataset):
        dataset.RescaleIntercept = 0
        change(dataset)

    spoil(file, both)
    with pytest.raises(Unreadable, match=said), damage_named():
        _read_images(file, [None], (6, 5))


def test_only_regular_files_are_opened_and_loops_end(tmp_path, file):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert find_files(tmp_path) == [file]


def mutated(data, rng):
    """A file with some bytes changed, cut out, doubled, or cut off; most of it in the header."""
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        at, count = int(rng.integers(128, len(data))), int(rng.integers(1, 9))
        kind = rng.integers(5)
        if kind <= 1:
            data[at : at + count] = rng.bytes(min(count, len(data) - at))
        elif kind == 2:
            data[at : at + 2] = bytes([rng.choice([0, 255, 127, 128])] * 2)
        elif kind == 3:
            del data[at : at + count]
        elif rng.random() < 0.2:
            del data[at:]
        else:
            data[at:at] = data[at : at + count]
        if len(data) < 140:
            break
    return bytes(data)


def test_mutated_files_are_read_or_refused(tmp_path, originals, capfd):
    rng = np.random.default_rng(20)
    outcomes = []
    for number in range(200):
        path = tmp_path / "in" / f"IM{number:03d}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(mutated(originals[number % 4], rng))
        try:
            header = read_header(path)
            outcomes.append("frames" if header and header.frames else "none")
            if header and header.frames:
                with damage_named():
                    _read_images(path, [None], header.size)
        except Unreadable as error:
            outcomes.append("refused")
            assert "\n" not in str(error) and len(str(error)) < 400
    assert outcomes.count("refused") > 10 and outcomes.count("frames") > 10
    for number, data in enumerate(originals):
        (tmp_path / "in" / f"whole{number}").write_bytes(data)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    code = import_dicom.main([str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-np", "1"])
    _, err = capfd.readouterr()
    assert code in (0, 1) and "unexpected" not in err and "Traceback" not in err
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all(tmp_path / "out" in path.parents for path in new)
